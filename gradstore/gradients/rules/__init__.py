"""One function an operation: from its arguments and output gradients to per-example gradients of its parameters.

A rule is `rule(call, *args, **kwargs)` with the operation's own arguments; it yields pairs of a parameter and the
form of its gradients. To add an operation, write such a function and register it under the name of the torch
function; `gradstore.testing.rule_kit` holds the tests that it must pass.
"""

from __future__ import annotations

from gradstore.gradients.rules import convolution, elementwise, embedding, linear, normalisation, recurrent
from gradstore.gradients.rules.base import Call, Found, NoRuleError, Rule

RULES: dict[str, Rule] = {
    "linear": linear.linear,
    "bilinear": linear.bilinear,
    "addmm": linear.addmm,
    "matmul": linear.matmul,
    "__matmul__": linear.matmul,
    "conv1d": convolution.convolution,
    "conv2d": convolution.convolution,
    "conv3d": convolution.convolution,
    "conv_transpose1d": convolution.transposed_convolution,
    "conv_transpose2d": convolution.transposed_convolution,
    "conv_transpose3d": convolution.transposed_convolution,
    "embedding": embedding.embedding,
    "embedding_bag": embedding.embedding_bag,
    "index_select": embedding.index_select,
    "__getitem__": embedding.getitem,
    "layer_norm": normalisation.layer_norm,
    "rms_norm": normalisation.rms_norm,
    "group_norm": normalisation.group_norm,
    "instance_norm": normalisation.instance_norm,
    "batch_norm": normalisation.batch_norm,
    "prelu": normalisation.prelu,
    "lstm": recurrent.lstm,
    "gru": recurrent.gru,
    "rnn_tanh": recurrent.rnn_tanh,
    "rnn_relu": recurrent.rnn_relu,
    "add": elementwise.add,
    "add_": elementwise.add,
    "__add__": elementwise.add,
    "__radd__": elementwise.add,
    "__iadd__": elementwise.add,
    "sub": elementwise.subtract,
    "sub_": elementwise.subtract,
    "__sub__": elementwise.subtract,
    "__rsub__": elementwise.reversed_subtract,
    "rsub": elementwise.reversed_subtract,
    "mul": elementwise.multiply,
    "__mul__": elementwise.multiply,
    "__rmul__": elementwise.multiply,
    "multiply": elementwise.multiply,
    "div": elementwise.divide,
    "divide": elementwise.divide,
    "true_divide": elementwise.divide,
    "__truediv__": elementwise.divide,
    "pow": elementwise.power,
    "__pow__": elementwise.power,
    "where": elementwise.where,
    "expand": elementwise.expand,
    "expand_as": elementwise.expand,
    "broadcast_to": elementwise.expand,
    "repeat": elementwise.repeat,
    "tile": elementwise.repeat,
}

__all__ = ["RULES", "Call", "Found", "NoRuleError", "Rule"]
