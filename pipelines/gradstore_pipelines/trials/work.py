"""What a self-test has done so far: a folder in which every finished trial is a small file.

    trials/noise-0.json      one kind, planted the first time, and all that it was made by
    trials/noise-0.npz       its scores, what was planted, and some of these examples, to be looked at
    sanity.json              checks of the store itself
    unfinished/noise-0-…/    a sample, and the store that is made of it; removed when it has scores

A record counts where it was made by what is asked now, and only then; other settings make it anew. So kinds may be
added, or repeats, without doing the others again.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gradstore.errors import StoreCorruptError
from gradstore.store.differences import differing
from gradstore.store.files import make_folder, replacing, write_atomically, write_errors
from gradstore.store.sealed import require_sealed, sealed
from gradstore_pipelines.trials.sanity import SanityChecks
from gradstore_pipelines.trials.trial import Shown, Trial

MadeBy = Mapping[str, Any]
_UNFINISHED = re.compile(r"[a-z_]+-\d+-[0-9a-f]{12}")


class Work:
    """The folder of one self-test."""

    def __init__(self, folder: Path) -> None:
        self._trials, self._unfinished, self._sanity = (folder / n for n in ("trials", "unfinished", "sanity.json"))

    def trial(self, kind: str, repeat: int, made_by: MadeBy) -> Trial | None:
        """A finished one; None where there is none that was made by this."""
        record = self._record(kind, repeat)
        if record is None or record["made_by"] != _plain(made_by):
            return None
        try:
            return _trial_of(record, self._arrays(kind, repeat))
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):  # damaged, or of another version
            return None

    def differences(self, kind: str, repeat: int, made_by: MadeBy) -> list[str]:
        """In what a record differs from what is asked now, a sentence each; empty where there is none."""
        record = self._record(kind, repeat)
        found = [] if record is None else differing(record["made_by"], _plain(made_by))
        return [f"{d.name} was {d.a}, now {d.b}" for d in found]

    def keep(self, trial: Trial, made_by: MadeBy) -> None:
        """Write a trial down; its arrays first, so that a record has them."""
        make_folder(self._trials)
        path = self._arrays(trial.kind, trial.repeat)
        with write_errors(path), replacing(path) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **_arrays_of(trial))
        record = {"made_by": _plain(made_by), **_record_of(trial)}
        write_atomically(self._file(trial.kind, trial.repeat), sealed(record).encode())

    def sanity(self, made_by: MadeBy) -> SanityChecks | None:
        """Those of before; None where there are none of the same store."""
        record = _read(self._sanity)
        if record is None or record["made_by"] != _plain(made_by):
            return None
        return SanityChecks.from_json(record["found"])

    def keep_sanity(self, found: SanityChecks, made_by: MadeBy) -> None:
        """Write the checks of the store down."""
        make_folder(self._sanity.parent)
        record = {"made_by": _plain(made_by), "found": found.to_json()}
        write_atomically(self._sanity, sealed(record).encode())

    def unfinished(self, kind: str, repeat: int, made_by: MadeBy) -> Path:
        """Where a trial is made."""
        digest = hashlib.sha256(json.dumps(_plain(made_by), sort_keys=True).encode()).hexdigest()
        return self._unfinished / f"{kind}-{repeat}-{digest[:12]}"

    def remove_others(self, wanted: Sequence[Path]) -> None:
        """Remove what was begun by other settings."""
        for folder in self._unfinished.iterdir() if self._unfinished.is_dir() else ():
            if _UNFINISHED.fullmatch(folder.name) and folder not in wanted:
                remove_folder(folder)

    def finish(self) -> None:
        """Remove the folder of what is unfinished, once nothing is."""
        if self._unfinished.is_dir() and not any(self._unfinished.iterdir()):
            self._unfinished.rmdir()

    def _record(self, kind: str, repeat: int) -> dict[str, Any] | None:
        return _read(self._file(kind, repeat))

    def _file(self, kind: str, repeat: int) -> Path:
        return self._trials / f"{kind}-{repeat}.json"

    def _arrays(self, kind: str, repeat: int) -> Path:
        return self._trials / f"{kind}-{repeat}.npz"


def remove_folder(folder: Path) -> None:
    """With all that is in it.

    Raises:
        StoreWriteError: not permitted.
    """
    with write_errors(folder):
        shutil.rmtree(folder)


def _read(file: Path) -> dict[str, Any] | None:
    """What a record says; None where there is none, or a damaged one."""
    try:
        record = require_sealed(file.read_bytes(), file.name)
    except (OSError, StoreCorruptError):
        return None
    return record if isinstance(record.get("made_by"), dict) else None


def _plain(made_by: MadeBy) -> dict[str, Any]:
    """As JSON gives it back."""
    plain: dict[str, Any] = json.loads(json.dumps(made_by))
    return plain


def _arrays_of(trial: Trial) -> dict[str, np.ndarray[Any, Any]]:
    return {
        "planted": trial.planted,
        "scores": np.stack(list(trial.scores.values())),
        "found": _stacked(trial.found),
        "missed": _stacked(trial.missed),
    }


def _stacked(shown: Sequence[Shown]) -> np.ndarray[Any, Any]:
    return np.stack([one.example for one in shown]) if shown else np.empty(0)


def _record_of(trial: Trial) -> dict[str, Any]:
    return {
        "kind": trial.kind,
        "repeat": trial.repeat,
        "scores": list(trial.scores),
        "undefined": dict(trial.undefined),
        **{part: [_words(one) for one in getattr(trial, part)] for part in ("found", "missed")},
    }


def _words(shown: Shown) -> dict[str, Any]:
    return {name: getattr(shown, name) for name in ("id", "rank", "label", "was")}


def _trial_of(record: Mapping[str, Any], file: Path) -> Trial:
    with np.load(file, allow_pickle=False) as arrays:
        found, missed = (
            tuple(Shown(**words, example=example) for words, example in zip(record[part], arrays[part], strict=True))
            for part in ("found", "missed")
        )
        return Trial(
            kind=record["kind"],
            repeat=record["repeat"],
            planted=arrays["planted"],
            scores=dict(zip(record["scores"], arrays["scores"], strict=True)),
            undefined=record["undefined"],
            found=found,
            missed=missed,
        )
