"""What a store becomes when something is appended to it: everything that can be refused is refused here, before a
byte is written.

The model stays as it was trained, and so does everything else that a row is made by. The data's part of the settings
is that of all examples together, so that the store that grew has the manifest, but for its provenance, of one that
was built at once.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

from gradstore.data import DataSummary, ExampleSource, open_source, reopen, scan
from gradstore.data.identity import refuse_duplicate_ids
from gradstore.data.joined import JoinedSource, Part, is_numbered, parts_of
from gradstore.errors import CheckpointError, SourceError, StoreFormatError, StoreMismatchError
from gradstore.models.checkpoints import Checkpoint, find_checkpoints
from gradstore.sketcher import Sketcher, SketchPlan
from gradstore.store import Store
from gradstore.store.files import make_folder
from gradstore.store.journal import Journal
from gradstore.store.local_files import upload
from gradstore.store.sealed import require_sealed
from gradstore_pipelines.append_settings import AppendSettings
from gradstore_pipelines.preparation import probe_batch
from gradstore_pipelines.progress import Reporter
from gradstore_pipelines.remembered import SCAN

_SINCE = 3


def planned(settings: AppendSettings, store: Store, reporter: Reporter) -> Journal | None:
    """What the append makes of the store; None where it is that already.

    Raises:
        StoreFormatError: a store of an older format.
        StoreIncompleteError: its build has not finished.
        StoreMismatchError: its own data have changed.
        SourceError, MissingLabelsError: the new examples are not like the others, or have ids of others.
        CheckpointError: the new checkpoints do not fit, or are there already.
    """
    if store.manifest.format_version < _SINCE:
        raise StoreFormatError(
            f"The store '{store.location}' has format {store.manifest.format_version}, in which every record names the "
            f"number of examples; what grows has format {_SINCE}. Build a new store at another place."
        )
    store.require_complete()
    return _with_examples(settings, store, reporter) if settings.source else _with_checkpoints(settings, store)


# Examples


def _with_examples(settings: AppendSettings, store: Store, reporter: Reporter) -> Journal | None:
    before = reopen(store.manifest.provenance["source"])
    _require_unchanged(store, before, reporter)
    new = _opened(settings, store)
    for note in new.notes():
        reporter.say(note)
    content = _scanned(new, reporter, "scan the new").content_hash
    known = [part.content or store.manifest.settings["request"]["data"]["content"] for part in parts_of(before)]
    if content in known:
        _require_same_source(settings, before, known.index(content))
        return None
    joined = JoinedSource([*_parts(store, before), _part(settings, before, new, content)])
    _require_new_ids(settings, joined)
    return _journal_of_examples(settings, store, joined, _scanned(joined, reporter, "scan all"))


def _opened(settings: AppendSettings, store: Store) -> ExampleSource:
    assert settings.source is not None
    folder = Path(str(settings.source)).is_dir()
    shape = store.manifest.settings["request"]["data"]["example_shape"]
    size = settings.image_size or (shape[-1] if folder else None)
    return open_source(settings.source, labels=settings.labels, image_size=size, on_corrupt=settings.on_corrupt)


def _scanned(source: ExampleSource, reporter: Reporter, title: str) -> DataSummary:
    with reporter.task(title, len(source), "rows") as advance:
        return scan(source, advance)


def _require_same_source(settings: AppendSettings, before: ExampleSource, number: int) -> None:
    """Where the very same was appended there is nothing to do; the same examples from elsewhere are refused.

    Raises:
        SourceError: the store has these examples under another path.
    """
    path = parts_of(before)[number].source.describe().get("path")
    if settings.asked()["source"] != path:
        raise SourceError(
            f"The examples of '{settings.source}' are in the store already: they have the same ids, labels and values "
            f"as those of '{path}'."
        )


def _parts(store: Store, before: ExampleSource) -> list[Part]:
    """Those of the store so far; the first one's content is what the whole was before anything was appended."""
    if isinstance(before, JoinedSource):
        return list(before.parts)
    return [Part(before, content=store.manifest.settings["request"]["data"]["content"])]


def _part(settings: AppendSettings, before: ExampleSource, new: ExampleSource, content: str) -> Part:
    """The new one: ids that are row numbers on both sides go on counting."""
    if settings.id_prefix or not (is_numbered(new) and is_numbered(before)):
        return Part(new, prefix=settings.id_prefix, content=content)
    return Part(new, first_number=len(before), content=content)


def _require_new_ids(settings: AppendSettings, joined: JoinedSource) -> None:
    try:
        refuse_duplicate_ids(joined)
    except SourceError as error:
        error.add_note(
            "Leave out the examples that are in the store already; if they are others, tell their ids apart: "
            f"--id-prefix {'' if settings.source is None else Path(str(settings.source)).stem}/"
        )
        raise


