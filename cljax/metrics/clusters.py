"""Clusters against classes. Measures that need no matching (NMI, ARI, V-measure) are scikit-learn's."""

import jax
import numpy as np
from jaxtyping import ArrayLike, Integer

from cljax.core import check


def cluster_accuracy(clusters: Integer[ArrayLike, " N"], labels: Integer[ArrayLike, " N"]) -> float:
    r"""The share of examples whose cluster is that of their class, $\max_m \frac1N \sum_i [m(c_i) = y_i]$, under the best one-to-one matching m.

    The matching is found by the Hungarian algorithm on the table of counts, outside of jit. Where there are more clusters than classes some are
    matched to none, and their examples are wrong.

    Args:
      clusters: integers `[N]`, any values.
      labels: integers `[N]`, any values.

    Returns:
      A Python float from 0 to 1.

    Raises:
      TypeError, ValueError: an argument of another shape or dtype, a traced argument, no examples.

    Reference:
      Xie et al., "Unsupervised Deep Embedding for Clustering Analysis", ICML 2016, equation 10.

    >>> cluster_accuracy(np.array([7, 7, 7, 2, 2]), np.array([0, 0, 1, 1, 1]))
    0.8
    """
    total = check.arrays(clusters=(clusters, "N", "int"), labels=(labels, "N", "int"))["N"]
    for name, value in (("clusters", clusters), ("labels", labels)):
        if isinstance(value, jax.core.Tracer):
            raise TypeError(f"{name} is traced, and cluster_accuracy runs scipy outside jit")
    if total == 0:
        raise ValueError("clusters must not be empty, got shape [0]")
    from scipy.optimize import linear_sum_assignment

    (_, row), (_, column) = (np.unique(np.asarray(x), return_inverse=True) for x in (clusters, labels))
    table = np.zeros((row.max() + 1, column.max() + 1), np.int64)
    np.add.at(table, (row, column), 1)
    return float(table[linear_sum_assignment(table, maximize=True)].sum() / total)
