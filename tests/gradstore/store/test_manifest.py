from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradstore.errors import ShapeError, StoreCorruptError, StoreFormatError
from gradstore.store import Manifest
from gradstore.store.differences import differences
from gradstore.store.sealed import sealed
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
    assert Manifest.from_json(sealed(document)) == manifest_of()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 4}, "has format 4; this gradstore reads formats 1 to 3. Upgrade gradstore"),
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
    for later in ("parameter_sets", "layers", "n_draws", "sketch_dtype", "n_classes", "sharded", "sha256"):
        del document[later]
    manifest = Manifest.from_json(json.dumps(document | {"format_version": 1}))
    assert (manifest.parameter_sets, manifest.layers, manifest.n_draws) == (("encoder",), None, 1)
    assert json.loads(manifest.to_json()) == document | {"format_version": 1}
    assert "parameter_sets" not in manifest.identity()


def test_a_manifest_of_format_1_without_its_set_s_name_is_refused() -> None:
    document = json.loads(manifest_of().to_json()) | {"format_version": 1}
    del document["sha256"]
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


def test_every_changed_byte_of_a_manifest_is_found() -> None:
    whole = manifest_of(label_names=("cat", "dög"), settings={"seed": 3}).to_json().encode()
    for place in range(len(whole)):
        for flip in (0x01, 0x20, 0x80):
            torn = whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :]
            with pytest.raises((StoreFormatError, StoreCorruptError)):
                Manifest.from_json(torn)


@pytest.mark.parametrize("text", [b"\n", b" ", b"\r"])
def test_white_space_put_into_a_manifest_is_found(text: bytes) -> None:
    whole = manifest_of().to_json().encode()
    for torn in (text + whole, whole + text, whole.replace(b"\n", text + b"\n", 1)):
        with pytest.raises(StoreCorruptError, match=r"manifest\.json is not as it was written"):
            Manifest.from_json(torn)


PLAN: dict[str, Any] = {
    "seed": 0,
    "block": 64,
    "checkpoints": [{"path": f"c{n}", "learning_rate": 0.1, "sha256": f"{n}" * 64} for n in range(3)],
    "projections": [{"stream": n} for n in range(3)],
}


def planned(n_checkpoints: int = 2, **changes: Any) -> Manifest:
    plan = {name: v[:n_checkpoints] if isinstance(v, list) else v for name, v in PLAN.items()}
    rates = (0.1,) * n_checkpoints
    return manifest_of(**{"settings": {"plan": plan, "request": {"n": 1}}, "learning_rates": rates} | changes)


def test_appending_leaves_the_fingerprints_of_rows_as_they_are() -> None:
    """More examples, another checkpoint, its learning rate, where weights lie: no row that is there depends on them."""
    moved = {**PLAN, "checkpoints": [{**held, "path": "elsewhere"} for held in PLAN["checkpoints"]]}
    grown = planned(3, n_examples=99, settings={"plan": moved, "request": {"n": 2}}, learning_rates=(0.1, 0.2, 0.3))
    assert [grown.fingerprint(t) for t in range(2)] == [planned().fingerprint(t) for t in range(2)]
    assert len({grown.fingerprint(t) for t in range(3)}) == 3


@pytest.mark.parametrize(
    "changes",
    [
        *({"d_sketch": 6}, {"d_latent": 9}, {"shard_rows": 8}, {"n_draws": 2}, {"sketch_dtype": "int8"}),
        *({"n_classes": 3}, {"parameter_sets": ("encoder",)}, {"layers": {"all": ("a",)}}),
        {"settings": {"plan": {**PLAN, "seed": 1}}},
    ],
)
def test_what_makes_the_rows_changes_their_fingerprint(changes: dict[str, Any]) -> None:
    assert planned(**changes).fingerprint(0) != planned().fingerprint(0)


def test_the_fingerprint_of_an_older_store_is_that_of_its_identity() -> None:
    old = planned(format_version=2)
    assert old.fingerprint(0) == old.fingerprint(1) != planned(format_version=2, n_examples=12).fingerprint(0)


def test_a_build_that_was_begun_in_format_2_is_the_same_build_in_format_3() -> None:
    assert planned(format_version=2).identity() == planned().identity() == planned(sharded=True).identity()
    assert planned(sketch_dtype="int8").identity() != planned().identity()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sketch_dtype": "bfloat16"}, "sketches as float16, float32, int8, not as 'bfloat16'"),
        ({"n_classes": 0}, "n_classes of at least 1, got 0"),
    ],
)
def test_what_cannot_be_kept_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        manifest_of(**changes)
