"""`python -m gradstore_cli` is the `gradstore` command."""

from gradstore_cli.main import main

main()
