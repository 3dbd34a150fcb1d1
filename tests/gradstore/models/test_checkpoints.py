"""Checkpoints of ours and of others: bytes, order, learning rates, names, and files that must not be trusted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gradstore.errors import CheckpointError
from gradstore.models import Checkpoint, find_checkpoints, load_checkpoint, save_checkpoint


def model(seed: int = 0, d_in: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(d_in, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def assert_loads(path: Path, original: nn.Module) -> None:
    other = model(seed=1)
    load_checkpoint(other, Checkpoint(path, 0.1))
    for name, value in original.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_what_is_saved_is_found_and_loaded(tmp_path: Path) -> None:
    saved = save_checkpoint(tmp_path / "a.safetensors", model(), learning_rate=1e-3, step=7, epoch=2)
    assert find_checkpoints(tmp_path / "a.safetensors") == [saved]
    assert_loads(saved.path, model())


def test_the_same_weights_always_give_the_same_bytes(tmp_path: Path) -> None:
    def content(name: str) -> bytes:
        return save_checkpoint(tmp_path / name, model(), learning_rate=0.1, step=1, epoch=2).path.read_bytes()

    # safetensors itself orders metadata anew at every call: three keys have six orders.
    assert len({content(f"{copy}.safetensors") for copy in range(20)}) == 1


def test_tied_weights_can_be_saved(tmp_path: Path) -> None:
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    saved = save_checkpoint(tmp_path / "tied.safetensors", tied, learning_rate=0.1, step=1, epoch=1)
    load_checkpoint(tied, saved)


def test_files_are_ordered_by_the_numbers_in_their_names(tmp_path: Path) -> None:
    for step in (10, 9, 100):
        torch.save(model().state_dict(), tmp_path / f"step-{step}.pt")
    found = find_checkpoints(str(tmp_path / "*.pt"), learning_rate=0.1)
    assert [checkpoint.path.stem for checkpoint in found] == ["step-9", "step-10", "step-100"]


OPTIMIZER = {"state": {}, "param_groups": [{"lr": 0.25, "params": [0]}, {"lr": 0.25, "params": [1]}]}
WRAPPED: list[tuple[str, dict[str, Any]]] = [
    ("model", {"lr": 0.25}),
    ("model", {"learning_rate": np.float64(0.25), "best": np.float32(3)}),
    ("state_dict", {"optimizer_states": [OPTIMIZER], "epoch": 3, "hyper_parameters": {"a": 1}}),
    ("model_state_dict", {"optimizer": OPTIMIZER}),
    ("model_state_dict", {"optimizer_state_dict": OPTIMIZER}),
]


@pytest.mark.parametrize(("key", "rest"), WRAPPED)
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt"])
def test_checkpoints_of_other_trainers_are_read(tmp_path: Path, key: str, rest: dict[str, Any], suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    torch.save({key: model().state_dict(), **rest}, path)
    [found] = find_checkpoints(path)
    assert found.learning_rate == 0.25
    assert_loads(path, model())


def test_a_learning_rate_in_safetensors_metadata_is_read(tmp_path: Path) -> None:
    save_file(model().state_dict(), tmp_path / "a.safetensors", metadata={"lr": "0.5"})
    assert find_checkpoints(tmp_path / "a.safetensors")[0].learning_rate == 0.5


def test_the_option_wins_over_the_file(tmp_path: Path) -> None:
    torch.save({"model": model().state_dict(), "lr": 0.25}, tmp_path / "a.pt")
    assert find_checkpoints(tmp_path / "a.pt", learning_rate=0.5)[0].learning_rate == 0.5


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "model._orig_mod.", "module.module."])
def test_a_wrappers_prefix_is_stripped_where_that_fits(tmp_path: Path, prefix: str) -> None:
    weights = {f"{prefix}{name}": value for name, value in model().state_dict().items()}
    torch.save(weights, tmp_path / "a.pt")
    assert_loads(tmp_path / "a.pt", model())


def test_what_a_lightning_module_keeps_beside_the_model_is_left_out(tmp_path: Path) -> None:
    weights: dict[str, Tensor] = {f"model.{name}": value for name, value in model().state_dict().items()}
    torch.save({"state_dict": {**weights, "accuracy.total": torch.ones(1)}}, tmp_path / "a.ckpt")
    assert_loads(tmp_path / "a.ckpt", model())


def test_files_of_old_torch_versions_are_read(tmp_path: Path) -> None:
    torch.save(model().state_dict(), tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    assert_loads(tmp_path / "a.pt", model())


def refusal(path: Path, learning_rate: float | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(model(), *find_checkpoints(path, learning_rate))
    return str(caught.value)


def test_a_file_without_a_learning_rate_asks_for_the_option(tmp_path: Path) -> None:
    torch.save(model().state_dict(), tmp_path / "a.pt")
    save_file(model().state_dict(), tmp_path / "a.safetensors")
    for name in ("a.pt", "a.safetensors"):
        assert "Pass --learning-rate" in refusal(tmp_path / name)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), "fast", None])
def test_a_learning_rate_without_weight_is_refused(tmp_path: Path, rate: Any) -> None:
    torch.save({"model": model().state_dict(), "lr": rate}, tmp_path / "a.pt")
    assert f"the learning rate {rate!r}" in refusal(tmp_path / "a.pt")


def test_several_learning_rates_in_one_file_are_refused(tmp_path: Path) -> None:
    groups = {"param_groups": [{"lr": 0.25}, {"lr": 0.5}]}
    torch.save({"model": model().state_dict(), "optimizer": groups}, tmp_path / "a.pt")
    assert "0.25, 0.5" in refusal(tmp_path / "a.pt")


class Shell:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Shell(), "lr": 0.1}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    message = refusal(tmp_path / "a.pt")
    assert "posix.system" in message or "nt.system" in message
    assert "never runs code from files" in message
    assert not (tmp_path / "executed").exists()


def test_a_whole_pickled_model_says_how_to_save_it_again(tmp_path: Path) -> None:
    torch.save(model(), tmp_path / "a.pt")
    assert "torch.save(model.state_dict(), path)" in refusal(tmp_path / "a.pt")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello world", b"\x80\x04K\x01."])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    assert f"a{suffix}" in refusal(path, learning_rate=0.1)


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    save_file(model().state_dict(), tmp_path / "a.safetensors")
    torch.save(model().state_dict(), tmp_path / "a.pt")
    for path in (tmp_path / "a.safetensors", tmp_path / "a.pt"):
        path.write_bytes(path.read_bytes()[:-20])
        assert "Copy it again" in refusal(path, learning_rate=0.1)


@pytest.mark.parametrize("record", [{"epoch": 3}, [1, 2], {"model": {"step": 1}}])
def test_a_file_without_weights_is_refused(tmp_path: Path, record: Any) -> None:
    torch.save(record, tmp_path / "a.pt")
    assert "state_dict" in refusal(tmp_path / "a.pt", learning_rate=0.1)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_without_weights_and_learning_rate_the_weights_are_asked_for_first(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bare{suffix}"
    save_file({}, path) if suffix == ".safetensors" else torch.save({"epoch": 3}, path)
    with pytest.raises(CheckpointError, match="holds no tensors"):
        find_checkpoints(path)


def test_no_matching_file_is_an_error(tmp_path: Path) -> None:
    assert "No file matches" in refusal(tmp_path / "*.pt")


def test_an_unknown_format_names_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "a.h5").touch()
    assert ".safetensors" in refusal(tmp_path / "a.h5")
    assert "is no file" in refusal(tmp_path)


def test_a_misfit_lists_what_is_missing_unexpected_and_of_another_shape(tmp_path: Path) -> None:
    weights = model(d_in=5).state_dict()
    weights["3.weight"] = weights.pop("2.weight")
    torch.save(weights, tmp_path / "a.pt")
    message = refusal(tmp_path / "a.pt", learning_rate=0.1)
    assert "1 missing: 2.weight." in message
    assert "1 unexpected: 3.weight." in message
    assert "1 of another shape: 0.weight [4, 5], expected [4, 3]." in message


def test_a_misfit_changes_nothing_in_the_model(tmp_path: Path) -> None:
    torch.save({"0.weight": torch.zeros(4, 3)}, tmp_path / "a.pt")
    untouched = model()
    with pytest.raises(CheckpointError):
        load_checkpoint(untouched, Checkpoint(tmp_path / "a.pt", 0.1))
    assert torch.equal(untouched.state_dict()["0.weight"], model().state_dict()["0.weight"])


def test_a_file_changed_since_it_was_found_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    saved = save_checkpoint(path, model(), learning_rate=0.1, step=1, epoch=1)
    save_checkpoint(path, model(seed=1), learning_rate=0.1, step=1, epoch=1)
    with pytest.raises(CheckpointError, match="has changed since it was recorded"):
        load_checkpoint(model(), saved)
    path.unlink()
    with pytest.raises(CheckpointError, match="is gone"):
        load_checkpoint(model(), saved)
