"""What one builder does for all of a store's builders, while the others wait: training, and laying out the store."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from gradstore.store.claims import Claims

Made = TypeVar("Made")

_LOOK_EVERY_S = 1.0
_KEY = "preparation"


def one_at_a_time(
    claims: Claims, doing: str, make: Callable[[], Made], look: Callable[[], Made | None], say: Callable[[str], None]
) -> Made:
    """What `look` finds, or what `make` makes.

    Args:
        doing: what other builders are told meanwhile.
        look: None as long as nobody has made it.
        say: told whom this waits for. A holder that is gone is waited for no longer than a minute.
    """
    told: str | None = None
    while (found := look()) is None:
        if claims.take(_KEY):
            return _made(claims, doing, make, look)
        holder = claims.holder(_KEY)
        if holder is not None and holder.name != told:
            told = holder.name
            say(f"Another builder has this store in hand ({holder}): waiting for it. Ctrl-C leaves it alone.")
        time.sleep(_LOOK_EVERY_S)
    return found


def _made(claims: Claims, doing: str, make: Callable[[], Made], look: Callable[[], Made | None]) -> Made:
    before = claims.me.doing
    try:
        found = look()  # its last holder may have made it in between
        if found is None:
            claims.say(doing)
            found = make()
        return found
    finally:
        claims.release(_KEY)
        claims.say(before)
