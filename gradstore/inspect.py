"""What a store holds, how it was made and how far its build has come: from the store alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from gradstore.gradients.coverage import Coverage
from gradstore.pace import AtWork, Pace, Slow, at_work, pace, slow_shards
from gradstore.store import Store
from gradstore.store.forgotten import forgotten_rows


@dataclass(frozen=True)
class Status:
    """How far a build has come."""

    n_examples: int
    n_checkpoints: int
    n_units: int
    """Shards over all checkpoints."""
    n_committed: int
    committed_by_checkpoint: tuple[int, ...]
    n_bytes: int
    """All files where the store lies."""
    complete: bool
    builders: tuple[AtWork, ...] = ()
    """Those at work now, on this machine or another."""
    pace: Pace | None = None
    """None while nobody builds."""
    slow: tuple[Slow, ...] = ()
    """Shards that take much longer than others."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def status(store: Store) -> Status:
    """Counted from the commit records, while other processes may be building."""
    store.refresh()
    files = list(store.place.entries())
    building = at_work(store.place)
    missing = [0] * store.n_checkpoints
    for checkpoint, _ in store.pending():
        missing[checkpoint] += 1
    return Status(
        n_examples=store.n_examples,
        n_checkpoints=store.n_checkpoints,
        n_units=store.n_shards * store.n_checkpoints,
        n_committed=store.n_shards * store.n_checkpoints - sum(missing),
        committed_by_checkpoint=tuple(store.n_shards - count for count in missing),
        n_bytes=sum(entry.bytes for entry in files),
        complete=not any(missing),
        builders=tuple(building),
        pace=pace(store, files) if building and any(missing) else None,
        slow=tuple(slow_shards(store, files)),
    )


def show(store: Store) -> dict[str, Any]:
    """Contents, settings and provenance as nested JSON, for a person or a program."""
    manifest = store.manifest
    plan, request = manifest.settings["plan"], manifest.settings["request"]
    coverage = Coverage.from_json(plan["coverage"])
    return {
        "path": store.location,
        "examples": manifest.n_examples,
        "forgotten": len(forgotten_rows(store)),
        "example_shape": request["data"]["example_shape"],
        "classes": None if manifest.label_names is None else list(manifest.label_names),
        "sketch_dim": manifest.d_sketch,
        "latent_dim": manifest.d_latent,
        "shards": manifest.n_shards,
        "shard_rows": manifest.shard_rows,
        "checkpoints": [{"path": c["path"], "learning_rate": c["learning_rate"]} for c in plan["checkpoints"]],
        "model": plan["task"],
        "training": request["training"],
        "parameters": list(manifest.parameter_sets),
        "tracked_parameters": coverage.n_parameters,
        "layer_norms": None if manifest.layers is None else {s: list(names) for s, names in manifest.layers.items()},
        "coverage": [{"route": r, "tensors": t, "numbers": n} for r, t, n in coverage.summary()],
        "routes": {r.parameter: f"{r.how}: {r.detail}" for r in coverage.routes},
        "draws": plan["n_draws"],
        "draw_norms": store.keeps("draw_norms"),
        "seed": plan["seed"],
        "source": manifest.provenance["source"],
        "versions": manifest.provenance["versions"],
    }
