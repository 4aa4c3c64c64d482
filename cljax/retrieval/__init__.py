"""Searching a collection, by embeddings or by words, and ranking what was found."""

from cljax.retrieval.kernel_pooling import kernel_pooling
from cljax.retrieval.lexical import bm25, tf_idf
from cljax.retrieval.search import search

__all__ = ["bm25", "kernel_pooling", "search", "tf_idf"]
