"""One HTML page that a person looks at."""
