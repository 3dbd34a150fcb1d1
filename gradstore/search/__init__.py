"""Which examples answer a query: gradient neighbours (proponents, opponents) and neighbours in latent space.

The exact streaming search is the default and the ground truth; every other index is judged against it.
"""

from gradstore.search.exact import ExactIndex, ExactOptions, exact_both_ends, exact_search
from gradstore.search.faiss_index import FaissFlat, FaissHnsw, FaissIndex, FaissIvfPq, FaissIvfSq8, FaissRaBitQ
from gradstore.search.filters import Filter, exact_duplicates
from gradstore.search.index import Index, IndexCard
from gradstore.search.latent import LatentNeighbours, nearest_latents
from gradstore.search.neighbours import Neighbours
from gradstore.search.precondition import Preconditioner
from gradstore.search.reference import knn_distance
from gradstore.search.rows import LatentRows, QuerySketches, SketchRows, StoredRows, stored_queries
from gradstore.search.searchable import Coverage, Searchable
from gradstore.search.side_by_side import unit_blocks, unit_reference
from gradstore.search.weights import Normalise

__all__ = [
    "Coverage",
    "ExactIndex",
    "ExactOptions",
    "FaissFlat",
    "FaissHnsw",
    "FaissIndex",
    "FaissIvfPq",
    "FaissIvfSq8",
    "FaissRaBitQ",
    "Filter",
    "Index",
    "IndexCard",
    "LatentNeighbours",
    "LatentRows",
    "Neighbours",
    "Normalise",
    "Preconditioner",
    "QuerySketches",
    "Searchable",
    "SketchRows",
    "StoredRows",
    "exact_both_ends",
    "exact_duplicates",
    "exact_search",
    "knn_distance",
    "nearest_latents",
    "stored_queries",
    "unit_blocks",
    "unit_reference",
]
