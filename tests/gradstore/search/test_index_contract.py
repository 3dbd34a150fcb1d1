from __future__ import annotations

from gradstore.search import ExactIndex, FaissFlat
from gradstore.testing.index_kit import IndexContract


class TestExactIndex(IndexContract):
    index_type = ExactIndex


class TestFaissFlat(IndexContract):
    index_type = FaissFlat
    rounding = 2.0**-11
