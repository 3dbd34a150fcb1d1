"""Coverage: by which route each tracked parameter's gradient is taken, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

How = Literal["rule", "vmap", "loop"]


@dataclass(frozen=True)
class Route:
    """How one parameter's per-example gradient is taken.

    `how`: an operation's `rule`; `vmap(grad)` for this parameter; or a `loop`, one example at a time.
    `detail`: the operations, or why there is no rule.
    """

    parameter: str
    n_elements: int
    how: How
    detail: str


@dataclass(frozen=True)
class Layout:
    """The axis of a tensor that holds the examples, and whether they run fastest where it holds more than them."""

    axis: int
    inner: bool = False


@dataclass(frozen=True)
class Coverage:
    """All tracked parameters, each with exactly one route: nothing is skipped."""

    routes: tuple[Route, ...]
    layouts: Mapping[str, Layout | None] = field(default_factory=dict)
    """Where each operation's output holds the examples, see `gradstore.gradients.capture.Layouts`."""

    @property
    def n_parameters(self) -> int:
        return sum(route.n_elements for route in self.routes)

    def by(self, how: How) -> list[str]:
        """Names of the parameters that take this route."""
        return [route.parameter for route in self.routes if route.how == how]

    def moved(self, parameters: Iterable[str], how: How, detail: str) -> Coverage:
        """The same coverage with some parameters sent another way."""
        names = set(parameters)
        routes = [Route(r.parameter, r.n_elements, how, detail) if r.parameter in names else r for r in self.routes]
        return replace(self, routes=tuple(routes))

    def summary(self) -> list[tuple[str, int, int]]:
        """(route, parameters, elements), largest first."""
        elements: Counter[str] = Counter()
        tensors: Counter[str] = Counter()
        for route in self.routes:
            label = route.detail if route.how == "rule" else f"{route.how}: {route.detail}"
            elements[label] += route.n_elements
            tensors[label] += 1
        return [(label, tensors[label], count) for label, count in elements.most_common()]

    def to_json(self) -> dict[str, Any]:
        layouts = {key: layout and [layout.axis, layout.inner] for key, layout in self.layouts.items()}
        return {"routes": [asdict(route) for route in self.routes], "layouts": layouts}

    @classmethod
    def from_json(cls, data: Any) -> Coverage:
        """Stores of format 1 hold the routes alone; their layouts are found again when they are needed."""
        if not isinstance(data, Mapping):
            data = {"routes": data, "layouts": {}}
        layouts = {key: layout and Layout(*layout) for key, layout in data["layouts"].items()}
        return cls(tuple(Route(**route) for route in data["routes"]), layouts)
