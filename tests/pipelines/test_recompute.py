from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from gradstore.store import Store, verify
from gradstore.store.commits import CommitRecord, FileHash
from gradstore.store.findings import Discard
from gradstore_cli.main import app
from gradstore_pipelines.build_store import build
from gradstore_pipelines.command import finishing_command
from gradstore_pipelines.recompute import draw, recompute, with_recomputed
from gradstore_pipelines.settings import BuildSettings

TOY = f"{Path(__file__).parent / 'toy_task.py'}:Toy"
ROWS = np.random.default_rng(0).integers(0, 256, (200, 8, 8), dtype=np.uint8)


@pytest.fixture(scope="module", params=["float16", "int8"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    np.save(folder / "rows.npy", ROWS)
    build(
        BuildSettings(
            source=folder / "rows.npy",
            store=folder / "s",
            model=TOY,
            epochs=2,
            n_checkpoints=2,
            sketch_dim=32,
            sketch_dtype=request.param,
            draws=2,
            shard_rows=64,
            parameters=("encoder.*", "decoder.*"),
            device="cpu",
        )
    )
    return folder / "s"


@pytest.fixture
def store(built: Path, tmp_path: Path) -> Store:
    return Store.open(shutil.copytree(built, tmp_path / "s"))


def vouch(store: Store, name: str, checkpoint: int, shard: int) -> None:
    """A record for what is in a file now, as if it had been computed so."""
    held = CommitRecord.read(store.place, checkpoint, shard)
    files = {**held.files, name: FileHash.read(store.folder / name)}
    record = CommitRecord(checkpoint, shard, held.rows, files, held.fingerprint, held.format_version)
    (store.folder / "commits" / f"{checkpoint}-{shard}.json").write_bytes(record.to_bytes())


def test_rows_computed_again_have_the_same_bytes(built: Path) -> None:
    findings, counts = recompute(Store.open(built), 24)
    assert (findings, counts) == ([], {"rows": 24, "same": 24, "close": 0, "different": 0})


def test_rows_of_another_model_are_found(store: Store) -> None:
    name = "losses/c.1.2"
    losses = np.frombuffer((store.folder / name).read_bytes(), "<f4") * np.float32(1.5)
    (store.folder / name).write_bytes(losses.tobytes())
    vouch(store, name, 1, 2)
    assert verify(store).ok
    report = with_recomputed(verify(store), store, 400, "cpu")
    assert [finding.cure for finding in report.findings] == [Discard(1, 2)]
    assert report.recomputed == {"rows": 400, "same": 336, "close": 0, "different": 64}
    assert "Shard 2 of checkpoint 1 holds other rows" in report.problems[0]


def test_last_bits_of_another_machine_are_no_fault(store: Store) -> None:
    name = "latents/c.0.0.0"
    latents = np.frombuffer((store.folder / name).read_bytes(), "<u4") ^ 1
    (store.folder / name).write_bytes(latents.tobytes())
    vouch(store, name, 0, 0)
    report = with_recomputed(verify(store), store, 400, "cpu")
    assert report.ok
    assert "64 of 400 rows differ in the last bits" in report.notes[-1]


def test_other_data_in_their_place_are_found(store: Store, built: Path) -> None:
    source = built.parent / "rows.npy"
    try:
        np.save(source, ROWS[:150])
        (finding,), _ = recompute(store, 8)
        assert "are 150 examples; the store was made of 200" in finding.sentence
        source.unlink()
        report = with_recomputed(verify(store), store, 8, "cpu")
        assert "No row could be computed again: no data at" in report.problems[0]
    finally:
        np.save(source, ROWS)


def test_rows_are_drawn_from_all_that_is_done_and_nothing_else(store: Store) -> None:
    store.discard(0, 1)
    drawn = draw(store, 1000, 0)
    assert len(drawn) == len(set(drawn)) == 400 - 64
    assert not any(at.checkpoint == 0 and 64 <= at.row < 128 for at in drawn)
    assert draw(store, 9, 0) == draw(store, 9, 0) != draw(store, 9, 1)


def test_the_command_that_is_printed_makes_the_shard_again(store: Store) -> None:
    before = {file: file.read_bytes() for file in store.folder.rglob("c.*")}
    damaged = store.folder / "norms-1" / "c.1.3"
    damaged.write_bytes(bytes(reversed(damaged.read_bytes())))
    ran = CliRunner().invoke(app, ["verify", str(store.folder), "--repair"])
    assert (ran.exit_code, Store.open(store.folder).is_complete) == (0, False)
    command = ran.stderr.splitlines()[-1].strip()
    assert command == finishing_command(store)
    assert CliRunner().invoke(app, shlex.split(command)[1:]).exit_code == 0
    assert {file: file.read_bytes() for file in before} == before


def test_verify_exits_1_and_tells_programs_what_it_found(store: Store) -> None:
    import json

    (store.folder / "losses" / "c.0.0").unlink()
    ran = CliRunner().invoke(app, ["verify", str(store.folder), "--json", "--recompute", "4"])
    found: dict[str, Any] = json.loads(ran.stdout)
    assert (ran.exit_code, found["ok"], found["missing"], found["repaired"]) == (1, False, ["losses/c.0.0"], None)
