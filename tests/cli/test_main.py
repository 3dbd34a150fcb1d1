from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gradstore.errors import SourceError
from gradstore_cli.main import app

Gradstore = Callable[..., Result]


def test_an_error_is_one_line_on_stderr_and_exit_status_1(gradstore: Gradstore, tmp_path: Path) -> None:
    ran = gradstore("status", tmp_path / "nothing")
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert ran.stderr.startswith("Error: No gradient store at")
    assert ran.stderr.count("\n") == 1


def test_notes_of_an_error_follow_it(monkeypatch: pytest.MonkeyPatch) -> None:
    error = SourceError("bad row")
    error.add_note("while reading a.npy")
    assert _failing(monkeypatch, error).stderr == "Error: bad row\nwhile reading a.npy\n"


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(_failing(monkeypatch, ZeroDivisionError()).exception, ZeroDivisionError)


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_ends_a_command_cleanly(name: str, status: int) -> None:
    ran = _main(f"os.kill(os.getpid(), signal.{name}); time.sleep(60)")
    assert (ran.returncode, ran.stdout) == (status, "")
    assert ran.stderr == "Interrupted. Everything committed is kept: run the same command to go on.\n"


@pytest.mark.parametrize("n_lines", [1, 100_000])
def test_a_reader_that_leaves_is_no_error(n_lines: int) -> None:
    script = _script(f"time.sleep(0.1); print('line\\\\n' * {n_lines})")
    pipe = f"{sys.executable} -c {shlex.quote(script)} act | true"
    ran = subprocess.run(pipe, shell=True, capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("", "")


def test_wrong_usage_is_exit_status_2(gradstore: Gradstore) -> None:
    assert gradstore("build", "somewhere").exit_code == 2


def _failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> Result:
    def fail(store: object) -> None:
        raise error

    monkeypatch.setattr("gradstore.store.Store.open", fail)
    return CliRunner().invoke(app, ["status", "a.store"])


def _main(body: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", _script(body), "act"], capture_output=True, text=True, check=False)


def _script(body: str) -> str:
    """The real entry point, with one more command that does `body`."""
    return f"""
import os, signal, time
from gradstore_cli.main import app, main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are told to ignore it

@app.command()
def act() -> None:
    {body}

main()
"""
