"""The engine: reductions and top-k over all pairs of queries and keys. Used qualified: `pairwise.reduce`."""

from cljax.pairwise.engine import index, reduce
from cljax.pairwise.terms import LogSumExp, Max, Sum, TermFn
from cljax.pairwise.topk import top_k

__all__ = ["LogSumExp", "Max", "Sum", "TermFn", "index", "reduce", "top_k"]
