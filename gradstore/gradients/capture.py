"""Capture: every operation that reads a tracked parameter, and the gradient that came back to its output.

Operations and not modules, because a parameter is what an operation reads: multi-head attention's packed weights, an
embedding that is also the output layer, a class token, weight norm and Hugging Face's `Conv1D` need no case of their
own. A tensor computed from parameters alone (`weight.T`, a chunk, a parametrization) is *derived*: operations that
read it are captured like the parameter's own.

Gradient edges instead of output tensors: an in-place operation after the layer (`ReLU(inplace=True)`) would make the
tensor mean something else, the edge stays where the operation ended. `autograd.grad` to those edges alone forms no
weight gradient and stops at the first of them.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from gradstore.gradients.coverage import Layout
from gradstore.gradients.layout import common_layout, find_layout
from gradstore.gradients.scattered import Scattered, tensors_in

_READ_PACKED = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
"""Their rules know whose the steps of a packed sequence are."""

_LONGEST_KEY = 300

Layouts = dict[str, Layout | None]
"""By operation (`Operation.key`): where its output holds the examples; None where it holds none, being derived."""


@dataclass(frozen=True)
class Known:
    """A tracked parameter, or a tensor derived from some."""

    key: str
    tensor: Tensor
    sources: Mapping[str, nn.Parameter]
    """The parameters that it is computed from; of a parameter, itself."""

    @property
    def is_parameter(self) -> bool:
        return self.key in self.sources


@dataclass(frozen=True)
class Operation:
    """One executed operation that read known tensors and examples."""

    name: str
    key: str
    known: tuple[Known, ...]
    layout: Layout
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    edges: tuple[GradientEdge | None, ...]
    """One a tensor among the outputs; None where no gradient can come back."""
    versions: tuple[tuple[Tensor, int], ...]
    dtype: torch.dtype
    """Of its output: under autocast coarser than the parameters'."""
    order: Tensor | None
    """For a packed sequence: which example each of its sequences belongs to."""

    @property
    def nodes(self) -> list[Node]:
        """Of the autograd graph: those that made its outputs."""
        return list(dict.fromkeys(edge.node for edge in self.edges if edge is not None))

    @property
    def sources(self) -> Sequence[str]:
        """Names of the parameters that it read, or that what it read is computed from."""
        return [name for known in self.known for name in known.sources]

    def require_unchanged(self) -> None:
        if any(tensor._version != version for tensor, version in self.versions):
            raise InputChangedError(self)


Grads = tuple[Tensor | None, ...]
"""Of the summed losses with respect to each output of an operation; None means zero."""

Take = Callable[[Operation, Grads], None]
"""Uses the gradients of one operation."""


class InputChangedError(RuntimeError):
    """An in-place operation overwrote what an operation had read."""

    def __init__(self, operation: Operation) -> None:
        super().__init__(f"the input of {operation.name} is changed in place after it was read")
        self.sources = operation.sources


class UnseenOperationError(RuntimeError):
    """The model took a way that it did not take when the layouts were found."""

    def __init__(self, key: str, sources: Sequence[str]) -> None:
        super().__init__(f"{key} was not executed when the layouts were found")
        self.sources = sources


