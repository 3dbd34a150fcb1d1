"""From captured operations to the forms of every parameter's gradient."""

from __future__ import annotations

from collections.abc import Iterator, Set

import torch

from gradstore.gradients.capture import Capture, Known
from gradstore.gradients.derived import PulledBack
from gradstore.gradients.forms import Form
from gradstore.gradients.rules import RULES
from gradstore.gradients.rules.base import Call, NoRuleError


def forms_by_parameter(
    captured: Capture, names: Set[str], n_examples: int, dtype: torch.dtype
) -> dict[str, list[Form]]:
    """For each parameter among `names` that was read: the forms that add up to its gradients.

    Raises:
        NoRuleError: an operation has no rule, or is used in a way that its rule does not cover.
        InputChangedError: an operation's input was overwritten afterwards.
    """
    found: dict[str, list[Form]] = {}
    for operation, grads in zip(captured.operations, captured.grads, strict=True):
        if names.isdisjoint(operation.sources) or all(grad is None for grad in grads):
            continue
        operation.require_unchanged()
        for known, form in _forms(Call(operation, grads, n_examples, dtype)):
            for name, part in _by_source(known, form):
                if name in names:
                    found.setdefault(name, []).append(part)
    return found


def _forms(call: Call) -> Iterator[tuple[Known, Form]]:
    operation = call.operation
    known = {id(k.tensor): k for k in operation.known}
    try:
        rule = RULES.get(operation.name)
        if rule is None:
            raise NoRuleError(f"read by {operation.name}, which has no rule")
        for tensor, form in rule(call, *operation.args, **operation.kwargs):
            yield known[id(tensor)], form
    except NoRuleError as error:
        error.sources = operation.sources  # the planner sends its parameters to the fallback
        raise


def _by_source(known: Known, form: Form) -> Iterator[tuple[str, Form]]:
    if known.is_parameter:
        yield known.key, form
        return
    for name, parameter in known.sources.items():
        yield name, PulledBack(known.tensor, parameter, form)
