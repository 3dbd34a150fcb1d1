"""One function a layer type: from captured calls to per-example weight gradients.

A rule is `rule(module, calls, emit)`: it reads inputs and output gradients, whose first axis holds the examples,
and hands each wanted parameter's gradient to `emit`. To add a layer, write such a function and register it;
`gradstore.testing.rule_kit` holds the tests that it must pass.
"""

from __future__ import annotations

from torch import nn

from gradstore.gradients.rules import convolution, embedding, linear, normalisation
from gradstore.gradients.rules.base import Emit, NoRuleError, Rule

RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: linear.linear,
    nn.Conv1d: convolution.convolution,
    nn.Conv2d: convolution.convolution,
    nn.Conv3d: convolution.convolution,
    nn.LayerNorm: normalisation.layer_norm,
    nn.GroupNorm: normalisation.group_norm,
    nn.BatchNorm1d: normalisation.batch_norm,
    nn.BatchNorm2d: normalisation.batch_norm,
    nn.BatchNorm3d: normalisation.batch_norm,
    nn.Embedding: embedding.embedding,
}


def rule_for(module: nn.Module) -> tuple[str, Rule] | None:
    """Name and rule of a module's type; a subclass qualifies while it keeps the layer's own forward."""
    for base in type(module).__mro__:
        if base in RULES and type(module).forward is base.forward:
            return base.__name__, RULES[base]
    return None


__all__ = ["RULES", "Emit", "NoRuleError", "Rule", "rule_for"]
