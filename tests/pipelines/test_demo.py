"""The demo for real: it finds what it planted, writes what it says, and says the same when run again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from gradstore.ranking.signals import SIGNALS
from gradstore_pipelines.demo import KINDS, DemoResult, photo_patches, planted_digits, run_demo
from gradstore_pipelines.settings_error import SettingsError


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> DemoResult:
    return run_demo(tmp_path_factory.mktemp("demo"))


def test_the_ranking_finds_most_of_what_was_planted(result: DemoResult) -> None:
    combined = next(score for score in result.signals if score.name == "combined")
    assert combined.roc_auc > 0.9
    assert combined.found > result.n_planted / 2
    assert sum(result.found_by_kind.values()) == combined.found
    assert {score.name for score in result.signals} == {"combined", *SIGNALS}


def test_tables_and_page_hold_every_example(result: DemoResult) -> None:
    table = pq.read_table(result.parquet)
    assert table.num_rows == result.n_examples == pyarrow.csv.read_csv(result.csv).num_rows
    assert table.column("rank").to_pylist() == list(range(1, result.n_examples + 1))
    assert all(table.column("reason").to_pylist())
    page = result.html.read_text(encoding="utf-8")
    assert str(table.column("id")[0]) in page
    assert page.count("data:image/png;base64,") > 100
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_running_it_again_changes_nothing(result: DemoResult) -> None:
    before = result.parquet.read_bytes(), result.html.read_bytes()
    again = run_demo(result.data.parent)
    assert again.signals == result.signals
    assert (again.parquet.read_bytes(), again.html.read_bytes()) == before


def test_a_seed_below_0_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--seed is -1"):
        run_demo(tmp_path / "demo", seed=-1)
    assert not (tmp_path / "demo").exists()


def test_planted_errors_are_the_stated_kinds_and_the_rest_is_untouched() -> None:
    from sklearn.datasets import load_digits

    images, labels, kinds = planted_digits(seed=3)
    clean = (load_digits().images * (255 / 16)).astype(np.uint8)
    changed = (images != clean).any(axis=(1, 2))
    assert (changed == (kinds != "")).all()
    assert {kind: int((kinds == kind).sum()) for kind in KINDS} == dict.fromkeys(KINDS, 18)
    assert (labels == load_digits().target).all()


def test_photo_patches_are_not_blank() -> None:
    patches = photo_patches()
    assert patches.shape[1:] == (8, 8)
    assert len(patches) > 100
    assert float(patches.std(axis=(1, 2)).mean()) > 5
