"""The gradient store: sketches, exact norms, losses and latents of every example at every checkpoint, on disk.

FORMAT.md beside this file says what lies where.
"""

from __future__ import annotations

from gradstore.store.chunks import SetRows, ShardRows
from gradstore.store.manifest import Manifest
from gradstore.store.store import Store
from gradstore.store.verify import VerifyReport, verify

__all__ = ["Manifest", "SetRows", "ShardRows", "Store", "VerifyReport", "verify"]
