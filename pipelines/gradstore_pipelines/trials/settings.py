"""What a self-test is asked to do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from gradstore.store.place import Location, as_location, local_folder
from gradstore_pipelines.settings_error import SettingsError

_FEWEST_EXAMPLES = 10


@dataclass(frozen=True, kw_only=True)
class SelftestSettings:
    """Settings of `selftest`; the string under a field is its documentation."""

    store: Location
    """The gradient store."""
    sample: int = 2000
    """Examples of the store's data, drawn at random; errors are planted into a copy of them."""
    share: float = 0.02
    """Share of the sample that is made bad."""
    kinds: tuple[str, ...] = ()
    """Kinds of errors to plant, such as noise,inverted; by default all that fit the data."""
    foreign: Location | None = None
    """Other data of the same shape, to plant some of its examples."""
    repeats: int = 1
    """How often each kind is planted, always into another sample, with another training."""
    parameters: str | None = None
    """Whose gradients: a set that build tracked; by default its first."""
    device: str = "auto"
    """cpu, cuda, or auto."""
    seed: int = 0
    """Of the samples and of what is planted."""
    work: Path | None = None
    """Where finished kinds are kept; by default in the store's folder, for one in a bucket in the cache."""

    def __post_init__(self) -> None:
        """Paths may be given as strings, and kinds as one string with commas."""
        self._convert()
        if self.sample < _FEWEST_EXAMPLES:
            raise SettingsError(f"--sample is {self.sample}; it must be at least {_FEWEST_EXAMPLES}.")
        if not (math.isfinite(self.share) and 0 < self.share <= 0.5):
            raise SettingsError(f"--share is {self.share}; it must be above 0 and at most 0.5, such as 0.02.")
        if self.repeats < 1:
            raise SettingsError(f"--repeats is {self.repeats}; it must be at least 1.")
        if self.seed < 0:
            raise SettingsError(f"--seed is {self.seed}; it must be at least 0.")

    def _convert(self) -> None:
        given = getattr(self, "kinds")  # noqa: B009 - a string is no tuple, and comes all the same
        given = (given,) if isinstance(given, str) else given
        kinds = [kind.strip() for part in given for kind in part.split(",")]
        object.__setattr__(self, "kinds", tuple(dict.fromkeys(kind for kind in kinds if kind)))
        object.__setattr__(self, "store", as_location(self.store))
        object.__setattr__(self, "foreign", None if self.foreign is None else as_location(self.foreign))
        object.__setattr__(self, "work", None if self.work is None else Path(self.work))

    @property
    def folder(self) -> Path:
        """Where finished kinds are kept."""
        return local_folder(self.store) / "selftest" if self.work is None else self.work

    def n_planted(self, n_examples: int) -> int:
        """Of a sample of so many examples: one at least, and never all."""
        return min(max(1, round(self.share * n_examples)), n_examples - 1)
