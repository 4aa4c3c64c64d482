"""The ground that every room stands on; it imports nothing of cljax."""

from cljax.core import check, provenance
from cljax.core.clustering import KMeans, kmeans
from cljax.core.compat import vary, varying_axes
from cljax.core.dropout import apply_with_dropout
from cljax.core.mmd import mmd
from cljax.core.numerics import safe_norm, safe_normalize, softplus, unit_factors
from cljax.core.permutation import mixed, permutation, permuted, shuffled
from cljax.core.resample import systematic_resample
from cljax.core.sampling import gumbel_top_k
from cljax.core.token_log_probs import token_log_probs
from cljax.core.transport import Transport, sinkhorn

__all__ = [
    "KMeans",
    "Transport",
    "apply_with_dropout",
    "check",
    "gumbel_top_k",
    "kmeans",
    "mixed",
    "mmd",
    "permutation",
    "permuted",
    "provenance",
    "safe_norm",
    "safe_normalize",
    "shuffled",
    "sinkhorn",
    "softplus",
    "systematic_resample",
    "token_log_probs",
    "unit_factors",
    "vary",
    "varying_axes",
]
