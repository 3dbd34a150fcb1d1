"""The error of settings, on its own: every dataclass of settings raises it, and some hold others."""

from __future__ import annotations

from gradstore.errors import GradstoreError


class SettingsError(GradstoreError, ValueError):
    """A setting out of its range."""
