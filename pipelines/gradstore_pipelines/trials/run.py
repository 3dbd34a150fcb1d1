"""`selftest`: known errors planted into a sample of the user's own data, and which signal finds them there.

    draw a sample -> for every kind: plant, build as the store was built, score -> judge, compare, and recommend

The store and its data are only read. What is done is kept trial by trial (`work`): an interrupted self-test
goes on, and more kinds or repeats cost only themselves.

Why one kind at a time and not all at once, as in the demo: bad examples hide one another (`ranking.signals.trusted`),
and data with ten kinds of errors are not what anybody has. Each kind is a training and a sketching of its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from gradstore.errors import (
    CheckpointError,
    NonFiniteDataError,
    QueryError,
    ShapeError,
    StoreIncompleteError,
    TaskError,
)
from gradstore.store import Store
from gradstore.store.files import make_folder, replacing, write_errors
from gradstore_pipelines.build_store import build
from gradstore_pipelines.progress import Reporter, Silent
from gradstore_pipelines.trials.judged import KindResult, judged
from gradstore_pipelines.trials.like import settings_like
from gradstore_pipelines.trials.plan import SelftestPlan, listed, plan_of
from gradstore_pipelines.trials.progress import Part, Whole
from gradstore_pipelines.trials.result import SelftestResult, result_of
from gradstore_pipelines.trials.sample import Contaminated
from gradstore_pipelines.trials.sanity import SanityChecks, sanity_checks
from gradstore_pipelines.trials.settings import SelftestSettings
from gradstore_pipelines.trials.trial import Trial, n_signals, trial_of
from gradstore_pipelines.trials.work import Work, remove_folder

Key = tuple[str, int]
"""kind and repeat"""


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
    plan, work = plan_of(settings, reporter), Work(settings.folder)
    trials, failed = _trials(plan, work, reporter)
    left_out = {**plan.left_out, **failed}
    if not trials:
        raise QueryError(f"No kind of error could be planted. {listed(left_out)}")
    kinds, sanity = _judged(trials, settings.seed, reporter), _sanity(plan, work, reporter)
    return result_of(plan.setting(), kinds, left_out, sanity, time.perf_counter() - start)


def _trials(plan: SelftestPlan, work: Work, reporter: Reporter) -> tuple[list[Trial], dict[str, str]]:
    """All that were done before or are now; and kinds that failed, with the reason."""
    wanted = [(kind, repeat) for repeat in range(plan.settings.repeats) for kind in plan.kinds]
    done = {key: trial for key in wanted if (trial := work.trial(*key, plan.made_by(key[0])))}
    missing = [key for key in wanted if key not in done]
    _say_what_was_done(plan, work, len(done), missing, reporter)
    work.remove_others([work.unfinished(*key, plan.made_by(key[0])) for key in missing])
    made, failed = _made(plan, work, len(done), missing, reporter) if missing else ({}, {})
    work.finish()
    return [{**done, **made}[key] for key in wanted if key in done or key in made], failed


def _made(
    plan: SelftestPlan, work: Work, n_done: int, missing: Sequence[Key], reporter: Reporter
) -> tuple[dict[Key, Trial], dict[str, str]]:
    """Those that are missing."""
    made, failed, rows = dict[Key, Trial](), dict[str, str](), plan.rows_a_trial()
    a_trial = sum(rows.values())
    with reporter.task("self-test", (n_done + len(missing)) * a_trial, "rows", n_done * a_trial) as advance:
        whole = Whole(reporter, advance)
        for kind, repeat in missing:
            part = whole.part(rows)
            found = failed[kind] if kind in failed else _trial(plan, work, kind, repeat, part)
            part.finish()
            if isinstance(found, Trial):
                made[kind, repeat] = found
            else:
                failed[kind] = found
    return made, failed


def _trial(plan: SelftestPlan, work: Work, kind: str, repeat: int, part: Part) -> Trial | str:
    """A finished trial, or why this kind cannot be tested on these data."""
    made_by = plan.made_by(kind)
    folder = work.unfinished(kind, repeat, made_by)
    try:
        planted = plan.contaminated(kind, repeat)
        store = _built(plan, planted, folder, repeat, part)
    except CheckpointError:
        raise
    except (QueryError, ShapeError, NonFiniteDataError, TaskError) as error:
        if folder.is_dir():
            remove_folder(folder)
        return str(error)
    with part.task("signals", n_signals(store), "signals") as advance:
        trial = trial_of(store, plan.sample(repeat), planted, kind, repeat, plan.seed(kind, repeat), advance)
    work.keep(trial, made_by)
    remove_folder(folder)
    return trial


def _built(plan: SelftestPlan, planted: Contaminated, folder: Path, repeat: int, part: Part) -> Store:
    """The store of a contaminated sample; one that was begun is finished."""
    make_folder(folder)
    data, sample = folder / "data.npz", plan.sample(repeat)
    if not data.is_file():
        with write_errors(data), replacing(data) as temporary:
            planted.save(temporary, sample.ids)
    settings = settings_like(
        plan.store, data, folder / "store", n_examples=len(sample), device=plan.device, repeat=repeat
    )
    build(settings, part)
    return Store.open(settings.store)


def _judged(trials: Iterable[Trial], seed: int, reporter: Reporter) -> list[KindResult]:
    """Trials of a kind together."""
    by_kind: dict[str, list[Trial]] = {}
    for trial in trials:
        by_kind.setdefault(trial.kind, []).append(trial)
    found = []
    with reporter.task("judge", len(by_kind), "kinds") as advance:
        for repeats in by_kind.values():
            found.append(judged(repeats, seed))
            advance(1)
    return found


def _sanity(plan: SelftestPlan, work: Work, reporter: Reporter) -> SanityChecks | None:
    """Of the store itself, not of a sample; None where there is nothing to check yet."""
    made_by = {"content": plan.store.content_fingerprint(), **plan.common}
    found = work.sanity(made_by)
    if found is None:
        try:
            found = sanity_checks(plan.store, plan.settings.seed, plan.device, reporter)
        except (QueryError, StoreIncompleteError) as error:
            reporter.say(f"The checks of sanity are left out: {error}")
            return None
        work.keep_sanity(found, made_by)
    return found


def _say_what_was_done(plan: SelftestPlan, work: Work, n_done: int, missing: Sequence[Key], reporter: Reporter) -> None:
    if n_done:
        left = f"{len(missing)} to do" if missing else "nothing is left to do"
        reporter.say(f"{n_done} of {n_done + len(missing)} trials were done before: {left}.")
    for kind, repeat in missing:
        if changed := work.differences(kind, repeat, plan.made_by(kind)):
            reporter.say(f"Trials that were made otherwise do not count, and are made anew: {'; '.join(changed)}.")
            return
