"""Recurrent layers step by step: one direction of one layer forward through time, and back.

Autograd would form the weights' gradients, summed over the examples; what a rule needs are the gradients at the gates,
and to get there is what a direction does by hand. Measured on two layers of 64 units, 140 steps, 64 examples, one
thread: both ways through both layers take .26 of a training step of the autoencoder around them (.7 in torch alone,
without `recurrent_compiled`).

Gates lie in one buffer [step, row, blocks * hidden]: first what the inputs add to them, then, a step at a time, their
values, and on the way back their gradients. Rows are sequences, the longest first, as a `PackedSequence` has them:
those in progress at a step are its first ones, so that no mask is needed. What a row never reaches stays zero.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Weights(NamedTuple):
    """Of one direction of one layer; the gates are blocks of rows, in torch's order."""

    ih: Float[Tensor, "gate input"]
    hh: Float[Tensor, "gate hidden"]
    bias_ih: Float[Tensor, " gate"]
    bias_hh: Float[Tensor, " gate"]


class Direction(ABC):
    """One direction of one layer: `run` through time, then `pull_back` from the gradients at what it put out."""

    first_recurrent: ClassVar[int] = 0
    "The block from which on the last state adds to the gates."
    passes_by: ClassVar[bool] = False
    "Whether a part of the state reaches the next one beside the gates."

    def __init__(
        self,
        inputs: Float[Tensor, "step row input"],
        weights: Weights,
        initial: Sequence[Float[Tensor, "row hidden"]],
        batch_sizes: Sequence[int],
        *,
        backwards: bool,
    ) -> None:
        """`batch_sizes`: how many rows are in progress at each step. `initial`: h, and c where there is one."""
        n_steps, n_rows = inputs.shape[:2]
        self.inputs, self.weights = inputs, weights
        self._batch_sizes, self._backwards = batch_sizes, int(backwards)
        self._recurrent = slice(self.first_recurrent * weights.hh.shape[1], None)
        self.gates = self._projected(inputs.reshape(n_steps * n_rows, -1)).view(n_steps, n_rows, -1)
        self._set_states([state.expand(n_steps + 1, -1, -1).clone() for state in initial])

    @property
    def outputs(self) -> Float[Tensor, "step row hidden"]:
        """States h after every step."""
        return self._h[:-1] if self._backwards else self._h[1:]

    @property
    def earlier(self) -> Float[Tensor, "step row hidden"]:
        """States h before every step."""
        return self._h[1:] if self._backwards else self._h[:-1]

    @property
    def input_delta(self) -> Float[Tensor, "step row gate"]:
        """After `pull_back`: gradients at what the inputs add to the gates, in torch's order."""
        return self.gates

    @property
    def state_delta(self) -> Float[Tensor, "step row gate"]:
        """After `pull_back`: gradients at what the last state adds to the gates."""
        return self.gates[:, :, self._recurrent]

    def run(self) -> None:
        """Forward through time."""
        weight = self.weights.hh.T.contiguous()
        for t, n_rows in self._order():
            self.gates[t, :n_rows, self._recurrent].addmm_(self.earlier[t, :n_rows], weight)
            self._advance(t, n_rows)
        for t, n_rows in enumerate(self._batch_sizes):
            if n_rows < self.gates.shape[1]:
                self.gates[t, n_rows:] = 0

    def pull_back(
        self, grad_outputs: Float[Tensor, "step row hidden"] | None, grad_final: Sequence[Float[Tensor, "row hidden"]]
    ) -> None:
        """Back through time; `grad_final` are the gradients at the last h (and c) of each row."""
        grads = [grad.clone(memory_format=torch.contiguous_format) for grad in grad_final]
        self._set_grads(grads)
        for t, n_rows in reversed(list(self._order())):
            grad = grads[0][:n_rows]
            if grad_outputs is not None:
                grad.add_(grad_outputs[t, :n_rows])
            self._retreat(t, n_rows)
            grad.addmm_(self.gates[t, :n_rows, self._recurrent], self.weights.hh, beta=int(self.passes_by))

    def _order(self) -> Iterator[tuple[int, int]]:
        """Steps as they are taken, each with the rows in progress."""
        steps = list(enumerate(self._batch_sizes))
        return reversed(steps) if self._backwards else iter(steps)

    def _projected(self, inputs: Float[Tensor, "position input"]) -> Float[Tensor, "position gate"]:
        """What inputs and biases add to the gates."""
        return torch.addmm(self.weights.bias_ih + self.weights.bias_hh, inputs, self.weights.ih.T)

    def _set_states(self, states: Sequence[Float[Tensor, "boundary row hidden"]]) -> None:
        """States before the first step, between steps and after the last one."""
        (self._h,) = states

    def _set_grads(self, grads: Sequence[Float[Tensor, "row hidden"]]) -> None:
        """Gradients at the states, updated in place while going back."""
        (self._grad_h,) = grads

    @abstractmethod
    def _advance(self, t: int, n_rows: int) -> None:
        """From the sums at step `t` to gate values and the next states."""

    @abstractmethod
    def _retreat(self, t: int, n_rows: int) -> None:
        """From gate values at step `t` to gradients, and of the states' gradients what passes by the gates."""

    def _around(self, states: Tensor, t: int, n_rows: int) -> tuple[Tensor, Tensor]:
        """The states before and after a step."""
        return states[t + self._backwards, :n_rows], states[t + 1 - self._backwards, :n_rows]


