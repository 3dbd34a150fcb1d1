"""From captured operations to the forms of every parameter's gradient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Set

import torch

from gradstore.gradients.capture import Grads, Known, Operation
from gradstore.gradients.derived import PulledBack
from gradstore.gradients.forms import Form
from gradstore.gradients.rules import RULES
from gradstore.gradients.rules.base import Call, NoRuleError


class Completion:
    """Hands over each parameter among `names` that was read, once: with the forms that add up to its gradients.

    A parameter comes as soon as the last operation that reads it is taken in.
    """

    def __init__(
        self,
        operations: Iterable[Operation],
        names: Set[str],
        n_examples: int,
        dtype: torch.dtype,
        done: Callable[[str, list[Form]], None],
    ) -> None:
        """`operations`: all that will be taken in."""
        self._names, self._n_examples, self._dtype, self._done = names, n_examples, dtype, done
        self._unread = Counter(name for operation in operations for name in _wanted(operation, names))
        self._found: dict[str, list[Form]] = {}

    def take(self, operation: Operation, grads: Grads) -> None:
        """Take in an operation.

        Raises:
            NoRuleError: it has no rule, or is used in a way that its rule does not cover.
            InputChangedError: its input was overwritten afterwards.
        """
        sources = _wanted(operation, self._names)
        if sources and any(grad is not None for grad in grads):
            operation.require_unchanged()
            for known, form in _forms(Call(operation, grads, self._n_examples, self._dtype)):
                for name, part in _by_source(known, form):
                    if name in self._names:
                        self._found.setdefault(name, []).append(part)
        self._unread.subtract(sources)
        for name in sources:
            if not self._unread[name] and name in self._found:
                self._done(name, self._found.pop(name))


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
