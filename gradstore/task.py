"""What a user supplies: a model, one loss an example, a latent, and which parameters to track.

Why noise is an argument: a stochastic loss (the ELBO) must give an example the same gradient whatever batch,
worker or machine evaluates it. Torch's global generator cannot promise that, so the loss draws from `Noise`,
a counter-based generator keyed by (seed, example id, draw). It is written in plain integer tensor operations,
which makes it run under `torch.func.vmap` and on any device.
"""

from __future__ import annotations

import fnmatch
import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gradstore.errors import ParametersError
from gradstore.sketch.counter import hash_words, to_unit_interval


def example_keys(ids: Iterable[str]) -> Int[Tensor, " example"]:
    """64-bit keys of example ids: the first eight bytes of BLAKE2b, the same on every machine.

    >>> example_keys(["a", "b"]).shape
    torch.Size([2])
    """
    digests = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in ids]
    return torch.tensor([int.from_bytes(digest, "little", signed=True) for digest in digests], dtype=torch.int64)


@dataclass(frozen=True)
class Batch:
    """Examples handed to a Task, all on one device.

    `inputs` is [B, *example_shape]: float32, bytes (uint8) already scaled to 0..1, integers as int64.
    `labels` is [B] int64 or None. `keys` is [B] int64, from `example_keys`.
    """

    inputs: Tensor
    labels: Tensor | None
    keys: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def to(self, device: torch.device | str) -> Batch:
        labels = None if self.labels is None else _moved(self.labels, device)
        return Batch(_moved(self.inputs, device), labels, _moved(self.keys, device))

    def __getitem__(self, rows: slice) -> Batch:
        return Batch(self.inputs[rows], None if self.labels is None else self.labels[rows], self.keys[rows])


def _moved(values: Tensor, device: torch.device | str) -> Tensor:
    """To a GPU through pinned memory: the caller need not wait until it has arrived."""
    if torch.device(device).type != "cuda" or values.is_cuda:
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


class Noise:
    """Random numbers that belong to the examples of a batch, not to the batch.

    The same (seed, example key, draw, stream) always gives the same numbers. Two calls with the same `stream`
    and shape give the same numbers: use another `stream` for an independent draw within one loss.
    """

    def __init__(self, keys: Int[Tensor, " example"], seed: int, draw: int = 0) -> None:
        self._keys, self._seed, self._draw = keys, seed, draw

    def uniform(self, *shape: int, stream: int = 0) -> Float[Tensor, "example ..."]:
        """[B, *shape] float64, uniform on the open interval (0, 1)."""
        count = math.prod(shape)
        counters = torch.arange(count, device=self._keys.device)
        words = hash_words(self._seed, self._draw, stream, self._keys[:, None], counters)
        return to_unit_interval(words).reshape(-1, *shape)

    def normal(self, *shape: int, stream: int = 0) -> Float[Tensor, "example ..."]:
        """[B, *shape] float32, standard normal (Box–Muller in float64, then rounded)."""
        half = -(-math.prod(shape) // 2)
        uniform = self.uniform(2, half, stream=stream)
        radius, angle = torch.sqrt(-2.0 * torch.log(uniform[:, 0])), 2.0 * math.pi * uniform[:, 1]
        pairs = torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)
        return pairs[:, : math.prod(shape)].to(torch.float32).reshape(-1, *shape)


class Task(ABC):
    """A model and its per-example loss. Subclass it for your own model and pass `--model module:Subclass`.

    `encoder` and `decoder` name the parameters that `--parameters encoder` and `--parameters decoder` track
    (patterns, see `tracked_parameters`). `needs_labels` says that `loss` reads `batch.labels`; `latent` must not.
    A task that tells classes apart may also have `predict`, as `Predicting` says.
    """

    encoder: ClassVar[str] = "encoder.*"
    decoder: ClassVar[str] = "decoder.*"
    needs_labels: ClassVar[bool] = False

    @abstractmethod
    def build(self) -> nn.Module:
        """A new model, with any weights: a checkpoint is loaded into it afterwards."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Float[Tensor, " example"]:
        """[B] losses, one an example, none depending on the other examples of the batch."""

    @abstractmethod
    def latent(self, model: nn.Module, batch: Batch) -> Float[Tensor, "example d_latent"]:
        """[B, d_latent] representation in which neighbours are searched."""


@runtime_checkable
class Predicting(Protocol):
    """A Task that also has `predict`: the store then keeps what the model says of every example's class."""

    def predict(self, model: nn.Module, batch: Batch) -> Float[Tensor, "example n_classes"]:
        """[B, n_classes] logits. `batch.labels` are there but must not be read."""


def tracked_parameters(task: Task, model: nn.Module, pattern: str) -> dict[str, nn.Parameter]:
    """The parameters that `pattern` names, in the model's order; a tied parameter appears once.

    Args:
        pattern: `all`, `encoder` or `decoder` (what `task.encoder` and `task.decoder` say), or shell patterns over
            parameter names separated by commas, such as `encoder.*,head.weight`.

    Raises:
        ParametersError: the pattern names no parameter.
    """
    words = {"all": "*", "encoder": task.encoder, "decoder": task.decoder}
    globs = words.get(pattern, pattern).split(",")
    named = dict(model.named_parameters())
    found = {name: p for name, p in named.items() if _matches(name, globs)}
    if not found:
        raise ParametersError(
            f"--parameters {pattern!r} names none of the model's {len(named)} parameters. "
            f"They are called {', '.join(list(named)[:6])}{', …' if len(named) > 6 else ''}. "
            "Use all, encoder, decoder, or shell patterns separated by commas."
        )
    return found


def require_distinct_sets(task: Task, model: nn.Module, patterns: Sequence[str]) -> None:
    """Every pattern names parameters, and no two of them the same.

    Raises:
        ParametersError: says which.
    """
    seen: dict[frozenset[str], str] = {}
    for pattern in patterns:
        names = frozenset(tracked_parameters(task, model, pattern))
        if names in seen:
            raise ParametersError(
                f"--parameters {seen[names]!r} and --parameters {pattern!r} name the same {len(names)} parameters. "
                "Leave one of them out."
            )
        seen[names] = pattern


def _matches(name: str, globs: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, glob.strip()) for glob in globs)
