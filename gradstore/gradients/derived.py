"""From the gradient of a derived tensor (`weight.T`, weight norm's product) back to the parameters it is made from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gradstore.gradients.forms import Form
from gradstore.sketch import matrix_shape


@dataclass(frozen=True)
class PulledBack(Form):
    """The chain rule from `derived`, whose gradients are `form`, to `parameter`."""

    derived: Tensor
    parameter: Tensor
    form: Form

    @property
    def bytes_each(self) -> int:
        return self.form.bytes_each + self.parameter.numel() * self.derived.element_size()

    def matrices(self, examples: slice, *, swapped: bool = False) -> Float[Tensor, "example row column"]:
        grads = self.form.matrices(examples)
        dtype = grads.dtype
        along = grads.reshape(-1, *self.derived.shape).to(self.derived.dtype)
        found = self._pulled_back(along)
        values = found.to(dtype).reshape(len(found), *matrix_shape(tuple(self.parameter.shape)))
        return values.mT if swapped else values

    def _pulled_back(self, along: Float[Tensor, "example ..."]) -> Float[Tensor, "example ..."]:
        def pull(grads: Tensor, *, batched: bool) -> Tensor:
            with torch.enable_grad():
                found: Tensor = torch.autograd.grad(
                    self.derived,
                    self.parameter,
                    grads,
                    retain_graph=True,
                    is_grads_batched=batched,
                    materialize_grads=True,
                )[0]
            return found

        try:
            return pull(along, batched=True)
        except RuntimeError:  # an operator that vmap cannot take, such as a sparse embedding's
            return torch.stack([pull(grads, batched=False).to_dense() for grads in along])
