"""How well bad examples are found: planted contamination and detection curves."""