@dataclass
class Recorder:
    """What one forward pass does with the tracked parameters."""

    parameters: Mapping[str, nn.Parameter]
    n_examples: int
    layouts: Layouts
    ignored: Set[str] = frozenset()
    """Parameters whose gradients are taken another way."""
    period: int | None = None
    """Set while layouts are being found: the examples repeat with this period."""
    operations: list[Operation] = field(default_factory=list)
    known: dict[int, Known] = field(default_factory=dict)
    order: Tensor | None = None
    scattered: Scattered = field(default_factory=Scattered)

    def __post_init__(self) -> None:
        self.known = {id(p): Known(name, p, {name: p}) for name, p in self.parameters.items()}

    def see(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """Take note of an operation if it read something known."""
        if not isinstance(output, Tensor | tuple | list) and name != "__setitem__":
            return  # a size, a flag
        self.scattered.follow(name, args, kwargs, output)
        found = self._known_among((*args, *kwargs.values()) if kwargs else args)
        if not found:
            return
        sources = {name: parameter for known in found for name, parameter in known.sources.items()}
        # A write into a slice returns nothing: its result is the tensor that was written to.
        outputs = list(tensors_in([args[0] if name == "__setitem__" else output]))
        if sources.keys() <= self.ignored or not any(o.requires_grad for o in outputs):
            return
        scattered = name not in _READ_PACKED and self.scattered.holds((*args, *kwargs.values()))
        name = f"{name} on rows chosen by value" if scattered else name
        key = _key(f"{name}({', '.join(k.key for k in found)}):{outputs[0].dim()}")
        if self.period is not None:
            telling, witnesses = self._telling(name, outputs, (*args, *kwargs.values()))
            found_layout = find_layout(telling, self.n_examples, self.period, witnesses)
            layout = Layout(0) if scattered else found_layout
            self.layouts[key] = common_layout(self.layouts.get(key, layout), layout)
        if key not in self.layouts:
            raise UnseenOperationError(key, list(sources))
        layout = self.layouts[key]
        if layout is None:
            self._derive(key, sources, outputs)
            return
        edges = tuple(get_gradient_edge(o) if o.requires_grad else None for o in outputs)
        versions = tuple((t, t._version) for t in tensors_in([*args, *kwargs.values()]))
        order = self.order if name in _READ_PACKED else None
        self.operations.append(
            Operation(name, key, tuple(found), layout, args, kwargs, edges, versions, outputs[0].dtype, order)
        )

    def _telling(
        self, name: str, outputs: Sequence[Tensor], arguments: tuple[Any, ...]
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """The tensor that shows where an operation holds the examples, and what it is made from.

        The outputs of a recurrent layer do not where its input is packed; its last states [layer, example, …] do, once
        they are back in the order that packing sorted by length.
        """
        witnesses = [t for t in tensors_in(arguments) if id(t) not in self.known]
        if name not in _READ_PACKED:
            return outputs[0], witnesses
        if self.order is None:
            return outputs[1], witnesses
        return outputs[1].index_select(1, self.order.argsort()), []

    def _known_among(self, values: Iterable[Any]) -> list[Known]:
        found = []
        for value in values:
            known = self.known.get(id(value))
            if known is not None:
                found.append(known)
            elif type(value) is tuple or type(value) is list:
                found += self._known_among(value)
        return found

    def _derive(self, key: str, sources: Mapping[str, nn.Parameter], outputs: Sequence[Tensor]) -> None:
        for number, output in enumerate(outputs):
            if output.requires_grad and id(output) not in self.known:  # `p.contiguous()` may be `p` itself
                self.known[id(output)] = Known(f"{key}[{number}]", output, sources)


def _key(text: str) -> str:
    """Chains of derived tensors have long descriptions; the hash of one names it as well."""
    return (
        text
        if len(text) <= _LONGEST_KEY
        else f"{text[:40]}…{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"
    )


class _Mode(TorchFunctionMode):
    """Shows every torch function to the recorder."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.multi_head_attention_forward:
            with self:  # what it does inside is what is recorded
                return _attention_in_the_open(*args, **kwargs)
        output = func(*args, **kwargs)
        self._recorder.see(getattr(func, "__name__", ""), args, kwargs, output)
        return output


def _without_dispatch(function: Any) -> Callable[..., Any]:
    """The same function, not asking whether somebody overrides it: its own operations are then seen instead."""
    scope = {**function.__globals__, "has_torch_function": lambda *args: False}
    copy = types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


_attention_in_the_open = _without_dispatch(functional.multi_head_attention_forward)


def record(recurrent: Iterable[nn.RNNBase], recorder: Recorder, forward: Callable[[], Tensor]) -> Tensor:
    """Run `forward` and let `recorder` see its operations; returns the losses with their graph.

    Args:
        recurrent: the model's recurrent layers, whose input may be a packed sequence.
    """
    handles = [module.register_forward_pre_hook(_order_of_packed(recorder)) for module in recurrent]
    try:
        with torch.enable_grad(), plain_evaluation(), _Mode(recorder):
            return forward()
    finally:
        for handle in handles:
            handle.remove()


def backward(recorder: Recorder, losses: Float[Tensor, " example"], take: Take) -> None:
    """Hand over every recorded operation with the gradients of the summed losses at its outputs.

    Each is handed over as soon as its gradients are there, the last one first, and let go: what the pass holds shrinks
    as it goes back, as it does in a training step (for a transformer, two thirds of what all gradients would take).
    The pass ends where nothing recorded lies further back; what it never reaches comes last, with gradients of None.
    """
    waiting: dict[int, Operation] = dict(enumerate(recorder.operations))
    recorder.operations.clear()
    ends = _ends(waiting) if losses.requires_grad else {}
    handles = [
        node.register_prehook(functools.partial(_hand_over, waiting, number, take))
        for number, operation in waiting.items()
        if number not in ends
        for node in operation.nodes[:1]
    ]
    try:
        edges = [edge for of_one in ends.values() for edge in of_one if edge is not None]
        found = iter(torch.autograd.grad(losses, edges, torch.ones_like(losses), allow_unused=True) if edges else ())
        at_ends = {number: [None if edge is None else next(found) for edge in ends[number]] for number in ends}
    finally:
        for handle in handles:
            handle.remove()
    for number in sorted(waiting, reverse=True):
        operation = waiting.pop(number)
        take(operation, tuple(at_ends.pop(number, [None] * len(operation.edges))))


def _hand_over(waiting: dict[int, Operation], number: int, take: Take, grads: Grads) -> None:
    operation = waiting.pop(number)
    take(operation, tuple(None if edge is None else grads[edge.output_nr] for edge in operation.edges))


def _ends(operations: Mapping[int, Operation]) -> dict[int, tuple[GradientEdge | None, ...]]:
    """The edges that a pass must be asked for, by operation: it then comes by all others.

    Those behind which nothing is recorded; and of operations whose outputs were made by several nodes of the graph, for
    a single moment when all of their gradients are there has no hook.
    """
    nodes = {node for operation in operations.values() for node in operation.nodes}
    passed = _with_one_behind(nodes)
    return {
        number: operation.edges
        for number, operation in operations.items()
        if len(operation.nodes) != 1 or operation.nodes[0] not in passed
    }


def _with_one_behind(nodes: Set[Node]) -> set[Node]:
    """Those of some nodes of a graph behind which another of them lies."""
    leads: dict[Node, bool] = {}  # whether the node, or what lies behind it, is one of them
    found = set()
    stack = list(nodes)
    while stack:
        node = stack[-1]
        behind = [following for following, _ in node.next_functions if following is not None]
        unknown = [following for following in behind if following not in leads] if node not in leads else []
        if unknown:
            stack += unknown
            continue
        stack.pop()
        if any(leads[following] for following in behind):
            leads[node] = True
            if node in nodes:
                found.add(node)
        else:
            leads[node] = node in nodes
    return found


@contextlib.contextmanager
def plain_evaluation() -> Iterator[None]:
    """Models as they are written: no compiled graphs, no fused inference paths, no recomputation.

    Gradient checkpointing saves the memory of a training step by running parts of the model twice; its re-entrant
    kind hides them from autograd. A batch here is small, so that nothing needs saving.
    """
    from torch.utils.checkpoint import CheckpointFunction

    fast_path = torch.backends.mha.get_fastpath_enabled()
    checkpointed = CheckpointFunction.apply
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        CheckpointFunction.apply = lambda run, preserve, *args: run(*args)  # type: ignore[method-assign]
        with _uncompiled():
            yield
    finally:
        CheckpointFunction.apply = checkpointed  # type: ignore[method-assign]
        torch.backends.mha.set_fastpath_enabled(fast_path)


def _uncompiled() -> Any:
    """Importing the compiler takes seconds, and a process that has not done so has compiled nothing."""
    if "torch._dynamo" not in sys.modules:
        return contextlib.nullcontext()
    return torch.compiler.set_stance("force_eager")


def _order_of_packed(recorder: Recorder) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
        packed = args[0] if args and isinstance(args[0], nn.utils.rnn.PackedSequence) else None
        recorder.order = None if packed is None else packed.sorted_indices

    return hook
