"""Compiled functions, kept on disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradstore.compiled import compiled, has_numba

pytestmark = pytest.mark.skipif(not has_numba(), reason="numba is not installed")

MODULE = """
import numpy as np
from gradstore.compiled import compiled

def double(values):
    for i in range(values.shape[0]):
        values[i] += values[i]

double = compiled(double)

def run(dtype):
    values = np.ones(4, dtype)
    double(values)
    return values.tolist()
"""


def run(folder: Path, code: str) -> str:
    words = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); import kept; {code}"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def test_a_later_process_loads_what_an_earlier_one_compiled(tmp_path: Path) -> None:
    (tmp_path / "kept.py").write_text(MODULE)
    counted = "print(kept.run('f4'), sum(kept.double.stats.cache_hits.values()))"
    assert [run(tmp_path, counted), run(tmp_path, counted)] == ["[2.0, 2.0, 2.0, 2.0] 0", "[2.0, 2.0, 2.0, 2.0] 1"]


def test_two_that_compile_at_once_for_other_types_do_not_mix_up_their_code(tmp_path: Path) -> None:
    """Each looks into an index that does not know of the other's file yet."""
    (tmp_path / "kept.py").write_text(MODULE)
    blind = "kept.double._cache._cache_file._load_index = dict; print(kept.run({!r}))"
    run(tmp_path, blind.format("f8"))
    run(tmp_path, blind.format("f4"))
    files = list((tmp_path / "__pycache__").glob("*.nbc"))
    assert len(files) == 2, files
    assert run(tmp_path, "print(kept.run('f4'), kept.run('f8'))") == "[2.0, 2.0, 2.0, 2.0] [2.0, 2.0, 2.0, 2.0]"


def another_numba(made: object) -> None:
    raise AttributeError("_cache_file")


def test_where_numba_keeps_its_files_otherwise_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradstore.compiled._name_files_by_content", another_numba)
    plain: Any = compiled(lambda values: values + 1)
    np.testing.assert_array_equal(plain(np.arange(3)), [1, 2, 3])
