"""The ground that every room stands on; it imports nothing of cljax."""

from cljax.core import check, provenance
from cljax.core.compat import vary, varying_axes
from cljax.core.numerics import safe_norm, safe_normalize, unit_factors
from cljax.core.permutation import mixed, permutation, permuted, shuffled

__all__ = [
    "check",
    "mixed",
    "permutation",
    "permuted",
    "provenance",
    "safe_norm",
    "safe_normalize",
    "shuffled",
    "unit_factors",
    "vary",
    "varying_axes",
]