def _require_unchanged(store: Store, source: ExampleSource, reporter: Reporter) -> None:
    """That the store's data are those that it was made of; read only where somebody may have touched them."""
    expected = store.manifest.settings["request"]["data"]["content"]
    if _remembered_stamp(store, expected) != source.stamp():
        found = _scanned(source, reporter, "scan the store's").content_hash
        if found != expected:
            raise StoreMismatchError(
                f"The data of '{store.location}' have changed since it was built: content {found[:12]}, expected "
                f"{expected[:12]}. Put back '{source.describe().get('path')}' as it was, or build a new store."
            )


def _remembered_stamp(store: Store, content: str) -> str | None:
    """Of the data when they were scanned last, if that is known."""
    try:
        known = require_sealed(store.place.read(SCAN), SCAN)
        return str(known["stamp"]) if known["summary"]["content_hash"] == content else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _journal_of_examples(settings: AppendSettings, store: Store, joined: JoinedSource, summary: DataSummary) -> Journal:
    before = store.manifest
    request = dict(before.settings["request"])
    data = {**request["data"], "content": summary.content_hash, "n_examples": summary.n_examples}
    after = dataclasses.replace(
        before,
        n_examples=len(joined),
        settings={**before.settings, "request": {**request, "data": data}},
        provenance={**before.provenance, "source": joined.describe()},
        examples_sha256=None,
    )
    return Journal.of(before, after, settings.asked(), _remembered(joined, summary))


def _remembered(source: ExampleSource, summary: DataSummary) -> dict[str, Any]:
    """For `build/scan.json`; no build asks for this, so that none takes it for its own."""
    described = {"source": source.describe(), "stamp": source.stamp(), "summary": summary.to_json()}
    return {"asked": {"appended": True}, **described}


# Checkpoints


def _with_checkpoints(settings: AppendSettings, store: Store) -> Journal | None:
    found = find_checkpoints(settings.checkpoints, settings.learning_rate)
    plan = SketchPlan.from_json(store.manifest.settings["plan"])
    known = {checkpoint.sha256: number for number, checkpoint in enumerate(plan.checkpoints)}
    twice = [checkpoint for checkpoint in found if checkpoint.sha256 in known]
    if len(twice) == len(found):
        return None
    if twice:
        raise CheckpointError(
            f"{twice[0].path} is checkpoint {known[twice[0].sha256]} of '{store.location}' already. Name new ones only."
        )
    absolute = tuple(dataclasses.replace(checkpoint, path=checkpoint.path.absolute()) for checkpoint in found)
    grown = dataclasses.replace(plan, checkpoints=(*plan.checkpoints, *_with_store(store, absolute)))
    return _journal_of_checkpoints(settings, store, _projected(settings, store, grown))


def _with_store(store: Store, checkpoints: tuple[Checkpoint, ...]) -> tuple[Checkpoint, ...]:
    """As the store names them: a folder where they are, a bucket within itself."""
    if store.place.local() is not None:
        return checkpoints
    return tuple(_uploaded(store, store.n_checkpoints + n, checkpoint) for n, checkpoint in enumerate(checkpoints))


def _uploaded(store: Store, number: int, checkpoint: Checkpoint) -> Checkpoint:
    path = Path("checkpoints") / f"{number:03}-{checkpoint.path.name}"
    upload(checkpoint.path, store.place, path.as_posix())
    make_folder((store.folder / path).parent)
    shutil.copyfile(checkpoint.path, store.folder / path)
    return dataclasses.replace(checkpoint, path=path)


def _projected(settings: AppendSettings, store: Store, plan: SketchPlan) -> SketchPlan:
    """The plan with the new checkpoints' projections, once their weights fit and their gradients have been tried."""
    sketcher = Sketcher(dataclasses.replace(plan, projections=()), store.folder, settings.resolved_device())
    batch = probe_batch(reopen(store.manifest.provenance["source"]))
    projections = list(plan.projections)
    for number in range(store.n_checkpoints, len(plan.checkpoints)):
        losses = sketcher.gradients(number, batch).losses
        if not bool(losses.isfinite().all()):
            path = plan.checkpoints[number].path
            raise CheckpointError(f"With {path} the loss of some examples is not finite. Leave this checkpoint out.")
        projections.append(sketcher.engine.projection.describe())
    return dataclasses.replace(plan, projections=tuple(projections))


def _journal_of_checkpoints(settings: AppendSettings, store: Store, plan: SketchPlan) -> Journal:
    before = store.manifest
    request, new = dict(before.settings["request"]), plan.checkpoints[store.n_checkpoints :]
    given = [{"sha256": c.sha256, "learning_rate": c.learning_rate} for c in new]
    after = dataclasses.replace(
        before,
        learning_rates=(*before.learning_rates, *(c.learning_rate for c in new)),
        settings={
            "request": {**request, "checkpoints": [*(request["checkpoints"] or []), *given]},
            "plan": plan.to_json(),
        },
    )
    return Journal.of(before, after, settings.asked(), {})
