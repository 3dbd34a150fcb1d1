"""Stages, and where they run: the pipeline from a data set to a gradient store.

`build(BuildSettings(source=…, store=…))` is what `gradstore build` calls, `selftest(SelftestSettings(store=…))` what
`gradstore selftest` calls.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradstore_pipelines.build_store import BuildResult, build
    from gradstore_pipelines.settings import BuildSettings
    from gradstore_pipelines.trials.result import SelftestResult
    from gradstore_pipelines.trials.run import selftest
    from gradstore_pipelines.trials.settings import SelftestSettings

__all__ = ["BuildResult", "BuildSettings", "SelftestResult", "SelftestSettings", "build", "selftest"]

_HOME = {
    "BuildSettings": "settings",
    "BuildResult": "build_store",
    "build": "build_store",
    "SelftestSettings": "trials.settings",
    "SelftestResult": "trials.result",
    "selftest": "trials.run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'gradstore_pipelines' has no attribute {name!r}")
    return getattr(import_module(f"gradstore_pipelines.{_HOME[name]}"), name)
