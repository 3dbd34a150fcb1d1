"""What is kept of signals is used as long as it is of the same rows and the same definitions."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import gradstore
from gradstore.ranking import cache
from gradstore.ranking.cache import cached_signals
from gradstore.store import Store

ROOT = Path(gradstore.__file__).parent


def is_computed(store: Store) -> bool:
    """Whether asking for a signal reads rows."""
    told: list[int] = []
    values = cached_signals(store, ["unit_leverage"], "unit_leverage", lambda done, total: told.append(done))
    assert np.isfinite(values["unit_leverage"]).all()
    return bool(told)


@pytest.fixture
def copied(tmp_path: Path) -> Iterator[Path]:
    """The library's source, to be changed."""
    yield Path(shutil.copytree(ROOT, tmp_path / "gradstore", ignore=shutil.ignore_patterns("__pycache__")))
    cache._definition.cache_clear()


def restart_with(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another process would find the library's source; it is read once a process."""
    monkeypatch.setattr(cache, "files", lambda _: package)
    cache._definition.cache_clear()


@pytest.mark.parametrize(
    "module", ["ranking/signals/leverage.py", "ranking/combine.py", "influence/leverage.py", "search/reference.py"]
)
def test_a_signal_that_is_defined_anew_is_computed_anew(
    store: Store, copied: Path, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_computed(store)
    assert not is_computed(store)
    changed = copied / module
    changed.write_text(changed.read_text() + "\nFACTOR = 2.0\n")
    restart_with(copied, monkeypatch)
    assert is_computed(store)
    assert not is_computed(store)


def test_the_same_source_elsewhere_is_the_same_definition(
    store: Store, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_computed(store)
    (copied / "report" / "page.py").write_text("")  # no signal is computed by it
    (copied / "influence" / "notes.txt").write_text("")
    restart_with(copied, monkeypatch)
    assert not is_computed(store)


def test_whatever_signals_import_is_part_of_the_definition() -> None:
    """But for errors, which are raised and never computed with."""
    known = tuple(f"gradstore.{name.removesuffix('.py').replace('/', '.')}" for name in cache._DEFINING)
    for module in [*ROOT.glob("ranking/signals/*.py"), *ROOT.glob("influence/*.py"), ROOT / "ranking" / "combine.py"]:
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gradstore."):
                assert str(node.module).startswith((*known, "gradstore.errors")), f"{module} imports {node.module}"
