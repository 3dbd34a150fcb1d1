from __future__ import annotations

from gradstore.search import ExactIndex, FaissFlat, FaissHnsw, FaissIvfPq, FaissIvfSq8, FaissRaBitQ
from gradstore.testing.approximate_kit import ApproximateIndexContract
from gradstore.testing.index_kit import IndexContract


class TestExactIndex(IndexContract):
    index_type = ExactIndex


class TestFaissFlat(ApproximateIndexContract):
    index_type = FaissFlat
    least_recall = 1.0


class TestFaissRaBitQ(ApproximateIndexContract):
    index_type = FaissRaBitQ
    least_recall = 0.95


# Cells and graphs keep what is near together; the opponents of these clusters lie in no place of their own.


class TestFaissIvfSq8(ApproximateIndexContract):
    index_type = FaissIvfSq8
    least_recall = 0.4


class TestFaissIvfPq(ApproximateIndexContract):
    index_type = FaissIvfPq
    least_recall = 0.4


class TestFaissHnsw(ApproximateIndexContract):
    index_type = FaissHnsw
    least_recall = 0.4
