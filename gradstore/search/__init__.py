"""Which examples answer a query: gradient neighbours (proponents, opponents) and neighbours in latent space.

The exact streaming search is the default and the ground truth; every other index is judged against it.
"""

from gradstore.search.exact import ExactIndex, exact_both_ends, exact_search
from gradstore.search.faiss_flat import FaissFlat
from gradstore.search.index import Index, IndexCard
from gradstore.search.latent import LatentNeighbours, knn_distance, nearest_latents
from gradstore.search.neighbours import Neighbours
from gradstore.search.rows import LatentRows, QuerySketches, SketchRows, StoredRows, stored_queries
from gradstore.search.side_by_side import unit_blocks, unit_reference
from gradstore.search.weights import Normalise

__all__ = [
    "ExactIndex",
    "FaissFlat",
    "Index",
    "IndexCard",
    "LatentNeighbours",
    "LatentRows",
    "Neighbours",
    "Normalise",
    "QuerySketches",
    "SketchRows",
    "StoredRows",
    "exact_both_ends",
    "exact_search",
    "knn_distance",
    "nearest_latents",
    "stored_queries",
    "unit_blocks",
    "unit_reference",
]
