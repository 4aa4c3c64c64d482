"""Searching a collection, by embeddings or by words."""

from cljax.retrieval.lexical import bm25, tf_idf
from cljax.retrieval.search import search

__all__ = ["bm25", "search", "tf_idf"]
