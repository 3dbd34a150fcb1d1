from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradstore.errors import ShapeError, StoreFormatError
from gradstore.store import Manifest
from gradstore.store.manifest import differences
from gradstore.testing.store_kit import manifest_of

values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=25, deadline=None)
@given(choices=st.dictionaries(st.text(), values), rates=st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_a_manifest_equals_its_file(choices: dict[str, Any], rates: list[float]) -> None:
    manifest = manifest_of(
        settings=choices,
        learning_rates=tuple(rates),
        label_names=("cat", "dög"),
        parameter_sets=("encoder", "head.*"),
        layers={"encoder": ("encoder.0", "encoder.2"), "head.*": ("head",)},
    )
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert Manifest.from_json(manifest.to_json()).to_json() == manifest.to_json()


def test_tuples_in_settings_become_what_their_file_holds() -> None:
    manifest = manifest_of(settings={"shape": (1, 28, 28)})
    assert manifest == Manifest.from_json(manifest.to_json())
    assert manifest.settings == {"shape": [1, 28, 28]}


def test_keys_of_a_later_minor_version_are_ignored() -> None:
    document = json.loads(manifest_of().to_json()) | {"invented_later": 1}
    assert Manifest.from_json(json.dumps(document)) == manifest_of()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 3}, "has format 3; this gradstore reads formats 1 to 2. Upgrade gradstore"),
        ({"format_version": "1"}, "has format 1; .* Upgrade"),
        ({"format": "other"}, "not a gradstore manifest"),
    ],
)
def test_another_format_is_refused(change: dict[str, Any], message: str) -> None:
    document = json.loads(manifest_of().to_json()) | change
    with pytest.raises(StoreFormatError, match=message):
        Manifest.from_json(json.dumps(document))


def test_a_manifest_of_format_1_has_one_set_and_stays_as_it_is() -> None:
    document = json.loads(manifest_of(settings={"plan": {"parameters": "encoder", "n_draws": 4}}).to_json())
    for later in ("parameter_sets", "layers", "n_draws"):
        del document[later]
    manifest = Manifest.from_json(json.dumps(document | {"format_version": 1}))
    assert (manifest.parameter_sets, manifest.layers, manifest.n_draws) == (("encoder",), None, 1)
    assert json.loads(manifest.to_json()) == document | {"format_version": 1}
    assert "parameter_sets" not in manifest.identity()


def test_a_manifest_of_format_1_without_its_set_s_name_is_refused() -> None:
    document = json.loads(manifest_of().to_json()) | {"format_version": 1}
    with pytest.raises(StoreFormatError, match=r"lacks settings\.plan\.parameters"):
        Manifest.from_json(json.dumps(document))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "gradstore", "format_version": 1, "d_sketch": 3}'])
def test_what_is_not_a_manifest_is_refused(text: str) -> None:
    with pytest.raises(StoreFormatError):
        Manifest.from_json(text)


@pytest.mark.parametrize("field", ["n_examples", "d_sketch", "d_latent", "shard_rows"])
def test_a_size_of_nothing_is_refused(field: str) -> None:
    with pytest.raises(ShapeError, match=f"{field} of at least 1, got 0"):
        manifest_of(**{field: 0})


def test_a_store_without_checkpoints_is_refused() -> None:
    with pytest.raises(ShapeError, match="at least one checkpoint"):
        manifest_of(learning_rates=())


@settings(max_examples=40, deadline=None)
@given(a=st.dictionaries(st.text(max_size=3), values), b=st.dictionaries(st.text(max_size=3), values))
def test_there_are_differences_exactly_between_unequal_settings(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert (differences(a, b) == []) == (a == b)


def test_a_difference_names_the_setting_and_both_values() -> None:
    a = {"seed": 0, "projection": {"d": 512, "kind": "count"}, "rates": [0.1, 0.2], "old": True}
    b = {"seed": 0, "projection": {"d": 1024, "kind": "count"}, "rates": [0.1, 0.3], "new": None}
    assert differences(a, b) == [
        "new: store has no such setting; this run asks for null",
        "old: store has true; this run asks for no such setting",
        "projection.d: store has 512; this run asks for 1024",
        "rates.1: store has 0.2; this run asks for 0.3",
    ]


def test_a_long_value_is_cut_and_counted() -> None:
    (line,) = differences({"names": list(range(1000))}, {"names": []})
    assert "… (1000 values); this run asks for []" in line
    assert len(line) < 250


def test_provenance_is_no_part_of_the_identity() -> None:
    assert manifest_of(provenance={"version": "1"}).identity() == manifest_of(provenance={"version": "2"}).identity()
    assert manifest_of(settings={"seed": 1}).identity() != manifest_of(settings={"seed": 2}).identity()
