"""What the stages of a recipe after the build are asked to do; the strings under the fields are their documentation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gradstore_pipelines.settings_error import SettingsError


@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """`[index]`: a search index for proponents and opponents."""

    kind: Literal["flat", "rabitq", "ivf-sq8", "ivf-pq", "hnsw"] = "rabitq"
    """rabitq is small and quick to build; flat finds everything; the others are for comparison."""
    normalise: Literal["none", "cosine", "relatif"] = "none"
    """The reading that it serves; cosine and relatif share one index."""
    memory: str = "1GB"
    """Memory that building it may take, such as 500MB or 4GB."""
    parameters: str | None = None
    """Whose gradients: a set that the build tracks; by default its first."""

    def __post_init__(self) -> None:
        n_bytes(self.memory)


@dataclass(frozen=True, kw_only=True)
class RankSettings:
    """`[rank]`: the ranking as tables, most suspicious first."""

    output: tuple[Path, ...]
    """Files to write; the extension names the format: .csv, .parquet, .jsonl."""
    signal: str = "combined"
    """Rank by this signal; gradstore rank-outliers --list-signals names them."""
    parameters: str | None = None
    """Whose gradients: a set that the build tracks; by default its first."""
    top: int | None = None
    """Only so many examples; by default all."""

    def __post_init__(self) -> None:
        from gradstore.ranking.export import format_of

        for path in self.output:
            format_of(path, None)
        _require_signal(self.signal)
        if not self.output:
            raise SettingsError("[rank] output names no file. Give at least one, such as suspicious.csv.")
        if self.top is not None and self.top < 1:
            raise SettingsError(f"[rank] top is {self.top}; it must be at least 1.")


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """`[report]`: the page of a ranking, with pictures, reasons and neighbours."""

    output: Path
    """The .html file to write."""
    signal: str = "combined"
    """Rank by this signal."""
    parameters: str | None = None
    """Whose gradients: a set that the build tracks; by default its first."""
    title: str | None = None
    """Headline of the page; by default it names the store."""

    def __post_init__(self) -> None:
        if self.output.suffix not in (".html", ".htm"):
            raise SettingsError(f"[report] output is '{self.output}'; a page is an .html file.")
        _require_signal(self.signal)


def n_bytes(text: str) -> int:
    """A size as a person writes it, in powers of 1000.

    >>> n_bytes("500MB"), n_bytes("1.5 gb"), n_bytes("2e9")
    (500000000, 1500000000, 2000000000)

    Raises:
        SettingsError: it is no size, or not above 0.
    """
    words = text.strip().lower().removesuffix("b").strip()
    factor = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}.get(words[-1:], 1)
    try:
        found = float(words.rstrip("kmgt")) * factor
        if not 0 < found < 1e18:
            raise ValueError
    except ValueError:
        raise SettingsError(f"--memory {text!r} is not a size. Write it like 500MB or 4GB.") from None
    return int(found)


def _require_signal(name: str) -> None:
    """Known before the hours of a build, not after."""
    from gradstore.errors import UnknownSignalError
    from gradstore.ranking.rank import COMBINED
    from gradstore.ranking.signals import ALL_SIGNALS

    if name not in (COMBINED, *ALL_SIGNALS):
        raise UnknownSignalError(f"There is no signal {name!r}. The signals are {COMBINED}, {', '.join(ALL_SIGNALS)}.")
