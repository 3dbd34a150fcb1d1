from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gradstore_pipelines.build_store import build
from tests.pipelines.faulty_builds import make_data, settings_for


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, weights and planned faults; see `faulty_builds`."""
    return make_data(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="session")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted build in one process."""
    path = tmp_path_factory.mktemp("whole") / "store"
    build(settings_for(folder, path))
    return path


@pytest.fixture
def fault(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, int], None]]:
    """Plan that something happens to the marked example, so many times."""

    def plan(kind: str, times: int) -> None:
        (folder / "faults" / kind).write_text(str(times))

    monkeypatch.setenv("GRADSTORE_FAULTS", str(folder / "faults"))
    yield plan
    for planned in (folder / "faults").iterdir():
        planned.unlink()


@pytest.fixture
def build_at(folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Build into the test's own folder."""

    def run(name: str = "store", **changes: Any) -> Path:
        build(settings_for(folder, tmp_path / name, **changes))
        return tmp_path / name

    return run
