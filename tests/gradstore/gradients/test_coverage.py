"""What people really train: every parameter by a rule, and the same numbers as plain autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from gradstore.testing.rule_kit import check_against_autograd, check_rule, require_rules, routes
from gradstore.testing.toys import ReadoutTask, batch_of

Factory = Callable[[], nn.Module]


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7))


def tokens(*shape: int) -> Tensor:
    return torch.randint(0, 13, shape, generator=torch.Generator().manual_seed(2))


def shaken(model: nn.Module) -> nn.Module:
    """Parameters that begin at zero or one would hide mistakes."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


class Attention(nn.Module):
    """Self-attention, or attention to a second sequence made from the first."""

    def __init__(
        self, *, d_memory: int | None = None, need_weights: bool = False, masked: bool = False, **options: Any
    ):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, **options)
        self.memory = None if d_memory is None else nn.Linear(6, d_memory)
        self.need_weights, self.masked = need_weights, masked

    def forward(self, x: Tensor) -> Tensor:
        mask = (x[..., 0] > 1) if self.masked else None
        x = x if self.attention.batch_first else x.transpose(0, 1)
        memory = x if self.memory is None else self.memory(x)
        out, weights = self.attention(x, memory, memory, key_padding_mask=mask, need_weights=self.need_weights)
        out = out if self.attention.batch_first else out.transpose(0, 1)
        return out if weights is None else torch.cat([out.flatten(1), weights.flatten(1)], dim=1)


ATTENTION: dict[str, dict[str, Any]] = {
    "batch first": {"batch_first": True},
    "sequence first": {},
    "sequence first with weights": {"need_weights": True},
    "without bias": {"bias": False, "batch_first": True},
    "cross": {"d_memory": 6, "batch_first": True, "need_weights": True},
    "cross with other sizes": {"d_memory": 4, "kdim": 4, "vdim": 4},
    "bias of keys and values": {"add_bias_kv": True, "add_zero_attn": True, "batch_first": True},
    "bias of keys and values, sequence first": {"add_bias_kv": True, "masked": True},
    "key padding": {"masked": True, "batch_first": True, "need_weights": True},
}


@pytest.mark.parametrize("case", ATTENTION)
def test_attention(case: str) -> None:
    check_rule(lambda: shaken(Attention(**ATTENTION[case])), randn(5, 4, 6))


class DecoderLayer(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.memory, self.layer = nn.Linear(6, 6), nn.TransformerDecoderLayer(6, 2, 8, **options)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x, self.memory(x))
        return out


class SequenceFirst(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x.transpose(0, 1))
        return out.transpose(0, 1)


def encoder(**options: Any) -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, 8, **options), 2, enable_nested_tensor=False)


TRANSFORMERS: dict[str, Callable[..., nn.Module]] = {
    "encoder layer": lambda **options: nn.TransformerEncoderLayer(6, 2, 8, **options),
    "encoder": encoder,
    "decoder layer": DecoderLayer,
}


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_transformer(kind: str, batch_first: bool, norm_first: bool) -> None:
    def build() -> nn.Module:
        model = TRANSFORMERS[kind](norm_first=norm_first, batch_first=batch_first)
        return shaken(model if batch_first else SequenceFirst(model))

    check_rule(build, randn(5, 4, 6))


