"""From captured operations to the forms of every parameter's gradient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Set

import torch

from gradstore.gradients.capture import Capture, Known, Operation
from gradstore.gradients.derived import PulledBack
from gradstore.gradients.forms import Form
from gradstore.gradients.rules import RULES
from gradstore.gradients.rules.base import Call, NoRuleError


def completed_forms(
    captured: Capture, names: Set[str], n_examples: int, dtype: torch.dtype
) -> Iterator[tuple[str, list[Form]]]:
    """Each parameter among `names` that was read, once: the forms that add up to its gradients.

    A parameter comes as soon as the last operation that reads it is done, and operations are let go one by one: what is
    in memory shrinks as the forms are used. `captured` is empty afterwards.

    Raises:
        NoRuleError: an operation has no rule, or is used in a way that its rule does not cover.
        InputChangedError: an operation's input was overwritten afterwards.
    """
    unread = Counter(name for operation in captured.operations for name in _wanted(operation, names))
    found: dict[str, list[Form]] = {}
    while captured.operations:
        operation, grads = captured.operations.pop(), captured.grads.pop()
        sources = _wanted(operation, names)
        if sources and any(grad is not None for grad in grads):
            operation.require_unchanged()
            for known, form in _forms(Call(operation, grads, n_examples, dtype)):
                for name, part in _by_source(known, form):
                    if name in names:
                        found.setdefault(name, []).append(part)
        unread.subtract(sources)
        for name in sources:
            if not unread[name] and name in found:
                yield name, found.pop(name)


def _wanted(operation: Operation, names: Set[str]) -> list[str]:
    """In an order that is the same in every process: sums round by it."""
    return [name for name in dict.fromkeys(operation.sources) if name in names]


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
