"""`gradstore show`: what is in a store, and how it was made."""

from __future__ import annotations

from gradstore_cli.options import JsonOption, StoreArgument


def show(store: StoreArgument, as_json: JsonOption = False) -> None:
    """Show what is in a store and how it was made.

    Example:
      gradstore show digits.store
      gradstore show digits.store --json
    """
    from gradstore.inspect import show as shown
    from gradstore.store import Store
    from gradstore_cli.tables import print_json, print_nested

    document = shown(Store.open(store))
    print_json(document) if as_json else print_nested(document)
