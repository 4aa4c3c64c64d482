"""The engine: reductions and top-k over all pairs of queries and keys. Used qualified: `pairwise.reduce`."""

from cljax.pairwise.engine import index, reduce
from cljax.pairwise.terms import LogSumExp, Max, Sum, TermFn

__all__ = ["LogSumExp", "Max", "Sum", "TermFn", "index", "reduce"]