class VisionTransformer(nn.Module):
    """Class token, positional embedding, layer scale; blocks in a ModuleList."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 6, 4, stride=4)
        self.token, self.positions = nn.Parameter(torch.zeros(1, 1, 6)), nn.Parameter(torch.zeros(1, 5, 6))
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(6, 2, 8, batch_first=True) for _ in range(2))
        self.scales = nn.ParameterList(torch.ones(6) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.positions
        for block, scale in zip(self.blocks, self.scales, strict=True):
            x = x + scale * block(x)
        out: Tensor = self.head(self.norm(x)[:, 0])
        return out


def test_vision_transformer() -> None:
    check_rule(lambda: shaken(VisionTransformer()), randn(5, 1, 8, 8))


class LanguageModel(nn.Module):
    """The output layer is the embedding; one linear layer has two names."""

    def __init__(self, *, transposed: bool) -> None:
        super().__init__()
        self.embedding, self.first = nn.Embedding(13, 6), nn.Linear(6, 6)
        self.second, self.transposed = self.first, transposed
        self.head = nn.Linear(6, 13, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.second(torch.tanh(self.first(self.embedding(x))))
        out: Tensor = hidden @ self.embedding.weight.T if self.transposed else self.head(hidden)
        return out


@pytest.mark.parametrize("transposed", [False, True])
def test_tied_weights_with_their_cross_terms(transposed: bool) -> None:
    check_rule(lambda: LanguageModel(transposed=transposed), tokens(5, 4))


class HuggingFaceConv1D(nn.Module):
    """As transformers writes it: the weight lies transposed."""

    def __init__(self, n_out: int, n_in: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(n_in, n_out)), nn.Parameter(torch.randn(n_out))

    def forward(self, x: Tensor) -> Tensor:
        size = (*x.shape[:-1], len(self.bias))
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(size)


def test_the_transposed_linear_layer_of_hugging_face() -> None:
    check_rule(lambda: nn.Sequential(HuggingFaceConv1D(4, 6), nn.Tanh(), HuggingFaceConv1D(2, 4)), randn(5, 3, 6))


def test_a_model_of_hugging_face() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=13, n_positions=8, n_embd=8, n_layer=1, n_head=2)

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = transformers.GPT2LMHeadModel(config)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.model(x, use_cache=False).logits
            return out

    check_rule(Logits, tokens(5, 4))


def weight_norm_of_old(layer: nn.Module) -> nn.Module:
    with pytest.warns(FutureWarning, match="weight_norm"):
        return nn.utils.weight_norm(layer)


PARAMETRIZED: dict[str, tuple[Factory, Tensor]] = {
    "weight norm": (lambda: parametrizations.weight_norm(nn.Linear(6, 4)), randn(5, 3, 6)),
    "weight norm of a convolution": (lambda: parametrizations.weight_norm(nn.Conv1d(2, 4, 3)), randn(5, 2, 6)),
    "weight norm of old": (lambda: weight_norm_of_old(nn.Linear(6, 4)), randn(5, 6)),
    "spectral norm": (lambda: parametrizations.spectral_norm(nn.Linear(6, 4)), randn(5, 6)),
    "spectral norm of a convolution": (lambda: parametrizations.spectral_norm(nn.Conv2d(2, 4, 2)), randn(5, 2, 3, 3)),
    "orthogonal": (lambda: parametrizations.orthogonal(nn.Linear(6, 6)), randn(5, 6)),
    "orthogonal by the Cayley map": (
        lambda: parametrizations.orthogonal(nn.Linear(6, 6), orthogonal_map="cayley"),
        randn(5, 6),
    ),
}


@pytest.mark.parametrize("case", PARAMETRIZED)
def test_parametrization(case: str) -> None:
    check_rule(*PARAMETRIZED[case])


class LoraLinear(nn.Module):
    """A frozen layer and a trained product of low rank."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(6, 5)
        self.lora_a, self.lora_b = nn.Parameter(torch.randn(2, 6)), nn.Parameter(torch.randn(5, 2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x) + 0.5 * functional.linear(functional.linear(x, self.lora_a), self.lora_b)
        return out


def test_adapters_alone_are_tracked() -> None:
    task = ReadoutTask(lambda: nn.Sequential(LoraLinear(), nn.Tanh(), nn.Linear(5, 3)), torch.float64)
    coverage = check_against_autograd(task, batch_of(randn(5, 3, 6).double()), 1e-10, tracked="*lora_*")
    assert routes(coverage) == {"0.lora_a": "rule", "0.lora_b": "rule"}


def test_adapters_of_peft() -> None:
    peft = pytest.importorskip("peft")

    def build() -> nn.Module:
        model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
        adapted: nn.Module = peft.get_peft_model(model, peft.LoraConfig(target_modules=["0", "2"], r=2))
        return shaken(adapted)

    coverage = check_against_autograd(
        ReadoutTask(build, torch.float64), batch_of(randn(5, 6).double()), 1e-10, tracked="*lora_*"
    )
    assert len(coverage.routes) == 4
    require_rules(coverage)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own, when the compiler is imported
@pytest.mark.parametrize("whole", [True, False])
def test_compiled_models_run_as_they_are_written(whole: bool) -> None:
    def build() -> nn.Module:
        layer = nn.Linear(6, 4)
        if not whole:
            layer.compile()
        model = nn.Sequential(layer, nn.Tanh(), nn.Linear(4, 2))
        return cast(nn.Module, torch.compile(model)) if whole else model

    check_rule(build, randn(5, 6))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.PReLU(8),
        nn.Conv2d(8, 8, 3, groups=4, stride=2),
        nn.BatchNorm2d(8),
        nn.ConvTranspose2d(8, 2, 2),
    )


