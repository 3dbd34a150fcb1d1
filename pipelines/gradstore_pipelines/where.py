"""Where units run: in this process, on processes of this machine, at a running scheduler, or in jobs of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gradstore_pipelines.cluster_table import ClusterTable
from gradstore_pipelines.settings_error import SettingsError


@dataclass(frozen=True, kw_only=True)
class Tls:
    """Files by which client, scheduler and workers know one another."""

    ca_file: Path
    cert: Path
    key: Path

    def __post_init__(self) -> None:
        for name in ("ca_file", "cert", "key"):
            file = getattr(self, name)
            if not file.is_file():
                raise SettingsError(f"--tls-{name.replace('_', '-')} '{file}': there is no such file.")

    @classmethod
    def of(cls, ca_file: Path | None, cert: Path | None, key: Path | None) -> Tls | None:
        """All three or none."""
        given = {"--tls-ca-file": ca_file, "--tls-cert": cert, "--tls-key": key}
        missing = [name for name, file in given.items() if file is None]
        if ca_file is None or cert is None or key is None:
            if len(missing) < len(given):
                raise SettingsError(f"TLS takes three files, and {' and '.join(missing)} is missing.")
            return None
        return cls(ca_file=ca_file, cert=cert, key=key)


class AsksWhere(Protocol):
    """Settings with the options that say where units run."""

    @property
    def workers(self) -> int: ...

    @property
    def scheduler(self) -> str | None: ...

    @property
    def tls_ca_file(self) -> Path | None: ...

    @property
    def tls_cert(self) -> Path | None: ...

    @property
    def tls_key(self) -> Path | None: ...

    @property
    def cluster(self) -> object: ...


@dataclass(frozen=True, kw_only=True)
class Where:
    """One place, or none said: this process."""

    workers: int = 0
    """processes of this machine"""
    scheduler: str | None = None
    """address of a running Dask scheduler, such as tcp://host:8786"""
    cluster: ClusterTable | None = None
    """jobs of a batch system"""
    tls: Tls | None = None

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise SettingsError(f"--workers is {self.workers}; 0 means this process, N > 0 that many more.")
        said = {"--workers": self.workers, "--scheduler": self.scheduler, "--cluster": self.cluster}
        given = [name for name, value in said.items() if value]
        if len(given) > 1:
            raise SettingsError(f"{' and '.join(given)} are different places to run; give one of them.")
        if self.tls is not None and not (self.scheduler or self.cluster):
            raise SettingsError("--tls-ca-file, --tls-cert and --tls-key go with --scheduler or --cluster.")
        self._check_scheduler()

    @classmethod
    def asked_by(cls, settings: AsksWhere) -> Where:
        """What the options say. A recipe gives the cluster's table itself."""
        given: object = settings.cluster
        return cls(
            workers=settings.workers,
            scheduler=settings.scheduler,
            tls=Tls.of(settings.tls_ca_file, settings.tls_cert, settings.tls_key),
            cluster=given if given is None or isinstance(given, ClusterTable) else ClusterTable.read(Path(str(given))),
        )

    @property
    def n_workers(self) -> int:
        """As far as it is known before any has started; 0 is this process."""
        return self.cluster.jobs * self.cluster.processes if self.cluster else self.workers

    def _check_scheduler(self) -> None:
        if self.scheduler is None:
            return
        protocol, separator, _ = self.scheduler.partition("://")
        if not separator or protocol not in ("tcp", "tls", "ws", "wss", "ucx"):
            raise SettingsError(f"--scheduler is {self.scheduler!r}; write it like tcp://host:8786 or tls://host:8786.")
        if protocol == "tls" and self.tls is None:
            raise SettingsError(
                f"--scheduler {self.scheduler} needs --tls-ca-file, --tls-cert and --tls-key; it is encrypted."
            )
