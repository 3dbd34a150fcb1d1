from __future__ import annotations

import pytest

from gradstore.devices import usable_device
from gradstore.errors import DeviceError


def test_auto_is_a_device_that_is_here() -> None:
    assert usable_device("auto") in ("cpu", "cuda")
    assert usable_device("cpu") == "cpu"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mps", "of a kind that gradstore does not compute on: exact norms are summed in float64"),
        ("meta", "of a kind that gradstore does not compute on"),
        ("toaster", "cannot be used here"),
        ("cuda:99", "cannot be used here"),
    ],
)
def test_other_devices_are_refused_naming_those_that_work(name: str, words: str) -> None:
    with pytest.raises(DeviceError, match=f"^Device '{name}' (is|cannot).*Use cpu, cuda, cuda:N or auto") as caught:
        usable_device(name)
    assert words in str(caught.value)
