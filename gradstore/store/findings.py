"""What a verification finds: of each fault what was found, what was expected, and what takes it away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gradstore.store.place import Place
from gradstore.store.sealed import json_text

FindingKind = Literal["missing", "damaged", "extra", "leftover", "rows"]


@dataclass(frozen=True)
class Discard:
    """Take back the commit of a shard: the next build makes it again."""

    checkpoint: int
    shard: int


@dataclass(frozen=True)
class Remove:
    """Remove a file: whoever needs it makes it again."""

    place: Place
    name: str


@dataclass(frozen=True)
class Write:
    """Write a file whose content is known."""

    place: Place
    name: str
    data: bytes


@dataclass(frozen=True)
class Finding:
    """A fault, or something that a killed run left (`leftover`, which is none)."""

    kind: FindingKind
    """`rows`: the bytes are those that were committed, and the numbers in them cannot be right"""
    file: str
    """relative to the store, or absolute for what lies elsewhere"""
    sentence: str
    cure: Discard | Remove | Write | None = None
    """None where nothing in the store can mend it"""


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found. Files are named relative to the store."""

    n_shards: int
    """shards that a finished store has, over all checkpoints"""
    pending: tuple[tuple[int, int], ...]
    """(checkpoint, shard) of what is not done; no fault"""
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()
    """what is no fault and worth knowing"""
    recomputed: Mapping[str, int] | None = None
    """where rows were computed again: how many, and how many of them are the same, close, and different"""

    @property
    def n_committed(self) -> int:
        """Shards that are done."""
        return self.n_shards - len(self.pending)

    @property
    def missing(self) -> tuple[str, ...]:
        """Files that must be there and are not."""
        return self._files("missing")

    @property
    def damaged(self) -> tuple[str, ...]:
        """Files whose content is not what was written."""
        return self._files("damaged")

    @property
    def extra(self) -> tuple[str, ...]:
        """Files among the store's own that no store of this shape has."""
        return self._files("extra")

    @property
    def leftovers(self) -> tuple[str, ...]:
        """What a killed run left: temporary files and files of what is not finished; no fault."""
        return self._files("leftover")

    @property
    def bad_rows(self) -> tuple[str, ...]:
        """Files with numbers that cannot be right, although they are as they were committed."""
        return self._files("rows")

    @property
    def problems(self) -> tuple[str, ...]:
        """A sentence a fault: what was found, what was expected, what to do."""
        return tuple(finding.sentence for finding in self.findings if finding.kind != "leftover")

    @property
    def ok(self) -> bool:
        """Whether all that is committed is as it was committed."""
        return not self.problems

    def with_more(self, findings: Iterable[Finding], **changes: Any) -> VerifyReport:
        """With further findings."""
        return VerifyReport(**{**vars(self), "findings": (*self.findings, *findings), **changes})

    def to_json(self) -> str:
        names = ("missing", "damaged", "extra", "leftovers", "bad_rows", "problems", "notes", "n_shards", "n_committed")
        values = {name: getattr(self, name) for name in ("ok", *names, "pending", "recomputed")}
        return json_text(values)

    def _files(self, kind: FindingKind) -> tuple[str, ...]:
        return tuple(dict.fromkeys(finding.file for finding in self.findings if finding.kind == kind))
