"""The gradient store: sketches, exact norms, losses and latents of every example at every checkpoint, on disk.

FORMAT.md beside this file says what lies where. What is named here is imported on first use: settings and help texts
need to know what a location is, and not pyarrow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradstore.store.chunks import SetRows, ShardRows
    from gradstore.store.findings import VerifyReport
    from gradstore.store.manifest import Manifest
    from gradstore.store.store import Store
    from gradstore.store.verification import verify, verify_at

__all__ = ["Manifest", "SetRows", "ShardRows", "Store", "VerifyReport", "verify", "verify_at"]

_HOME = {
    "Manifest": "gradstore.store.manifest",
    "SetRows": "gradstore.store.chunks",
    "ShardRows": "gradstore.store.chunks",
    "Store": "gradstore.store.store",
    "VerifyReport": "gradstore.store.findings",
    "verify": "gradstore.store.verification",
    "verify_at": "gradstore.store.verification",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'gradstore.store' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
