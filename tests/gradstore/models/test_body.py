"""Bodies and input scaling for examples of any shape and range."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gradstore.data import scan
from gradstore.errors import TaskError
from gradstore.models import InputScaling
from gradstore.models.body import decoder_body, encoder_body, prefers_convolution
from gradstore.testing.memory_source import MemorySource

sides = st.integers(8, 40)


@settings(max_examples=25, deadline=None)
@given(channels=st.integers(1, 4), height=sides, width=sides, convolutional=st.booleans())
def test_decoding_gives_back_the_shape_of_any_image(
    channels: int, height: int, width: int, convolutional: bool
) -> None:
    shape = (channels, height, width)
    features = encoder_body(shape, 16, convolutional=convolutional)(torch.zeros(2, *shape))
    assert features.shape == (2, 16)
    decoder = decoder_body(shape, 5, 16, convolutional=convolutional)
    assert decoder(torch.zeros(2, 5)).shape == (2, *shape)


@pytest.mark.parametrize("shape", [(1,), (30,), (9, 4), (2, 3, 4, 5)])
def test_an_mlp_takes_any_number_of_axes(shape: tuple[int, ...]) -> None:
    assert encoder_body(shape, 16, convolutional=False)(torch.zeros(2, *shape)).shape == (2, 16)
    assert decoder_body(shape, 5, 16, convolutional=False)(torch.zeros(2, 5)).shape == (2, *shape)


def test_only_large_images_are_convolved() -> None:
    assert prefers_convolution((3, 64, 64))
    assert not prefers_convolution((1, 28, 28))
    assert not prefers_convolution((100_000,))
    assert not prefers_convolution((1, 4, 9_000))


def test_a_large_image_costs_few_weights() -> None:
    body = encoder_body((3, 224, 224), 256, convolutional=True)
    assert sum(parameter.numel() for parameter in body.parameters()) < 2_000_000


def fitted(examples: np.ndarray) -> InputScaling:
    scaling = InputScaling(examples.shape[1:])
    scaling.fit(scan(MemorySource(examples)))
    return scaling


def test_bytes_and_unit_intervals_are_left_as_they_are() -> None:
    for examples in (np.arange(12, dtype=np.uint8).reshape(4, 3), np.eye(4, dtype=np.float32)):
        inputs = torch.rand(2, examples.shape[1])
        assert torch.equal(fitted(examples)(inputs), inputs)


def test_other_data_is_standardised_feature_by_feature() -> None:
    examples = np.random.default_rng(0).normal([5, -300, 0], [2, 40, 1e-3], (500, 3)).astype(np.float32)
    scaled = fitted(examples)(torch.from_numpy(examples))
    torch.testing.assert_close(scaled.mean(0), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(scaled.std(0, correction=0), torch.ones(3), atol=1e-3, rtol=0)


def test_a_constant_feature_becomes_zero_and_does_not_explode() -> None:
    examples = np.stack([np.full(50, 7.3), np.arange(50)], axis=1).astype(np.float32)
    assert torch.equal(fitted(examples)(torch.tensor([[7.3, 0.0]]))[:, 0], torch.zeros(1))
    assert abs(float(fitted(examples)(torch.tensor([[8.3, 0.0]]))[0, 0])) < 2.0


def test_integers_become_real_numbers() -> None:
    scaled = fitted(np.arange(20, dtype=np.int64).reshape(10, 2))(torch.tensor([[4, 5]]))
    assert scaled.dtype == torch.float32


def test_scaling_travels_with_the_weights() -> None:
    model = nn.Sequential(fitted(np.random.default_rng(0).normal(9, 2, (40, 3)).astype(np.float32)))
    other = nn.Sequential(InputScaling((3,)))
    other.load_state_dict(model.state_dict())
    inputs = torch.randn(2, 3)
    assert torch.equal(other(inputs), model(inputs))


def test_a_summary_without_its_arrays_cannot_be_fitted() -> None:
    summary = scan(MemorySource(np.array([[5.0], [9.0]], dtype=np.float32)))
    with pytest.raises(TaskError, match="Scan the data again"):
        InputScaling((1,)).fit(type(summary).from_json(summary.to_json()))
