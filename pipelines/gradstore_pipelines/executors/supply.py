"""The units of a stage that this build may take: not done, and in nobody else's hands.

Several builders go through the same list. What another has claimed is put aside and looked at again when everything
else is taken: by then it is done, or its holder has gone and it is taken over.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from gradstore.store.claims import Claims
from gradstore_pipelines.stage import Stage, Unit

_LOOK_EVERY_S = 1.0


class Supply:
    """Hands out units one by one."""

    def __init__(self, stage: Stage, claims: Claims | None, say: Callable[[str], None]) -> None:
        self._fresh, self._claims, self._say = stage.units(), claims, say
        self._elsewhere: deque[Unit] = deque()
        self._exhausted = False
        self._look_at = 0.0
        self._told: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether everything was handed out; while other builders hold something, it is not."""
        return self._exhausted and not self._elsewhere

    def take(self) -> Unit | None:
        """A unit to do now; None where there is none, for now or at all."""
        for unit in self._fresh:
            if self._claimed(unit):
                return unit
            self._elsewhere.append(unit)
        self._exhausted = True
        return self._let_go()

    def finish(self, unit: Unit) -> None:
        """It is done, or has failed: whoever wants it may have it."""
        if self._claims is not None:
            self._claims.release(unit.key)

    def _claimed(self, unit: Unit) -> bool:
        return self._claims is None or self._claims.take(unit.key)

    def _let_go(self) -> Unit | None:
        """The first of those put aside that nobody holds any more."""
        if time.monotonic() < self._look_at:
            return None
        for _ in range(len(self._elsewhere)):
            unit = self._elsewhere.popleft()
            if self._claimed(unit):
                return unit
            self._elsewhere.append(unit)
        self._look_at = time.monotonic() + _LOOK_EVERY_S
        self._tell()
        return None

    def _tell(self) -> None:
        """Once a holder: whom the rest is waiting for."""
        holder = self._claims.holder(self._elsewhere[0].key) if self._claims and self._elsewhere else None
        if holder is not None and holder.name != self._told:
            self._told = holder.name
            self._say(f"{len(self._elsewhere)} shards are in other hands ({holder}): waiting for them.")
