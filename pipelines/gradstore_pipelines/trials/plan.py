"""What a self-test does to a store: which kinds it plants, why not others, and what every trial depends on.

Everything that can be refused is refused here, before anything long is started.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gradstore
from gradstore.data import ExampleSource, reopen
from gradstore.devices import usable_device
from gradstore.errors import QueryError, SourceError
from gradstore.evaluation import planting
from gradstore.models.registry import task_from_settings
from gradstore.store import Store
from gradstore.store.sealed import json_text
from gradstore_pipelines.executors.code import code_here
from gradstore_pipelines.progress import Reporter
from gradstore_pipelines.settings_error import SettingsError
from gradstore_pipelines.trials.like import epochs_on, n_trained, steps_of, training_of
from gradstore_pipelines.trials.result import Setting
from gradstore_pipelines.trials.sample import (
    LABEL_KINDS,
    Contaminated,
    Sample,
    contaminated,
    drawn,
    foreign_examples,
    form_of_examples,
    lack_of_labels,
)
from gradstore_pipelines.trials.settings import SelftestSettings
from gradstore_pipelines.trials.trial import n_passes

_FEWEST_EXAMPLES = 10


@dataclass(frozen=True, eq=False)
class SelftestPlan:
    """What is asked, on this store."""

    settings: SelftestSettings
    store: Store
    source: ExampleSource
    kinds: tuple[str, ...]
    left_out: Mapping[str, str]
    """kinds, and why"""
    foreign: NDArray[Any] | None
    device: str

    @functools.cached_property
    def n_examples(self) -> int:
        """Of a sample."""
        forgotten = self.store.forgotten()
        available = self.store.n_examples - (0 if forgotten is None else int(forgotten.sum()))
        return min(self.settings.sample, available)

    @property
    def n_planted(self) -> int:
        return self.settings.n_planted(self.n_examples)

    @property
    def epochs(self) -> int | None:
        """Of a sample's training; None where checkpoints are given."""
        training = training_of(self.store)
        return None if training is None else epochs_on(training, self.store.n_examples, self.n_examples)

    def made_by(self, kind: str) -> dict[str, Any]:
        """What a trial depends on, as JSON."""
        if kind != planting.FOREIGN or self.foreign is None:
            return self.common
        return {**self.common, "foreign": hashlib.sha256(self.foreign.tobytes()).hexdigest()}

    @functools.cached_property
    def common(self) -> dict[str, Any]:
        """What every trial depends on, as JSON."""
        settings, forgotten = self.settings, self.store.forgotten()
        return {
            "gradstore": gradstore.__version__,
            "code": code_here().sources,
            "store": hashlib.sha256(json_text(self.store.manifest.identity()).encode()).hexdigest(),
            "parameters": self.store.parameters,
            "data": self.source.stamp(),
            "forgotten": None if forgotten is None else hashlib.sha256(forgotten.tobytes()).hexdigest(),
            "device": self.device,
            **{name: getattr(settings, name) for name in ("sample", "share", "seed")},
        }

    @functools.lru_cache(maxsize=1)  # noqa: B019 - one sample at a time, as long as the plan lives
    def sample(self, repeat: int) -> Sample:
        """Another for every repeat."""
        return drawn(self.store, self.source, self.settings.sample, [self.settings.seed, repeat])

    def contaminated(self, kind: str, repeat: int) -> Contaminated:
        """The sample with errors of one kind.

        Raises:
            QueryError, ShapeError: this kind cannot be planted.
        """
        sample = self.sample(repeat)
        n_classes = self.store.manifest.n_classes or len(sample.label_names or ())
        seed = self.seed(kind, repeat)
        return contaminated(sample, kind, self.n_planted, seed, foreign=self.foreign, n_classes=n_classes)

    def seed(self, kind: str, repeat: int) -> int:
        """Of whatever is random in a trial."""
        return int(np.random.default_rng([self.settings.seed, repeat, *kind.encode()]).integers(2**31))

    def rows_a_trial(self) -> dict[str, int]:
        """Examples that each step goes through: what progress counts."""
        n, checkpoints = self.n_examples, n_trained(self.store) or self.store.n_checkpoints
        signals = n * checkpoints * n_passes(self.store)
        return {"scan": n, "train": n * (self.epochs or 0), "sketch": n * checkpoints, "signals": signals}

    def setting(self) -> Setting:
        """For the result."""
        training, epochs, n_stored = training_of(self.store), self.epochs, self.store.n_examples
        store_epochs = None if training is None else int(training["epochs"])
        return Setting(
            store=self.store.location,
            n_examples=self.n_examples,
            n_stored=n_stored,
            n_planted=self.n_planted,
            repeats=self.settings.repeats,
            seed=self.settings.seed,
            parameters=self.store.parameters,
            model=str(self.store.manifest.provenance["model"]),
            epochs=epochs,
            steps=None if training is None or epochs is None else steps_of(training, epochs, self.n_examples),
            store_epochs=store_epochs,
            store_steps=None
            if training is None or store_epochs is None
            else steps_of(training, store_epochs, n_stored),
        )


