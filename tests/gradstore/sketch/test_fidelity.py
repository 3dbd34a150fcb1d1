"""Fidelity against brute force: whole gradients in float64, lists sorted one by one."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradstore.errors import QueryError
from gradstore.sketch import CountSketch
from gradstore.sketch.fidelity import Agreement, Fidelity, Recall, SampledCheckpoint, compare, measure, recall
from gradstore.sketch.gram import GradientSample

Array = np.ndarray[Any, np.dtype[np.float64]]
RATES = (0.1, 0.02)
SHAPE = (20, 30)


def gradients(n: int, seed: int = 0) -> Array:
    """[checkpoint, n, 20, 30] with a few common directions, so that influence varies from pair to pair."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(len(RATES), n, 4)) @ rng.normal(size=(len(RATES), 4, 600))
    mixed: Array = (common + rng.normal(size=(len(RATES), n, 600))).reshape(len(RATES), n, *SHAPE)
    return mixed.astype(np.float32).astype(np.float64)


def some_of(rows: torch.Tensor, span: range) -> list[dict[str, torch.Tensor]]:
    return [{"w": rows[row]} for row in span]


def sampled(values: Array) -> list[SampledCheckpoint]:
    found = []
    for number, (eta, at_checkpoint) in enumerate(zip(RATES, values, strict=True)):
        rows = torch.from_numpy(at_checkpoint).float()
        sample = GradientSample(len(rows), {"w": rows[0]}, functools.partial(some_of, rows))
        found.append(SampledCheckpoint(number, eta, sample))
    return found


def assert_same(a: Agreement, b: Agreement) -> None:
    """To rounding."""
    assert a.recall_10 is not None
    assert b.recall_10 is not None
    assert a.recall_10.mean == pytest.approx(b.recall_10.mean)
    assert a.pearson == pytest.approx(b.pearson)
    assert a.spearman == pytest.approx(b.spearman)


def measured(values: Array, lengths: tuple[int, ...] = (32, 128), block_bytes: int = 1 << 20) -> Fidelity:
    return measure(sampled(values), lengths, seed=7, block_bytes=block_bytes)


def influences(values: Array, d: int) -> tuple[Array, Array]:
    """Exact and sketched influence, written out: a matrix of the projection, whole gradients, float64."""
    n = values.shape[1]
    exact, sketched = np.zeros((n, n)), np.zeros((n, n))
    for number, (eta, grads) in enumerate(zip(RATES, values.reshape(len(RATES), n, -1), strict=True)):
        buffer = CountSketch({"w": SHAPE}, d, 7, stream=number, dtype=torch.float64).buffer(600)
        buffer.add_dense("w", torch.eye(600, dtype=torch.float64).reshape(600, *SHAPE))
        norms = np.linalg.norm(grads, axis=1)
        stored = (grads @ buffer.result().numpy() / norms[:, None]).astype(np.float16).astype(np.float64)
        exact += eta * grads @ grads.T
        sketched += eta * np.outer(norms, norms) * (stored @ stored.T)
    return exact, sketched


def brute_recall(exact: Array, sketched: Array, m: int) -> list[float]:
    shares = []
    for row in range(len(exact)):
        others = [other for other in range(len(exact)) if other != row]
        best = sorted(others, key=lambda other: -exact[row, other])[:m]
        first = sorted(others, key=lambda other: -sketched[row, other])[:m]
        shares.append(len({*best} & {*first}) / m)
    return shares


@pytest.mark.parametrize("d", [32, 128])
def test_every_number_is_that_of_brute_force(d: int) -> None:
    values = gradients(30)
    found = {a.d_sketch: a for a in measured(values).agreements}[d]
    exact, sketched = influences(values, d)
    pairs = ~np.tri(30, dtype=bool)
    assert found.pearson == pytest.approx(scipy.stats.pearsonr(exact[pairs], sketched[pairs])[0], abs=1e-5)
    assert found.spearman == pytest.approx(scipy.stats.spearmanr(exact[pairs], sketched[pairs])[0], abs=1e-3)
    shares = brute_recall(exact, sketched, 10)
    # float32 sketches may swap two examples at the end of a list: a tenth of one list of 30
    assert found.recall_10 is not None
    assert found.recall_10.mean == pytest.approx(np.mean(shares), abs=0.1 / 30 + 1e-9)
    assert found.recall_10.standard_error == pytest.approx(np.std(shares, ddof=1) / np.sqrt(30), abs=5e-3)
    errors = np.abs(np.diag(sketched) / np.diag(exact) - 1)
    assert found.self_influence_error_mean == pytest.approx(errors.mean(), abs=1e-3)
    assert found.self_influence_error_max == pytest.approx(errors.max(), abs=1e-3)


