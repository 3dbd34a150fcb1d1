"""Every command and every Python block of the README runs, in the order of the page, on small data.

The two set-up commands make a virtual environment each; what they then run is the demo, which is tested here, and
this test suite itself.
"""

from __future__ import annotations

import gzip
import re
import shlex
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from gradstore_cli.main import app
from tests.buckets import s3

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FASHION = "/usr/share/datasets/fashion-mnist"


def blocks() -> Iterator[tuple[str, str]]:
    """(language, text) of the fenced blocks."""
    for found in re.finditer(r"^```(\w+)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL):
        yield found[1], found[2]


def commands() -> list[str]:
    """Lines of the shell blocks, without comments."""
    lines = (line for language, text in blocks() if language == "bash" for line in text.splitlines())
    return [stripped for line in lines if (stripped := re.sub(r"\s+# .*$", "", line).strip())]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the README speaks of, small."""
    folder = tmp_path_factory.mktemp("readme")
    digits = load_digits()
    images, labels = (digits.images * 15).astype(np.uint8), digits.target
    for row in range(60):
        path = folder / "photos" / ("cats" if row % 2 else "dogs") / f"{row:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[row]).resize((12, 12)).save(path)
    Image.fromarray(images[70]).resize((12, 12)).save(folder / "query.png")
    np.savez(folder / "digits.npz", images=images[:100], labels=labels[:100])
    np.savez(folder / "more.npz", images=images[100:110], labels=labels[100:110])
    write_idx(folder / "train-images-idx3-ubyte.gz", images[:80])
    write_idx(folder / "train-labels-idx1-ubyte.gz", labels[:80].astype(np.uint8))
    (task,) = (text for language, text in blocks() if language == "python" and "class MyTask" in text)
    (folder / "my_task.py").write_text(task, encoding="utf-8")
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    (folder / "ckpt").mkdir()
    torch.save(model.state_dict(), folder / "ckpt" / "epoch-1.pt")
    return folder


def write_idx(path: Path, values: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    path.write_bytes(gzip.compress(header + values.tobytes()))


def run(command: str, folder: Path, bucket: str) -> None:
    """A README command, in this process; Fashion-MNIST is its small stand-in, the bucket one of this machine."""
    words = shlex.split(command.replace(FASHION, str(folder)).replace("s3://bucket", bucket))
    assert words[0] == "gradstore", command
    short = ["--epochs", "5"] if words[1] == "build" and "my_task.py:MyTask" not in words else []
    short += ["--kinds", "noise"] if words[1] == "selftest" else []
    done = CliRunner().invoke(app, [*words[1:], *short])
    assert done.exit_code == 0, (command, done.output, done.exception)


def test_every_command_and_python_block_runs(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workshop)
    with s3(workshop / "cache") as bucket:
        ran = run_all(workshop, bucket)
    assert ran == sum(command.startswith("gradstore ") for command in commands()) > 10


def run_all(workshop: Path, bucket: str) -> int:
    ran = 0
    for language, text in blocks():
        if language == "python":
            if "build(" in text and "class MyTask" not in text:
                text = text.replace('Path("photos.store")', 'Path("photos.store"), epochs=5')
            exec(compile(text, "README.md", "exec"), {})
        for line in text.splitlines() if language == "bash" else []:
            command = re.sub(r"\s+# .*$", "", line).strip()
            if command.startswith("gradstore "):
                run(command, workshop, bucket)
                ran += 1
    return ran


def test_set_up_is_two_commands_of_one_line_each() -> None:
    setups = [command for command in commands() if not command.startswith("gradstore ")]
    assert len(setups) == 2
    assert all(command.startswith("python3 -m venv .venv && .venv/bin/pip install") for command in setups)
    assert setups[0].endswith("gradstore demo")
    assert "-m pytest" in setups[1]


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert "README.md" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_linked_files_exist() -> None:
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\((?!http)([^)#]+)\)", prose)
    assert links
    assert all((ROOT / link).is_file() for link in links)