def plan_of(settings: SelftestSettings, reporter: Reporter) -> SelftestPlan:
    """The settings on their store.

    Raises:
        StoreNotFoundError: there is no store.
        SourceError: its data have gone or changed; other data of another shape.
        StoreMismatchError: so has the code of its model.
        SettingsError: a kind that there is not.
        QueryError: too few examples, or nothing to plant.
    """
    store = Store.open(settings.store)
    store = store if settings.parameters is None else store.of_set(settings.parameters)
    task = task_from_settings(store.manifest.settings["plan"]["task"])
    source = reopen(store.manifest.provenance["source"])
    kinds, left_out = _kinds(settings, source, lack_of_labels(store, task.needs_labels))
    foreign = _foreign(settings, source) if planting.FOREIGN in kinds else None
    plan = SelftestPlan(settings, store, source, kinds, left_out, foreign, usable_device(settings.device))
    _require_enough(plan)
    _require_same_data(plan)
    _say_what_differs(plan, reporter)
    return plan


def listed(reasons: Mapping[str, str]) -> str:
    """Why each kind is not planted."""
    return "; ".join(f"{kind}: {why.rstrip('.')}" for kind, why in reasons.items()) + "."


def _kinds(
    settings: SelftestSettings, source: ExampleSource, lack: str | None
) -> tuple[tuple[str, ...], dict[str, str]]:
    """What is planted, and why something else is not."""
    known = (*planting.KINDS, *LABEL_KINDS)
    for kind in settings.kinds:
        if kind not in known:
            raise SettingsError(f"--kinds {kind!r} is no kind of error. The kinds are {', '.join(known)}.")
    fitting = planting.kinds_for(form_of_examples(source.example_shape, source.dtype), source.dtype)
    asked = settings.kinds or (*fitting, planting.FOREIGN, *LABEL_KINDS)
    left_out = {} if lack is None else dict.fromkeys(LABEL_KINDS, lack)
    if settings.foreign is None:
        left_out[planting.FOREIGN] = "it takes --foreign DATA"
    kinds = tuple(kind for kind in asked if kind not in left_out)
    return kinds, {kind: why for kind, why in left_out.items() if kind in asked}


def _foreign(settings: SelftestSettings, source: ExampleSource) -> NDArray[Any]:
    assert settings.foreign is not None
    return foreign_examples(settings.foreign, source, settings.sample, settings.seed)


def _require_enough(plan: SelftestPlan) -> None:
    if plan.n_examples < _FEWEST_EXAMPLES:
        raise QueryError(
            f"'{plan.store.location}' has {plan.n_examples} examples; a self-test needs {_FEWEST_EXAMPLES} or more."
        )
    if not plan.kinds:
        raise QueryError(f"There is nothing to plant. {listed(plan.left_out)}")


def _require_same_data(plan: SelftestPlan) -> None:
    sample = plan.sample(0)
    if plan.store.examples_at(sample.rows).column("id").to_pylist() != sample.ids:
        raise SourceError(
            f"The data at '{plan.source.describe().get('path')}' have other ids than '{plan.store.location}'. Put back "
            "the data that it was made of."
        )


def _say_what_differs(plan: SelftestPlan, reporter: Reporter) -> None:
    """From what was asked, and from the store."""
    settings, store = plan.settings, plan.store
    if plan.n_examples < settings.sample:
        reporter.say(f"There are {plan.n_examples:,} examples, fewer than --sample {settings.sample}: all are taken.")
    if 0 < n_trained(store) < store.n_checkpoints:
        reporter.say(
            f"{store.n_checkpoints - n_trained(store)} checkpoints were appended to the store's own training: they are "
            "left out, for a sample is trained on anew."
        )
