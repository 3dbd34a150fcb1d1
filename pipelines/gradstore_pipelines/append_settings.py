"""What an append is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gradstore.store.place import Location, Place, as_location, is_url, place_of
from gradstore_pipelines.settings_error import SettingsError
from gradstore_pipelines.where import Where


@dataclass(frozen=True, kw_only=True)
class AppendSettings:
    """Settings of `append`; the string under a field is its documentation."""

    store: Location
    """The gradient store that grows."""
    source: Location | None = None
    """New examples, in any format that build reads; without them and without checkpoints, go on with what was begun."""
    labels: Location | None = None
    """Their labels, in a file of their own."""
    image_size: int | None = None
    """Side to which the images of a folder are resized; by default the store's."""
    on_corrupt: Literal["refuse", "skip"] = "refuse"
    """What to do with images that cannot be decoded."""
    id_prefix: str = ""
    """Put before the ids of the new examples, where they are those of others in the store."""
    checkpoints: tuple[str, ...] = ()
    """New checkpoints instead of examples: paths or patterns such as ckpt/*.pt."""
    learning_rate: float | None = None
    """Learning rate of every new checkpoint, whatever its file says."""
    batch_size: int = 256
    """Examples read at a time; never changes the result."""
    device: str = "auto"
    """cpu, cuda, or auto."""
    workers: int = 0
    """Processes that sketch: 0 is this one, more start a local Dask cluster; with --device cuda one a GPU."""
    scheduler: str | None = None
    """Sketch on the workers of a running Dask scheduler: tcp://host:8786, or tls://host:8786 with the --tls files."""
    tls_ca_file: Path | None = None
    """Certificate authority by which client, scheduler and workers know one another."""
    tls_cert: Path | None = None
    """This client's certificate."""
    tls_key: Path | None = None
    """Its key."""
    cluster: Path | None = None
    """Sketch in jobs of a batch system (slurm, pbs, sge, lsf) that this TOML file describes."""

    def __post_init__(self) -> None:
        """Paths may be given as strings, and what is repeatable as one string."""
        for name in ("store", "source", "labels"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else as_location(value))
        given: str | tuple[str, ...] = self.checkpoints
        object.__setattr__(self, "checkpoints", (given,) if isinstance(given, str) else tuple(map(str, given)))
        if self.source is not None and self.checkpoints:
            raise SettingsError("Append examples or --checkpoints, one after the other.")
        self._require_source("labels", "image_size", "id_prefix")
        if self.learning_rate is not None and not self.checkpoints:
            raise SettingsError("--learning-rate is that of new --checkpoints; the model stays as it was trained.")
        self.where()

    def _require_source(self, *names: str) -> None:
        for name in names:
            if self.source is None and getattr(self, name):
                raise SettingsError(f"--{name.replace('_', '-')} goes with new examples, and none are given.")

    @property
    def place(self) -> Place:
        return place_of(self.store)

    @property
    def asks_nothing(self) -> bool:
        """Whether only what was begun is to be finished."""
        return self.source is None and not self.checkpoints

    def asked(self) -> dict[str, Any]:
        """What determines the result, as JSON: an append that was interrupted is continued by the same only."""
        files = {name: _absolute(getattr(self, name)) for name in ("source", "labels")}
        plain = {name: getattr(self, name) for name in ("image_size", "on_corrupt", "id_prefix", "learning_rate")}
        return {**files, **plain, "checkpoints": [str(Path(pattern).absolute()) for pattern in self.checkpoints]}

    def resolved_device(self) -> str:
        """`auto` becomes the GPU where torch sees one; DeviceError where there is no such device."""
        from gradstore.devices import usable_device

        return usable_device(self.device)

    def where(self) -> Where:
        """Where it sketches.

        Raises:
            SettingsError: several places, files that are not there, or a table that cannot be understood.
        """
        return Where.asked_by(self)


def _absolute(location: Location | None) -> str | None:
    return None if location is None else str(location) if is_url(location) else str(Path(location).absolute())
