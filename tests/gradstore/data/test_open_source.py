"""The door: what it does not open, and what it says instead."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gradstore.data import open_source, reopen
from gradstore.errors import SourceError, SourceNotFoundError


def test_a_missing_path_is_a_file_not_found_error(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"no data at '.*nowhere'. Give a .npy or .npz file, an IDX file"):
        open_source(tmp_path / "nowhere")


def test_an_unknown_format_lists_those_that_are_read(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(SourceError, match=r"x.parquet' is not in a format .* \.npy or \.npz file, an IDX"):
        open_source(tmp_path / "x.parquet")


def test_a_single_image_leads_to_its_folder(tmp_path: Path) -> None:
    (tmp_path / "x.PNG").write_bytes(b"")
    with pytest.raises(SourceError, match=f"give their folder: '{tmp_path}'"):
        open_source(tmp_path / "x.PNG")


def test_options_that_do_not_apply_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((2, 2)))
    with pytest.raises(SourceError, match="--image-size resizes the images of a folder"):
        open_source(tmp_path / "x.npy", image_size=8)
    with pytest.raises(SourceError, match="names of their sub-folders"):
        open_source(tmp_path, labels=tmp_path / "y.npy")


def test_paths_and_strings_open_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "x.npy", np.ones((2, 2)))
    monkeypatch.chdir(tmp_path)
    assert open_source("x.npy").describe() == open_source(tmp_path / "x.npy").describe()


def test_reopening_needs_the_files_and_a_known_format(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((2, 2)))
    description = open_source(tmp_path / "x.npy").describe()
    with pytest.raises(SourceError, match="opened as 'webdataset'"):
        reopen({**description, "format": "webdataset"})
    (tmp_path / "x.npy").unlink()
    with pytest.raises(SourceNotFoundError, match="where they were"):
        reopen(description)


def test_reading_data_loads_no_torch() -> None:
    code = "import sys, gradstore.data; print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
