"""Every rule against plain autograd, by the contract kit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gradstore.gradients import GradientEngine
from gradstore.testing.rule_kit import RuleContract, check_against_autograd, check_rule
from gradstore.testing.toys import ReadoutTask, batch_of

Factory = Callable[[], nn.Module]


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7))


def tokens(*shape: int, n_tokens: int = 11) -> Tensor:
    return torch.randint(0, n_tokens, shape, generator=torch.Generator().manual_seed(2))


class Apply(nn.Module):
    """A function of the input and of named parameters or modules."""

    def __init__(self, function: Callable[..., Tensor], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        self._function, self._names = function, list(parts)
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part) if isinstance(part, Tensor) else part)

    def forward(self, x: Tensor) -> Tensor:
        return self._function(x, *(getattr(self, name) for name in self._names))


class TestLinear(RuleContract):
    def layer(self) -> nn.Module:
        return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3, bias=False))

    def inputs(self, n_examples: int) -> Tensor:
        return randn(n_examples, 6)


class TestConvolution(RuleContract):
    def layer(self) -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 3), nn.ReLU(inplace=True))

    def inputs(self, n_examples: int) -> Tensor:
        return randn(n_examples, 1, 7, 7)


class TestTransposedConvolution(RuleContract):
    def layer(self) -> nn.Module:
        return nn.Sequential(nn.Linear(6, 12), nn.Unflatten(1, (3, 4)), nn.ConvTranspose1d(3, 2, 3, stride=2))

    def inputs(self, n_examples: int) -> Tensor:
        return randn(n_examples, 6)


class TestEmbedding(RuleContract):
    def layer(self) -> nn.Module:
        return nn.Sequential(nn.Embedding(11, 5, padding_idx=0), nn.Linear(5, 3))

    def inputs(self, n_examples: int) -> Tensor:
        return tokens(n_examples, 6) % 4


class TestLayerNorm(RuleContract):
    def layer(self) -> nn.Module:
        return nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 4), nn.LayerNorm((3, 4)))

    def inputs(self, n_examples: int) -> Tensor:
        return randn(n_examples, 3, 6)


def batch_norms() -> nn.Module:
    """With running statistics of its own."""
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Flatten(), nn.BatchNorm1d(54)
    )
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm2d)
    norm.running_mean, norm.running_var = torch.linspace(-1, 1, 6), torch.linspace(0.5, 2, 6)
    return model


class TestBatchNormInEvalMode(RuleContract):
    def layer(self) -> nn.Module:
        return batch_norms()

    def inputs(self, n_examples: int) -> Tensor:
        return randn(n_examples, 2, 5, 5)

    def test_running_statistics_stay_bit_identical(self) -> None:
        task = ReadoutTask(self.layer)
        model = task.build()
        before = {name: value.clone() for name, value in model.named_buffers()}
        engine = GradientEngine(task, model, "all", d_sketch=16, seed=0)
        engine.prepare(batch_of(self.inputs(3)))
        engine.run(batch_of(self.inputs(5)))
        assert all(torch.equal(before[name], value) for name, value in model.named_buffers())


def affine_instance_norm(**options: Any) -> nn.InstanceNorm2d:
    norm = nn.InstanceNorm2d(2, affine=True, **options)
    if norm.track_running_stats:
        norm.running_mean, norm.running_var = torch.tensor([-0.3, 0.4]), torch.tensor([0.6, 1.7])
    return norm


LAYERS: dict[str, tuple[Factory, Tensor]] = {
    "linear, two leading axes": (lambda: nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 5)), randn(5, 2, 3, 6)),
    "linear, flattened positions": (
        lambda: Apply(lambda x, f: f(x.reshape(-1, 6)).reshape(len(x), -1), f=nn.Linear(6, 4)),
        randn(5, 3, 6),
    ),
    "bilinear": (lambda: Apply(lambda x, f: f(x[..., :3], x[..., 3:]), f=nn.Bilinear(3, 2, 4)), randn(5, 2, 5)),
    "matrix on the right": (lambda: Apply(lambda x, w: x @ w, w=randn(6, 4)), randn(5, 3, 6)),
    "vector on the right": (lambda: Apply(lambda x, w: x @ w, w=randn(6)), randn(5, 3, 6)),
    "matrix on the left": (lambda: Apply(lambda x, w: w @ x, w=randn(4, 3)), randn(5, 2, 3, 6)),
    "a matrix a head": (lambda: Apply(lambda x, w: x[:, None] @ w, w=randn(4, 6, 2)), randn(5, 3, 6)),
    "a matrix a head on the left": (lambda: Apply(lambda x, w: w @ x, w=randn(2, 4, 3)), randn(5, 7, 2, 3, 6)),
    "addmm with factors": (
        lambda: Apply(lambda x, w, b: torch.addmm(b, x, w, beta=0.5, alpha=2.0), w=randn(6, 4), b=randn(4)),
        randn(5, 6),
    ),
    "embedding, negative padding index": (lambda: nn.Embedding(11, 5, padding_idx=-1), tokens(5, 6)),
    "embedding, negative padding index in the function": (
        lambda: Apply(lambda x, w: functional.embedding(x, w, padding_idx=-2), w=randn(11, 5)),
        tokens(5, 6),
    ),
    "embedding, sparse": (lambda: nn.Sequential(nn.Embedding(30, 5, sparse=True), nn.Tanh()), tokens(5, 6)),
    "embedding of one token": (lambda: nn.Embedding(11, 5), tokens(5)),
    "embedding of int32 tokens": (lambda: nn.Embedding(11, 5), tokens(5, 6).int()),
    "embedding by indexing": (lambda: Apply(lambda x, w: w[x], w=randn(11, 5)), tokens(5, 6) - 3),
    "embedding by index_select": (
        lambda: Apply(lambda x, w: w.index_select(0, x.flatten()).reshape(len(x), -1), w=randn(11, 5)),
        tokens(5, 6),
    ),
    "layer norm without affine": (
        lambda: nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4, elementwise_affine=False)),
        randn(5, 3, 6),
    ),
    "layer norm without bias": (lambda: nn.LayerNorm((3, 6), bias=False), randn(5, 2, 3, 6)),
    "rms norm": (lambda: nn.Sequential(nn.Linear(6, 4), nn.RMSNorm(4, eps=1e-6)), randn(5, 3, 6)),
    "rms norm with the default eps": (lambda: nn.RMSNorm((3, 6)), randn(5, 3, 6)),
    "group norm": (lambda: nn.Sequential(nn.Conv2d(2, 6, 3), nn.GroupNorm(3, 6), nn.Tanh()), randn(5, 2, 5, 5)),
    "group norm of vectors": (lambda: nn.GroupNorm(2, 6), randn(5, 6)),
    "instance norm": (lambda: affine_instance_norm(), randn(5, 2, 4, 3)),
    "instance norm by running statistics": (lambda: affine_instance_norm(track_running_stats=True), randn(5, 2, 4, 3)),
    "batch norm of several rows an example": (
        lambda: Apply(lambda x, f: f(x.reshape(-1, 6)).reshape(len(x), -1), f=nn.BatchNorm1d(6)),
        randn(5, 3, 6),
    ),
    "prelu": (lambda: nn.PReLU(), randn(5, 3, 6)),
    "prelu by channel": (lambda: nn.PReLU(3), randn(5, 3, 6)),
    "several images an example": (
        lambda: Apply(lambda x, f: f(x.flatten(0, 1)).reshape(len(x), -1), f=nn.Conv2d(2, 4, 3, groups=2)),
        randn(5, 3, 2, 5, 5),
    ),
}


@pytest.mark.parametrize("case", LAYERS)
def test_layer_equals_autograd(case: str) -> None:
    check_rule(*LAYERS[case])


CONVOLUTIONS: list[tuple[type[nn.Module], dict[str, Any], tuple[int, ...]]] = [
    (nn.Conv1d, {"stride": 2, "padding": 1, "dilation": 2}, (9,)),
    (nn.Conv1d, {"padding": "valid", "groups": 4, "padding_mode": "zeros"}, (5,)),
    (nn.Conv1d, {"padding": 2, "padding_mode": "replicate"}, (5,)),
    (nn.Conv2d, {"padding": "same", "padding_mode": "reflect"}, (6, 5)),
    (nn.Conv2d, {"padding": "same", "dilation": (1, 2)}, (6, 5)),
    (nn.Conv2d, {"groups": 2, "stride": (2, 1), "padding": (0, 2), "bias": False}, (7, 6)),
    (nn.Conv2d, {"groups": 4, "padding": 1, "padding_mode": "circular"}, (5, 5)),
    (nn.Conv3d, {"padding": 1, "stride": (1, 2, 1)}, (3, 4, 3)),
    (nn.Conv3d, {"padding": (1, 0, 1), "groups": 2, "padding_mode": "replicate"}, (3, 4, 3)),
    (nn.ConvTranspose1d, {"stride": 2, "padding": 1, "output_padding": 1}, (5,)),
    (nn.ConvTranspose1d, {"dilation": 2, "groups": 4}, (5,)),
    (nn.ConvTranspose2d, {"stride": (2, 3), "padding": (1, 0), "output_padding": (1, 2), "groups": 2}, (3, 2)),
    (nn.ConvTranspose2d, {"padding": 1, "bias": False}, (3, 4)),
    (nn.ConvTranspose3d, {"stride": 2, "padding": 1, "output_padding": (0, 1, 0)}, (2, 2, 3)),
]


@pytest.mark.parametrize(("kind", "options", "size"), CONVOLUTIONS)
def test_convolution_equals_autograd(kind: Any, options: dict[str, Any], size: tuple[int, ...]) -> None:
    check_rule(lambda: kind(4, 8, 3, **options), randn(5, 4, *size))


def flat_bags(x: Tensor, bag: nn.EmbeddingBag) -> Tensor:
    """Bags of 1, 2 and 3 tokens, three an example, in one vector."""
    starts = torch.tensor([0, 1, 3]) + 6 * torch.arange(len(x))[:, None]
    offsets = starts.flatten()
    if bag.include_last_offset:
        offsets = torch.cat([offsets, torch.tensor([6 * len(x)])])
    out: Tensor = bag(x.flatten(), offsets)
    return out.reshape(len(x), -1)


def weighted_bag(x: Tensor, bag: nn.EmbeddingBag) -> Tensor:
    out: Tensor = bag(x, per_sample_weights=torch.sin(x.to(bag.weight.dtype)))
    return out


BAGS: dict[str, Factory] = {
    "mean": lambda: nn.EmbeddingBag(11, 4),
    "sum": lambda: nn.EmbeddingBag(11, 4, mode="sum"),
    "sparse": lambda: nn.EmbeddingBag(11, 4, mode="sum", sparse=True),
    "mean without padding": lambda: nn.EmbeddingBag(11, 4, padding_idx=-3),
    "offsets": lambda: Apply(flat_bags, bag=nn.EmbeddingBag(11, 4, padding_idx=2)),
    "offsets with the last": lambda: Apply(flat_bags, bag=nn.EmbeddingBag(11, 4, mode="sum", include_last_offset=True)),
    "weighted": lambda: Apply(weighted_bag, bag=nn.EmbeddingBag(11, 4, mode="sum", padding_idx=1)),
}


@pytest.mark.parametrize("case", BAGS)
def test_embedding_bag_equals_autograd(case: str) -> None:
    check_rule(BAGS[case], tokens(5, 6))


def test_maxima_of_bags_take_the_fallback() -> None:
    task = ReadoutTask(lambda: nn.EmbeddingBag(11, 4, mode="max"))
    coverage = check_against_autograd(task, batch_of(tokens(5, 6)), 1e-5)
    assert "maxima" in coverage.routes[0].detail or "vmap cannot" in coverage.routes[0].detail


def cat_token(x: Tensor, token: Tensor) -> Tensor:
    return torch.cat([token, x], dim=1)


def masked(x: Tensor) -> Tensor:
    """[B, T, 1]: which positions are hidden."""
    return x[..., :1] > 0.3


BARE: dict[str, Factory] = {
    "positions": lambda: Apply(lambda x, p: x + p[:, : x.shape[1]], p=randn(1, 9, 6)),
    "positions without an axis of examples": lambda: Apply(lambda x, p: p.unsqueeze(0) + x, p=randn(3, 6)),
    "positions by an embedding": lambda: Apply(lambda x, e: x + e(torch.arange(x.shape[1])), e=nn.Embedding(9, 6)),
    "positions by a sparse embedding": lambda: Apply(
        lambda x, e: x + e(torch.arange(x.shape[1])), e=nn.Embedding(9, 6, sparse=True)
    ),
    "in-place positions": lambda: Apply(lambda x, p: x.clone().add_(p), p=randn(3, 6)),
    "subtracted": lambda: Apply(lambda x, p, q: torch.sub(p - x, q, alpha=3), p=randn(6), q=randn(3, 1)),
    "class token, expanded": lambda: Apply(lambda x, p: cat_token(x, p.expand(len(x), -1, -1)), p=randn(1, 1, 6)),
    "class token, repeated": lambda: Apply(lambda x, p: cat_token(x, p.repeat(len(x), 2, 1)), p=randn(1, 2, 6)),
    "class token, tiled": lambda: Apply(lambda x, p: cat_token(x, p.tile(len(x), 1, 1)), p=randn(1, 2, 6)),
    "class token, added": lambda: Apply(lambda x, p: cat_token(x, p + x.new_zeros(len(x), 1, 6)), p=randn(1, 1, 6)),
    "expanded as the input": lambda: Apply(lambda x, p: x * p.expand_as(x), p=randn(6)),
    "broadcast": lambda: Apply(lambda x, p: x.sin() * torch.broadcast_to(p, x.shape), p=randn(3, 1)),
    "layer scale": lambda: Apply(lambda x, p: p * x.tanh(), p=randn(6)),
    "layer scale by channel": lambda: Apply(lambda x, p: x * p.view(1, -1, 1), p=randn(3)),
    "temperature": lambda: Apply(lambda x, p: x / p, p=torch.tensor(0.7)),
    "numerator": lambda: Apply(lambda x, p: p / (2 + x.square()), p=randn(6)),
    "scalar through exp": lambda: Apply(lambda x, p: x * p.exp(), p=torch.tensor(0.3)),
    "generalised mean": lambda: Apply(lambda x, p: x.abs().clamp(min=1e-2).pow(p).mean(1), p=torch.tensor([2.2])),
    "mask token": lambda: Apply(lambda x, p: torch.where(masked(x), p, x), p=randn(1, 1, 6)),
    "mask token by the method": lambda: Apply(lambda x, p: x.where(masked(x), p), p=randn(6)),
    "on flattened positions": lambda: Apply(lambda x, p: (x.reshape(-1, 6) * p + p).reshape(x.shape), p=randn(6)),
    "learned queries": lambda: Apply(lambda x, p: (p @ x.mT).softmax(-1) @ x, p=randn(4, 6)),
    "product of two": lambda: Apply(lambda x, a, b: functional.linear(x, a @ b), a=randn(5, 2), b=randn(2, 6)),
    "normalised weight": lambda: Apply(lambda x, w: functional.linear(x, functional.normalize(w)), w=randn(5, 6)),
    "learned initial state": lambda: Apply(
        lambda x, h, f: f(x, h.expand(-1, len(x), -1).contiguous())[0],
        h=randn(1, 1, 4),
        f=nn.GRU(6, 4, batch_first=True),
    ),
    "contiguous": lambda: Apply(lambda x, w: functional.linear(x, w.contiguous().to(x.dtype)), w=randn(5, 6)),
    "a row written into zeros": lambda: Apply(written_into_zeros, w=randn(6)),
}


def written_into_zeros(x: Tensor, w: Tensor) -> Tensor:
    matrix = x.new_zeros(4, 6)
    matrix[1] = w
    return functional.linear(x, matrix)


@pytest.mark.parametrize("case", BARE)
def test_bare_parameter_equals_autograd(case: str) -> None:
    check_rule(BARE[case], randn(5, 3, 6))
