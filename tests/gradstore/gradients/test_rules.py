"""Every rule against plain autograd, by the contract kit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradstore.testing.rule_kit import RuleContract


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7))


class TestLinear(RuleContract):
    def layer(self) -> nn.Module:
        return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3, bias=False))

    def inputs(self, n_examples: int) -> Tensor:
        return randn(n_examples, 6)


class TestLinearOverPositions(RuleContract):
    def layer(self) -> nn.Module:
        return nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 5))

    def inputs(self, n_examples: int) -> Tensor:
        return randn(n_examples, 2, 3, 6)


class TestLinearOnFlattenedPositions(RuleContract):
    class Flattening(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.linear(x.reshape(-1, 6))
            return out.reshape(len(x), -1)

    def layer(self) -> nn.Module:
        return self.Flattening()

    def inputs(self, n_examples: int) -> Tensor:
        return randn(n_examples, 3, 6)


class TestModuleCalledTwice(RuleContract):
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.conv = nn.Linear(6, 6), nn.Conv1d(2, 2, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.linear(torch.tanh(self.linear(x)))
            out: Tensor = self.conv(torch.tanh(self.conv(x)))
            return out

    def layer(self) -> nn.Module:
        return self.Twice()

    def inputs(self, n_examples: int) -> Tensor:
        return randn(n_examples, 2, 6)


class TestInPlaceActivation(RuleContract):
    def layer(self) -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 3), nn.ReLU(inplace=True))

    def inputs(self, n_examples: int) -> Tensor:
        return randn(n_examples, 1, 7, 7)


CONVOLUTIONS: list[tuple[type[nn.Module], dict[str, Any], tuple[int, ...]]] = [
    (nn.Conv1d, {"stride": 2, "padding": 1, "dilation": 2}, (9,)),
    (nn.Conv2d, {"padding": "same", "padding_mode": "reflect"}, (6, 5)),
    (nn.Conv2d, {"groups": 2, "stride": (2, 1), "padding": (0, 2), "bias": False}, (7, 6)),
    (nn.Conv2d, {"groups": 4, "padding": 1, "padding_mode": "circular"}, (5, 5)),
    (nn.Conv3d, {"padding": 1, "stride": (1, 2, 1)}, (3, 4, 3)),
]


@pytest.mark.parametrize(("kind", "options", "size"), CONVOLUTIONS)
class TestConvolution:
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
    def test_equals_autograd(
        self, kind: Any, options: dict[str, Any], size: tuple[int, ...], dtype: torch.dtype, tolerance: float
    ) -> None:
        class Case(RuleContract):
            def layer(self) -> nn.Module:
                layer: nn.Module = kind(4, 8, 3, **options)
                return layer

            def inputs(self, n_examples: int) -> Tensor:
                return randn(n_examples, 4, *size)

        Case()._compare(dtype, tolerance)
        Case().test_every_parameter_of_the_layer_takes_its_rule()


class TestLayerNorm(RuleContract):
    def layer(self) -> nn.Module:
        return nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 4), nn.LayerNorm((3, 4)))

    def inputs(self, n_examples: int) -> Tensor:
        return randn(n_examples, 3, 6)


class TestGroupNorm(RuleContract):
    def layer(self) -> nn.Module:
        return nn.Sequential(nn.Conv2d(2, 6, 3), nn.GroupNorm(3, 6), nn.Tanh())

    def inputs(self, n_examples: int) -> Tensor:
        return randn(n_examples, 2, 5, 5)


class TestBatchNormInEvalMode(RuleContract):
    def layer(self) -> nn.Module:
        norm = nn.BatchNorm2d(6)
        norm.running_mean, norm.running_var = torch.linspace(-1, 1, 6), torch.linspace(0.5, 2, 6)
        return nn.Sequential(nn.Conv2d(2, 6, 3), norm, nn.ReLU(inplace=True), nn.Flatten(), nn.BatchNorm1d(54))

    def inputs(self, n_examples: int) -> Tensor:
        return randn(n_examples, 2, 5, 5)

    def test_running_statistics_stay_bit_identical(self) -> None:
        from gradstore.gradients import GradientEngine
        from gradstore.testing.toys import ReadoutTask, batch_of

        task = ReadoutTask(self.model)
        model = task.build()
        before = {name: value.clone() for name, value in model.named_buffers()}
        engine = GradientEngine(task, model, "all", d_sketch=16, seed=0)
        engine.prepare(batch_of(self.inputs(3)))
        engine.run(batch_of(self.inputs(5)))
        assert all(torch.equal(before[name], value) for name, value in model.named_buffers())


class TestEmbedding(RuleContract):
    def layer(self) -> nn.Module:
        return nn.Sequential(nn.Embedding(11, 5, padding_idx=0), nn.Linear(5, 3))

    def inputs(self, n_examples: int) -> Tensor:
        return torch.randint(0, 11, (n_examples, 6), generator=torch.Generator().manual_seed(2)) % 4


class TestSparseEmbedding(TestEmbedding):
    def layer(self) -> nn.Module:
        return nn.Sequential(nn.Embedding(30, 5, sparse=True), nn.Tanh())