def test_blocks_give_what_the_whole_sample_gives() -> None:
    values = gradients(25)
    whole, blocks = measured(values), measured(values, block_bytes=5 * 600 * 4)
    for a, b in zip(whole.agreements, blocks.agreements, strict=True):
        assert_same(a, b)
    np.testing.assert_allclose(whole.norms, blocks.norms, rtol=1e-12)


def test_the_order_of_the_examples_does_not_matter() -> None:
    values, order = gradients(25), np.random.default_rng(1).permutation(25)
    plain, permuted = measured(values).agreements, measured(values[:, order]).agreements
    for a, b in zip(plain, permuted, strict=True):
        assert_same(a, b)


def test_longer_sketches_agree_better() -> None:
    short, long = measured(gradients(40), (16, 512)).agreements
    assert short.pearson is not None
    assert long.pearson is not None
    assert short.pearson < long.pearson
    assert short.self_influence_error_mean > long.self_influence_error_mean


@settings(max_examples=25, deadline=None)
@given(n=st.integers(12, 40), m=st.integers(1, 10), seed=st.integers(0, 2**30))
def test_recall_counts_what_two_sorted_lists_share(n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    exact, sketched = (a @ a.T for a in rng.normal(size=(2, n, 5)))
    np.testing.assert_allclose(recall(exact, sketched, m), brute_recall(exact, sketched, m))


def test_either_of_two_copies_of_an_example_counts_as_found() -> None:
    grads = np.repeat(np.random.default_rng(0).normal(size=(15, 6)), 2, axis=0)
    exact = grads @ grads.T
    sketched = exact.copy()
    sketched[:, ::2] += 1e-9  # prefers the first copy of each, where exact influence prefers neither
    assert (recall(exact, sketched, 9) == 1).all()


@pytest.mark.parametrize(("n", "has_10", "has_100"), [(3, False, False), (20, False, False), (21, True, False)])
def test_recall_is_left_out_where_chance_would_find_most(n: int, has_10: bool, has_100: bool) -> None:
    for agreement in measured(gradients(n)).agreements:
        assert (agreement.recall_10 is not None, agreement.recall_100 is not None) == (has_10, has_100)


def test_recall_at_100_takes_a_sample_of_201() -> None:
    (agreement,) = measured(gradients(201), (512,)).agreements
    assert isinstance(agreement.recall_100, Recall)
    assert 0.5 < agreement.recall_100.mean <= 1


def test_the_shortest_length_that_reaches_the_recall_is_recommended() -> None:
    found = measured(gradients(60), (16, 64, 512))
    reached = [a.recall_10.mean for a in found.agreements if a.recall_10]
    chosen = found.recommended(reached[1])
    assert chosen is not None
    assert chosen.d_sketch == 64
    assert found.recommended(1.0) is None
    assert measured(gradients(5)).recommended(0.1) is None


def test_without_variation_there_is_no_correlation() -> None:
    values = np.repeat(gradients(1), 4, axis=1)
    for agreement in measured(values).agreements:
        assert (agreement.pearson, agreement.spearman) == (None, None)


def test_examples_without_a_gradient_have_no_error_of_self_influence() -> None:
    values = gradients(8)
    values[:, 3] = 0
    for agreement in measured(values).agreements:
        assert np.isfinite(agreement.self_influence_error_max)
        assert agreement.pearson is not None


def test_gradients_that_are_all_zero_are_refused() -> None:
    with pytest.raises(QueryError, match="All gradients of the 5 sampled examples are zero"):
        measured(np.zeros((len(RATES), 5, *SHAPE)))


def test_two_examples_are_too_few() -> None:
    with pytest.raises(QueryError, match="was given 2"):
        measured(gradients(2))


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1e-12, 1e12), seed=st.integers(0, 2**30))
def test_the_unit_of_influence_does_not_matter(scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    exact, sketched = (a @ a.T for a in rng.normal(size=(2, 30, 5)))
    assert_same(compare(8, exact, sketched), compare(8, scale * exact, scale * sketched))


def test_dtypes_are_held_against_float32_of_the_same_length() -> None:
    """float32 loses nothing; an entry of float16 errs by 2^-11 of it, of int8 by 1/254 of the row's largest."""
    found = measure(sampled(gradients(60)), (32,), seed=7, own=64).dtypes
    errors = {dtype: agreement.self_influence_error_max for dtype, agreement in found.items()}
    assert errors["float32"] == 0
    assert found["float32"].pearson == pytest.approx(1)
    assert 0 < errors["float16"] < 2 * 2.0**-11
    assert errors["float16"] < errors["int8"] < 2 / 254 * 8  # of 64 entries the largest is at most 8 root mean squares
    assert all(agreement.d_sketch == 64 for agreement in found.values())


def test_what_is_measured_is_what_the_dtype_keeps() -> None:
    coarse, fine = (measure(sampled(gradients(60)), (32,), seed=7, dtype=d).agreements[0] for d in ("int8", "float32"))
    assert coarse.self_influence_error_max != fine.self_influence_error_max