@pytest.mark.parametrize("inputs", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("model", [torch.channels_last, torch.contiguous_format])
def test_channels_last(model: torch.memory_format, inputs: torch.memory_format) -> None:
    def build() -> nn.Module:
        built: Any = convolutional()
        return cast(nn.Module, built.to(memory_format=model))

    check_rule(build, randn(5, 3, 6, 5).contiguous(memory_format=inputs))


class Checkpointed(nn.Module):
    """Recomputes its middle in the backward pass, if asked to."""

    def __init__(self, use_reentrant: bool | None) -> None:
        super().__init__()
        self.use_reentrant = use_reentrant
        self.before, self.after = nn.Linear(6, 4), nn.Linear(4, 2)
        self.middle = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.LayerNorm(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        if self.use_reentrant is None:
            x = self.middle(x)
        else:
            x = checkpoint(self.middle, x, use_reentrant=self.use_reentrant)
        out: Tensor = self.after(x)
        return out


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing(use_reentrant: bool) -> None:
    task = ReadoutTask(lambda: Checkpointed(use_reentrant), torch.float64)
    plain = ReadoutTask(lambda: Checkpointed(None), torch.float64)
    require_rules(check_against_autograd(task, batch_of(randn(5, 3, 6).double()), 1e-10, oracle=plain))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.conv, self.norm = nn.Linear(6, 6), nn.Conv1d(2, 2, 3, padding=1), nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = self.conv(torch.tanh(self.linear(self.norm(x))))
        return x


def test_modules_called_several_times() -> None:
    check_rule(Twice, randn(5, 2, 6))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_scripted_part_is_right_by_the_fallback() -> None:
    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(6, 4), torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.Tanh())), nn.Linear(4, 2)
        )

    coverage = check_against_autograd(ReadoutTask(build, torch.float64), batch_of(randn(5, 6).double()), 1e-10)
    taken = routes(coverage)
    assert [name for name, how in taken.items() if how != "rule"] == ["1.0.weight", "1.0.bias"]


class InOwnPrecision(nn.Module):
    """Inputs in the precision of the weights, outputs in float32."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(next(self.parameters()).dtype) if x.is_floating_point() else x
        out: Tensor = self.inner(x).float()
        return out


MODELS: dict[str, tuple[Factory, Tensor]] = {
    "convolutional": (convolutional, randn(5, 3, 6, 5)),
    "transformer": (lambda: nn.TransformerEncoderLayer(8, 2, 8, batch_first=True), randn(5, 4, 8)),
    "tied": (lambda: LanguageModel(transposed=False), tokens(5, 4)),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", MODELS)
def test_half_precision_models_are_as_good_as_their_own_backward_pass(case: str, dtype: torch.dtype) -> None:
    build, inputs = MODELS[case]
    half = ReadoutTask(lambda: InOwnPrecision(build().to(dtype)), dtype)
    full = ReadoutTask(lambda: InOwnPrecision(build().to(dtype).float()))
    inputs = inputs.to(dtype).float() if inputs.is_floating_point() else inputs
    # A value is rounded once an operation, some ten operations on the way there and back.
    require_rules(check_against_autograd(half, batch_of(inputs), 10 * torch.finfo(dtype).eps, oracle=full))


def test_squared_norms_beyond_half_precision_are_finite() -> None:
    """The gradient is about 2e4 long; float16 ends at 6.5e4, and a sum of 4096 terms there stalls."""
    half = ReadoutTask(lambda: InOwnPrecision(nn.Linear(1, 1, bias=False).half()), torch.float16)
    full = ReadoutTask(lambda: InOwnPrecision(nn.Linear(1, 1, bias=False).half().float()))
    batch = batch_of(torch.full((2, 4096, 1), 10.0))
    check_against_autograd(half, batch, 10 * torch.finfo(torch.float16).eps, oracle=full)
