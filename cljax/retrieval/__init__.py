"""Searching a collection."""

from cljax.retrieval.search import search

__all__ = ["search"]
