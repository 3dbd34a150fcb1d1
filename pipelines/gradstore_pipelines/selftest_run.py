"""`selftest`: known errors planted into a sample of the user's own data, and which signal finds them there.

    draw a sample -> for every kind: plant, build as the store was built, judge -> compare, and recommend

The store and its data are only read. What is done is kept trial by trial (`selftest_work`): an interrupted self-test
goes on, and more kinds or repeats cost only themselves.

Why one kind at a time and not all at once, as in the demo: bad examples hide one another (`ranking.signals.trusted`),
and data with ten kinds of errors are not what anybody has. Each kind is a training and a sketching of its own.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gradstore
from gradstore.data import ExampleSource, reopen
from gradstore.devices import usable_device
from gradstore.errors import CheckpointError, QueryError, ShapeError, SourceError, StoreIncompleteError, TaskError
from gradstore.evaluation import planting
from gradstore.models.registry import task_from_settings
from gradstore.store import Store
from gradstore.store.files import make_folder, replacing, write_errors
from gradstore.store.sealed import json_text
from gradstore_pipelines.build_store import build
from gradstore_pipelines.progress import Reporter, Silent
from gradstore_pipelines.selftest_judged import KindResult, judged
from gradstore_pipelines.selftest_like import epochs_on, n_trained, settings_like, training_of
from gradstore_pipelines.selftest_progress import Part, Whole
from gradstore_pipelines.selftest_result import SelftestResult, Setting, result_of
from gradstore_pipelines.selftest_sample import (
    LABEL_KINDS,
    Contaminated,
    Sample,
    contaminated,
    drawn,
    foreign_examples,
    form_of_examples,
    lack_of_labels,
)
from gradstore_pipelines.selftest_sanity import SanityChecks, sanity_checks
from gradstore_pipelines.selftest_settings import SelftestSettings
from gradstore_pipelines.selftest_trial import Trial, n_passes, n_signals, trial_of
from gradstore_pipelines.selftest_work import Work, remove_folder
from gradstore_pipelines.settings_error import SettingsError

_FEWEST_EXAMPLES = 10


def selftest(settings: SelftestSettings, reporter: Reporter | None = None) -> SelftestResult:
    """Plant known errors into a sample of a store's data, and judge every signal by what it finds.

    Raises:
        StoreNotFoundError: there is no store.
        SourceError: its data have gone or changed; other data of another shape.
        CheckpointError, StoreMismatchError: so has its model.
        SettingsError: a kind that there is not.
        QueryError: too few examples, or no kind that can be planted into them.
        StoreWriteError: no room; what is done is kept.
    """
    reporter, start = reporter or Silent(), time.perf_counter()
    test = _planned(settings, reporter)
    trials, failed = _trials(test, reporter)
    if not trials:
        raise QueryError(f"No kind of error could be planted. {_listed({**test.left_out, **failed})}")
    kinds, sanity = _kinds_of(trials, settings.seed, reporter), _sanity(test, reporter)
    return result_of(_setting(test), kinds, {**test.left_out, **failed}, sanity, time.perf_counter() - start)


@dataclass(frozen=True, eq=False)
class _Test:
    """What is asked, on this store."""

    settings: SelftestSettings
    store: Store
    source: ExampleSource
    kinds: tuple[str, ...]
    left_out: Mapping[str, str]
    """kinds, and why"""
    foreign: NDArray[Any] | None
    device: str

    @property
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
        training = training_of(self.store)
        return None if training is None else epochs_on(training, self.store.n_examples, self.n_examples)

    @functools.cached_property
    def made_by(self) -> dict[str, Any]:
        """What every trial depends on."""
        settings, forgotten = self.settings, self.store.forgotten()
        return {
            "gradstore": gradstore.__version__,
            "store": hashlib.sha256(json_text(self.store.manifest.identity()).encode()).hexdigest(),
            "parameters": self.store.parameters,
            "data": self.source.stamp(),
            "forgotten": [] if forgotten is None else np.flatnonzero(forgotten).tolist(),
            "device": self.device,
            **{name: getattr(settings, name) for name in ("sample", "share", "seed")},
        }

    def trial_made_by(self, kind: str) -> dict[str, Any]:
        if kind != planting.FOREIGN or self.foreign is None:
            return self.made_by
        return {**self.made_by, "foreign": hashlib.sha256(self.foreign.tobytes()).hexdigest()}

    @functools.lru_cache(maxsize=1)  # noqa: B019 - a sample at a time, while the test lives
    def sample(self, repeat: int) -> Sample:
        return drawn(self.store, self.source, self.settings.sample, [self.settings.seed, repeat])

    def rows_a_trial(self) -> dict[str, int]:
        """Examples that each step goes through: what progress counts."""
        n, checkpoints = self.n_examples, n_trained(self.store) or self.store.n_checkpoints
        signals = n * checkpoints * n_passes(self.store)
        return {"scan": n, "train": n * (self.epochs or 0), "sketch": n * checkpoints, "signals": signals}


def _planned(settings: SelftestSettings, reporter: Reporter) -> _Test:
    """Everything that can be refused is refused here."""
    store = Store.open(settings.store)
    store = store if settings.parameters is None else store.of_set(settings.parameters)
    device = usable_device(settings.device)
    needs_labels = task_from_settings(store.manifest.settings["plan"]["task"]).needs_labels
    source = reopen(store.manifest.provenance["source"])
    kinds, left_out = _kinds(settings, source, lack_of_labels(store, needs_labels))
    foreign = _foreign(settings, source) if planting.FOREIGN in kinds else None
    test = _Test(settings, store, source, kinds, left_out, foreign, device)
    _require_enough(test)
    _say_what_is_done(test, reporter)
    return test


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


def _require_enough(test: _Test) -> None:
    """Raises what says that no trial can be made."""
    if test.n_examples < _FEWEST_EXAMPLES:
        raise QueryError(
            f"'{test.store.location}' has {test.n_examples} examples; a self-test needs {_FEWEST_EXAMPLES} or more."
        )
    if not test.kinds:
        raise QueryError(f"There is nothing to plant. {_listed(test.left_out)}")
    rows = test.sample(0).rows
    if test.store.examples_at(rows).column("id").to_pylist() != test.sample(0).ids:
        raise SourceError(
            f"The data at '{test.source.describe().get('path')}' have other ids than '{test.store.location}'. Put back "
            "the data that it was made of."
        )


def _say_what_is_done(test: _Test, reporter: Reporter) -> None:
    settings, store = test.settings, test.store
    if test.n_examples < settings.sample:
        reporter.say(f"There are {test.n_examples:,} examples, fewer than --sample {settings.sample}: all are taken.")
    if 0 < n_trained(store) < store.n_checkpoints:
        reporter.say(
            f"{store.n_checkpoints - n_trained(store)} checkpoints were appended to the store's own training: they are "
            "left out, for a sample is trained on anew."
        )


def _trials(test: _Test, reporter: Reporter) -> tuple[list[Trial], dict[str, str]]:
    """All that were done before or are now; and kinds that failed, with the reason."""
    work, settings = Work(test.settings.folder), test.settings
    wanted = [(kind, repeat) for repeat in range(settings.repeats) for kind in test.kinds]
    found = {key: work.trial(*key, test.trial_made_by(key[0])) for key in wanted}
    missing = [key for key, trial in found.items() if trial is None]
    _say_what_was_done(test, work, wanted, missing, reporter)
    work.remove_others([work.unfinished(*key, test.trial_made_by(key[0])) for key in missing])
    failed, a_trial = dict[str, str](), sum(test.rows_a_trial().values())
    done = (len(wanted) - len(missing)) * a_trial
    with reporter.task("self-test", len(wanted) * a_trial, "rows", done) as advance:
        whole = Whole(reporter, advance)
        for kind, repeat in missing:
            part = whole.part(test.rows_a_trial())
            made = _trial(test, work, kind, repeat, part) if kind not in failed else failed[kind]
            part.finish()
            if isinstance(made, Trial):
                found[kind, repeat] = made
            else:
                failed[kind] = made
    work.finish()
    return [trial for trial in found.values() if trial is not None], failed


def _kinds_of(trials: Iterable[Trial], seed: int, reporter: Reporter) -> list[KindResult]:
    """Trials of a kind together, judged."""
    by_kind: dict[str, list[Trial]] = {}
    for trial in trials:
        by_kind.setdefault(trial.kind, []).append(trial)
    found = []
    with reporter.task("judge", len(by_kind), "kinds") as advance:
        for repeats in by_kind.values():
            found.append(judged(repeats, seed))
            advance(1)
    return found


def _say_what_was_done(
    test: _Test, work: Work, wanted: list[tuple[str, int]], missing: list[tuple[str, int]], reporter: Reporter
) -> None:
    if len(missing) < len(wanted):
        left = f"{len(missing)} are left" if missing else "nothing is left to do"
        reporter.say(f"{len(wanted) - len(missing)} of {len(wanted)} trials were done before: {left}.")
    for key in missing:
        if changed := work.differences(*key, test.trial_made_by(key[0])):
            reporter.say(f"Trials that other settings made do not count, and are made anew: {'; '.join(changed)}.")
            return


def _trial(test: _Test, work: Work, kind: str, repeat: int, part: Part) -> Trial | str:
    """A finished trial, or why this kind cannot be tested on these data."""
    made_by = test.trial_made_by(kind)
    sample, seed = test.sample(repeat), _seed(test.settings.seed, repeat, kind)
    folder = work.unfinished(kind, repeat, made_by)
    try:
        planted = _planted(test, sample, kind, seed)
        store = _built(test, sample, planted, folder, repeat, part)
    except CheckpointError:
        raise
    except (QueryError, ShapeError, TaskError) as error:
        if folder.is_dir():
            remove_folder(folder)
        return str(error)
    with part.task("signals", n_signals(store), "signals") as advance:
        trial = trial_of(store, sample, planted, kind, repeat, seed, advance)
    work.keep(trial, made_by)
    remove_folder(folder)
    return trial


def _planted(test: _Test, sample: Sample, kind: str, seed: int) -> Contaminated:
    names = sample.label_names
    n_classes = test.store.manifest.n_classes or (0 if names is None else len(names))
    return contaminated(sample, kind, test.n_planted, seed, foreign=test.foreign, n_classes=n_classes)


def _built(test: _Test, sample: Sample, planted: Contaminated, folder: Path, repeat: int, part: Part) -> Store:
    make_folder(folder)
    data = folder / "data.npz"
    if not data.is_file():
        with write_errors(data), replacing(data) as temporary:
            planted.save(temporary, sample.ids)
    settings = settings_like(
        test.store, data, folder / "store", n_examples=len(sample), device=test.device, repeat=repeat
    )
    build(settings, part)
    return Store.open(settings.store)


def _seed(seed: int, repeat: int, kind: str) -> int:
    return int(np.random.default_rng([seed, repeat, *kind.encode()]).integers(2**31))


def _listed(reasons: Mapping[str, str]) -> str:
    return "; ".join(f"{kind}: {why}" for kind, why in reasons.items()) + "."


def _setting(test: _Test) -> Setting:
    training = training_of(test.store)
    return Setting(
        store=test.store.location,
        n_examples=test.n_examples,
        n_stored=test.store.n_examples,
        n_planted=test.n_planted,
        repeats=test.settings.repeats,
        seed=test.settings.seed,
        parameters=test.store.parameters,
        model=str(test.store.manifest.provenance["model"]),
        epochs=test.epochs,
        store_epochs=None if training is None else int(training["epochs"]),
    )


def _sanity(test: _Test, reporter: Reporter) -> SanityChecks | None:
    """Of the store itself, not of a sample; None where there is nothing to check yet."""
    work, store = Work(test.settings.folder), test.store
    made_by = {"content": store.content_fingerprint(), "seed": test.settings.seed, **test.made_by}
    found = work.sanity(made_by)
    if found is None:
        try:
            found = sanity_checks(store, test.settings.seed, test.device, reporter)
        except (QueryError, StoreIncompleteError) as error:
            reporter.say(f"The checks of sanity are left out: {error}")
            return None
        work.keep_sanity(found, made_by)
    return found
