"""Clusters against classes. Measures that need no matching (NMI, ARI, V-measure) are scikit-learn's."""

import jax
import numpy as np
from jaxtyping import ArrayLike, Integer

from cljax.core import check


def match_clusters(clusters: Integer[ArrayLike, " N"], labels: Integer[ArrayLike, " N"], *, unmatched: int = -1) -> Integer[np.ndarray, " N"]:
    r"""Calls each cluster by a class: what a classifier would have said, had it known which cluster is which.

    The one-to-one matching that makes the most examples right is found by the Hungarian algorithm on the table of counts, outside of jit. Where there
    are more clusters than classes some are matched to none. Macro F1 and a confusion matrix come from this and scikit-learn.

    Args:
      clusters: integers `[N]`, any values.
      labels: integers `[N]`, any values.
      unmatched: what the examples of a cluster are called that is matched to no class.

    Returns:
      Integers `[N]`, labels that occur or `unmatched`, in numpy.

    Raises:
      TypeError, ValueError: an argument of another shape or dtype, a traced argument, no examples; `unmatched` is a label.

    >>> match_clusters(np.array([7, 7, 7, 2, 2, 3]), np.array([0, 0, 1, 1, 1, 1])).tolist()
    [0, 0, 0, 1, 1, -1]
    """
    check.integer("unmatched", unmatched)
    named, matched = _named(clusters, labels)
    if unmatched in np.asarray(labels):
        raise ValueError(f"unmatched must be no label, got {unmatched}")
    return np.where(matched, named, unmatched)


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
    named, matched = _named(clusters, labels)
    return float(np.mean(matched & (named == np.asarray(labels))))


def _named(clusters, labels):
    """The class that each example's cluster is matched with, and whether it is with any: `[N]` each."""
    total = check.arrays(clusters=(clusters, "N", "int"), labels=(labels, "N", "int"))["N"]
    for name, value in (("clusters", clusters), ("labels", labels)):
        if isinstance(value, jax.core.Tracer):
            raise TypeError(f"{name} is traced, and clusters are matched by scipy outside jit")
    if total == 0:
        raise ValueError("clusters must not be empty, got shape [0]")
    from scipy.optimize import linear_sum_assignment

    (found, row), (classes, column) = (np.unique(np.asarray(x), return_inverse=True) for x in (clusters, labels))
    table = np.zeros((len(found), len(classes)), np.int64)
    np.add.at(table, (row, column), 1)
    of, by = linear_sum_assignment(table, maximize=True)
    names, matched = np.zeros(len(found), classes.dtype), np.zeros(len(found), bool)
    names[of], matched[of] = classes[by], True
    return names[row], matched[row]
