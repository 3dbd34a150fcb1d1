"""Small version of `python -m tests.faults.flips`."""

from __future__ import annotations

from pathlib import Path

from gradstore.store import verify_at
from tests.faults.flips import make, unnoticed


def test_a_flipped_bit_in_any_file_of_a_store_is_found(tmp_path: Path) -> None:
    store = make(tmp_path)
    report = verify_at(store)
    assert (report.problems, report.leftovers) == ((), ())
    assert list(unnoticed(store, 60)) == []