class TanhRNN(Direction):
    """h' = tanh(W x + U h + b)."""

    def _advance(self, t: int, n_rows: int) -> None:
        torch.tanh(self.gates[t, :n_rows], out=self._around(self._h, t, n_rows)[1])

    def _retreat(self, t: int, n_rows: int) -> None:
        self.gates[t, :n_rows] = _through_tanh(self._grad_h[:n_rows], self._around(self._h, t, n_rows)[1])


class ReluRNN(Direction):
    """h' = max(W x + U h + b, 0)."""

    def _advance(self, t: int, n_rows: int) -> None:
        torch.clamp_min(self.gates[t, :n_rows], 0, out=self._around(self._h, t, n_rows)[1])

    def _retreat(self, t: int, n_rows: int) -> None:
        torch.mul(self._grad_h[:n_rows], self.gates[t, :n_rows] > 0, out=self.gates[t, :n_rows])


class LSTM(Direction):
    """Blocks i, f, g, o: c' = f c + i g, h' = o tanh(c').

    Source: Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000.
    """

    def _set_states(self, states: Sequence[Float[Tensor, "boundary row hidden"]]) -> None:
        self._h, self._c = states
        self._tanh_c = torch.empty_like(self._c[1:])

    def _set_grads(self, grads: Sequence[Float[Tensor, "row hidden"]]) -> None:
        self._grad_h, self._grad_c = grads

    def _advance(self, t: int, n_rows: int) -> None:
        gates, tanh_c = self.gates[t, :n_rows], self._tanh_c[t, :n_rows]
        (c, next_c), (_, next_h) = self._around(self._c, t, n_rows), self._around(self._h, t, n_rows)
        i, f, g, o = gates.chunk(4, dim=1)
        gates[:, : 2 * g.shape[1]].sigmoid_()
        g.tanh_()
        o.sigmoid_()
        torch.mul(f, c, out=next_c).addcmul_(i, g)
        torch.tanh(next_c, out=tanh_c)
        torch.mul(o, tanh_c, out=next_h)

    def _retreat(self, t: int, n_rows: int) -> None:
        i, f, g, o = self.gates[t, :n_rows].chunk(4, dim=1)
        c, tanh_c = self._around(self._c, t, n_rows)[0], self._tanh_c[t, :n_rows]
        grad_h, grad_c = self._grad_h[:n_rows], self._grad_c[:n_rows]
        grad_c.add_(_through_tanh(grad_h * o, tanh_c))
        o.copy_(_through_sigmoid(grad_h * tanh_c, o))
        grad_i, grad_g, grad_f = grad_c * g, grad_c * i, grad_c * c
        grad_c.mul_(f)
        for gate, grad, through in (
            (i, grad_i, _through_sigmoid),
            (f, grad_f, _through_sigmoid),
            (g, grad_g, _through_tanh),
        ):
            gate.copy_(through(grad, gate))


class GRU(Direction):
    """r, z and n = tanh(W x + b + r m), m = U h + b'; h' = (1 - z) n + z h. Blocks n, r, z, m.

    `m` is a block of its own because r stands between it and n; torch's order is r, z, n on both sides.

    Source: Cho et al. 2014, in torch's form (r after the matrix product).
    """

    first_recurrent, passes_by = 1, True

    def _projected(self, inputs: Float[Tensor, "position input"]) -> Float[Tensor, "position gate"]:
        n_hidden = self.weights.hh.shape[1]
        bias = self.weights.bias_ih.roll(n_hidden)
        bias[n_hidden:] += self.weights.bias_hh[: 2 * n_hidden]
        gates = inputs.new_empty(len(inputs), 4 * n_hidden)
        torch.addmm(bias, inputs, self.weights.ih.roll(n_hidden, 0).T, out=gates[:, : 3 * n_hidden])
        gates[:, 3 * n_hidden :] = self.weights.bias_hh[2 * n_hidden :]
        return gates

    @property
    def input_delta(self) -> Float[Tensor, "step row gate"]:
        n_hidden = self.weights.hh.shape[1]
        return self.gates[:, :, : 3 * n_hidden].roll(-n_hidden, 2)

    def _advance(self, t: int, n_rows: int) -> None:
        n, r, z, m = self.gates[t, :n_rows].chunk(4, dim=1)
        h, next_h = self._around(self._h, t, n_rows)
        r.sigmoid_()
        z.sigmoid_()
        n.addcmul_(r, m).tanh_()
        torch.lerp(n, h, z, out=next_h)

    def _retreat(self, t: int, n_rows: int) -> None:
        n, r, z, m = self.gates[t, :n_rows].chunk(4, dim=1)
        grad_h, h = self._grad_h[:n_rows], self._around(self._h, t, n_rows)[0]
        passing = grad_h * z
        z.copy_(_through_sigmoid(grad_h * (h - n), z))
        n.copy_(_through_tanh(grad_h - passing, n))
        grad_r = n * m
        torch.mul(n, r, out=m)
        r.copy_(_through_sigmoid(grad_r, r))
        grad_h.copy_(passing)


def _through_sigmoid(grad: Tensor, value: Tensor) -> Tensor:
    return grad * (value - value * value)


def _through_tanh(grad: Tensor, value: Tensor) -> Tensor:
    return grad * (1 - value * value)
