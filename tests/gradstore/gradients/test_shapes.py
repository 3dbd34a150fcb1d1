"""Any shape: convolutions, leading axes and embeddings, drawn by hypothesis."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gradstore.testing.rule_kit import check_against_autograd, require_rules
from gradstore.testing.toys import ReadoutTask, batch_of

N_EXAMPLES = 3

few = settings(max_examples=30, deadline=None, derandomize=True)


def check(layer: Any, inputs: Tensor) -> None:
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    require_rules(check_against_autograd(ReadoutTask(layer, torch.float64), batch_of(inputs), 1e-10))


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7))


@st.composite
def windows(draw: st.DrawFn) -> tuple[int, dict[str, Any], list[int]]:
    """Spatial axes, what all convolutions understand, and an input size that holds at least one window."""
    axes = draw(st.integers(1, 3))

    def each(low: int, high: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=axes, max_size=axes))

    kernel, stride, dilation = each(1, 3), each(1, 3), each(1, 2)
    padding = [draw(st.integers(0, d * (k - 1))) for k, d in zip(kernel, dilation, strict=True)]
    size = [d * (k - 1) + 1 + extra for k, d, extra in zip(kernel, dilation, each(0, 3), strict=True)]
    groups = draw(st.sampled_from([1, 2, 4]))
    options = {
        "in_channels": groups * draw(st.integers(1, 2)),
        "out_channels": groups * draw(st.integers(1, 2)),
        "kernel_size": kernel,
        "stride": stride,
        "dilation": dilation,
        "padding": padding,
        "groups": groups,
        "bias": draw(st.booleans()),
    }
    return axes, options, size


@few
@given(window=windows())
def test_convolutions(window: tuple[int, dict[str, Any], list[int]]) -> None:
    axes, options, size = window
    kind: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
    check(lambda: kind(**options), randn(N_EXAMPLES, options["in_channels"], *size))


@few
@given(window=windows(), data=st.data())
def test_transposed_convolutions(window: tuple[int, dict[str, Any], list[int]], data: st.DataObject) -> None:
    axes, options, size = window
    widest = [
        max(stride, dilation) - 1 for stride, dilation in zip(options["stride"], options["dilation"], strict=True)
    ]
    extra = [data.draw(st.integers(0, most)) for most in widest]
    kind: Any = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[axes - 1]
    check(lambda: kind(**options, output_padding=extra), randn(N_EXAMPLES, options["in_channels"], *size))


@few
@given(
    leading=st.lists(st.integers(1, 4), max_size=3),
    n_in=st.integers(1, 7),
    n_out=st.integers(1, 7),
    bias=st.booleans(),
)
def test_linear_layers(leading: list[int], n_in: int, n_out: int, bias: bool) -> None:
    check(lambda: nn.Linear(n_in, n_out, bias=bias), randn(N_EXAMPLES, *leading, n_in))


@few
@given(
    shape=st.lists(st.integers(1, 4), max_size=2),
    n_rows=st.integers(2, 9),
    width=st.integers(1, 5),
    data=st.data(),
)
def test_embeddings(shape: list[int], n_rows: int, width: int, data: st.DataObject) -> None:
    padding = data.draw(st.none() | st.integers(-n_rows, n_rows - 1))
    tokens = torch.randint(0, n_rows, (N_EXAMPLES, *shape), generator=torch.Generator().manual_seed(len(shape)))
    unpadded = 0 if padding is None else (padding + 1) % n_rows
    tokens.view(-1)[0] = unpadded  # at least one token has a gradient
    check(lambda: nn.Embedding(n_rows, width, padding_idx=padding), tokens)
