"""What an index is, and the card beside its file that says which rows it was built from and how much it finds.

Why a hash: a flipped bit in an index is not an error but a wrong answer. The file's SHA-256 is in the card and is
compared whenever an index is opened: one read of the file (0.5 s a GB), which a program that keeps the index open pays
once. Its size is looked at first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from gradstore.errors import IndexFileError, IndexMismatchError, IndexNotFoundError, StoreCorruptError
from gradstore.search.neighbours import Neighbours
from gradstore.search.rows import QuerySketches, StoredRows
from gradstore.search.weights import Normalise
from gradstore.store.commits import FileHash
from gradstore.store.files import replacing
from gradstore.store.sealed import require_sealed, sealed

_VERSION = 3


class Index(Protocol):
    """A searchable form of a store's rows. Implementations inherit `gradstore.testing.index_kit.IndexContract`."""

    @classmethod
    def build(cls, rows: StoredRows, normalise: Normalise = "none") -> Index:
        """Read all rows once. `normalise` is the reading that `search` gives unless told otherwise."""

    def search(
        self,
        queries: QuerySketches,
        k: int,
        *,
        largest: bool = True,
        normalise: Normalise | None = None,
        exclude: Sequence[int] | None = None,
    ) -> Neighbours:
        """The k best rows of every query: proponents, or opponents where `largest` is False (lowest score first).

        Raises:
            QueryError: k that the rows cannot answer, or a normalise that this index does not hold.
            ShapeError: queries that do not fit the rows.
        """

    def save(self, path: Path) -> None:
        """Write atomically; a card with the rows' fingerprint goes beside `path`."""

    @classmethod
    def load(cls, path: Path, rows: StoredRows) -> Index:
        """Open what `save` wrote, for the same rows.

        Raises:
            IndexNotFoundError: nothing was saved at `path`.
            IndexMismatchError: built from other rows than `rows` now holds.
            IndexFileError: the file is damaged or of another kind.
        """


@dataclass(frozen=True, kw_only=True)
class IndexCard:
    """Which rows an index was built from, as JSON at `<index>.json`. Written last: no card, no index."""

    kind: str
    normalise: Normalise
    fingerprint: str
    n_examples: int
    n_checkpoints: int
    d_sketch: int
    scale: float = 1.0
    """what rows were multiplied by"""
    effort: int = 1
    """how hard it looks; see `gradstore.search.faiss_kinds`"""
    recall: dict[str, float] = field(default_factory=dict)
    """what it finds of the exact search's answer; see `gradstore.search.recall`"""
    n_bytes: int = 0
    sha256: str = ""
    version: int = _VERSION

    @classmethod
    def of(cls, rows: StoredRows, *, kind: str, normalise: Normalise, **more: Any) -> IndexCard:
        """The card of an index over these rows; `more` are any other fields."""
        return cls(
            kind=kind,
            normalise=normalise,
            fingerprint=rows.content_fingerprint(),
            n_examples=rows.n_examples,
            n_checkpoints=rows.n_checkpoints,
            d_sketch=rows.d_sketch,
            **more,
        )

    def write(self, path: Path) -> None:
        """Write the card of the index at `path`, atomically; it carries its own hash, and that of the index."""
        fields = asdict(self)
        held = {"name": path.name, "bytes": fields.pop("n_bytes"), "sha256": fields.pop("sha256")}
        text = sealed({**fields, "file": held if self.sha256 else None})
        replace_file(card_path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"))

    @classmethod
    def read(cls, path: Path, rows: StoredRows, *, kind: str) -> IndexCard:
        """The card of the index at `path`, once it is known to describe `rows`."""
        card = cls._parse(path, rows, kind)
        if (card.kind, card.version) != (kind, _VERSION):
            raise IndexFileError(
                f"{path} holds an index of kind {card.kind!r}, version {card.version}; expected {kind!r}, "
                f"version {_VERSION}. {build_again(rows, kind)}"
            )
        if card.fingerprint != rows.content_fingerprint():
            raise IndexMismatchError(
                f"{path} was built from other rows ({card.n_examples} examples, fingerprint {card.fingerprint[:12]}) "
                f"than {rows.location} now holds ({rows.n_examples} examples, fingerprint "
                f"{rows.content_fingerprint()[:12]}). {build_again(rows, kind, card.normalise)}"
            )
        return card

    @classmethod
    def _parse(cls, path: Path, rows: StoredRows, kind: str) -> IndexCard:
        try:
            fields = require_sealed(card_path(path).read_text(encoding="utf-8"), card_path(path).name)
            held = fields.pop("file") or {"bytes": 0, "sha256": ""}
            return cls(**fields, n_bytes=held["bytes"], sha256=held["sha256"])
        except FileNotFoundError:
            raise IndexNotFoundError(
                f"{rows.location} has no finished index at {path}. {build_again(rows, kind)}"
            ) from None
        except (StoreCorruptError, ValueError, TypeError, KeyError) as error:
            raise IndexFileError(
                f"{card_path(path)} is not an index card as this version writes it: it is damaged, or of an earlier "
                f"version. {build_again(rows, kind)}"
            ) from error

    def check_file(self, path: Path, rows: StoredRows) -> None:
        """Hold the index file against its size and hash.

        Raises:
            IndexNotFoundError: only the card is there.
            IndexFileError: other bytes than were written.
        """
        advice = build_again(rows, self.kind, self.normalise)
        if not path.exists():
            raise IndexNotFoundError(f"{path} is gone; only its card is there. {advice}")
        found = path.stat().st_size
        if found != self.n_bytes:
            raise IndexFileError(f"{path} has {found} bytes; {self.n_bytes} were written. It is damaged. {advice}")
        if FileHash.read(path).sha256 != self.sha256:
            raise IndexFileError(f"{path} does not hold the bytes that were written. It is damaged. {advice}")


def build_again(rows: StoredRows, kind: str, normalise: Normalise = "none") -> str:
    """What to do about an index that is not there or cannot be used."""
    of_kind = "" if kind == "exact" else f" --kind {kind}"
    return f"Run: gradstore index {rows.location}{of_kind}{'' if normalise == 'none' else f' --normalise {normalise}'}"


def card_path(path: Path) -> Path:
    """Where the card of the index at `path` lies."""
    return path.with_name(path.name + ".json")


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write a temporary file, make it durable, rename it: at `path` stands the old file or the whole new one.

    Raises:
        IndexFileError: it cannot be written (disk full, no permission); nothing is left behind.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            write(temporary)
    except (OSError, RuntimeError) as error:  # FAISS reports a full disk as RuntimeError
        raise IndexFileError(
            f"Could not write {path}: {error}. Free space or choose another path, then retry."
        ) from error
