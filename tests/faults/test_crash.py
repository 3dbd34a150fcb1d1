"""Builds that are killed; `python tests/faults/crash.py` kills two hundred."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_twenty_kills_leave_the_bytes_of_an_undisturbed_build_and_cost_only_what_was_in_hand() -> None:
    words = [sys.executable, str(Path(__file__).parent / "crash.py"), "--kills", "20"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("20 kills")
