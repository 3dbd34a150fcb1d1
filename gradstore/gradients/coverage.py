"""Coverage: by which route each tracked parameter's gradient is taken, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

How = Literal["rule", "vmap", "loop"]


@dataclass(frozen=True)
class Route:
    """How one parameter's per-example gradient is taken.

    `how`: a layer's `rule`; `vmap(grad)` for this parameter; or a `loop`, one example at a time.
    """

    parameter: str
    n_elements: int
    how: How
    detail: str


@dataclass(frozen=True)
class Coverage:
    """All tracked parameters, each with exactly one route: nothing is skipped."""

    routes: tuple[Route, ...]

    @property
    def n_parameters(self) -> int:
        return sum(route.n_elements for route in self.routes)

    def by(self, how: How) -> list[str]:
        """Names of the parameters that take this route."""
        return [route.parameter for route in self.routes if route.how == how]

    def moved(self, parameters: Iterable[str], how: How, detail: str) -> Coverage:
        """The same coverage with some parameters sent another way."""
        names = set(parameters)
        return Coverage(
            tuple(Route(r.parameter, r.n_elements, how, detail) if r.parameter in names else r for r in self.routes)
        )

    def summary(self) -> list[tuple[str, int, int]]:
        """(route, parameters, elements), largest first."""
        elements: Counter[str] = Counter()
        tensors: Counter[str] = Counter()
        for route in self.routes:
            label = route.detail if route.how == "rule" else f"{route.how}: {route.detail}"
            elements[label] += route.n_elements
            tensors[label] += 1
        return [(label, tensors[label], count) for label, count in elements.most_common()]

    def to_json(self) -> list[dict[str, Any]]:
        return [asdict(route) for route in self.routes]

    @classmethod
    def from_json(cls, routes: Iterable[Mapping[str, Any]]) -> Coverage:
        return cls(tuple(Route(**route) for route in routes))
