"""A share of a labelled set, for semi-supervised evaluation: as many examples of each class."""

import jax
import numpy as np
from jaxtyping import ArrayLike, Int, Integer

from cljax.core import check
from cljax.core.check import KeyLike


def class_shares(key: KeyLike, labels: Integer[ArrayLike, " N"], share: float | int) -> Int[np.ndarray, " n"]:
    r"""Draws the examples whose labels a semi-supervised method sees: of each class as many as of any other, as far as it has them.

    There are $n = \max(C, \operatorname{round}(s N))$ of them, C being the number of classes: one of each class at least. Numbers of two classes
    differ by one at most, unless all examples of the smaller one are drawn. With the same key a smaller share is a part of a larger one.

    Args:
      key: a PRNG key.
      labels: integers `[N]`, concrete: n depends on them.
      share: s, from 0 to 1.

    Returns:
      numpy integers `[n]`, places in `labels`, in random order within each round of classes.

    Raises:
      TypeError: labels that aren't integers, or traced.
      ValueError: no labels, or a share outside of [0, 1].

    Reference: as in Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations" (SimCLR), ICML 2020, section 6.

    >>> labels = np.array([3] * 80 + [5] * 20)
    >>> [np.bincount(labels[class_shares(jax.random.key(0), labels, share)], minlength=6)[[3, 5]].tolist() for share in (0.0, 0.1, 0.6)]
    [[1, 1], [5, 5], [40, 20]]
    """
    check.key("key", key)
    if isinstance(labels, jax.core.Tracer):
        raise TypeError("labels must be concrete, got a traced array: how many are drawn depends on them")
    check.arrays(labels=(labels, "N", "int"))
    check.number("share", share, at_least=0, at_most=1)
    labels = np.asarray(labels)
    if not len(labels):
        raise ValueError("labels must hold one at least, got none")
    order = np.asarray(jax.random.permutation(key, len(labels)))
    order = order[np.argsort(labels[order], kind="stable")]
    rank = np.arange(len(labels)) - np.searchsorted(labels[order], labels[order])  # the place of each among those of its class
    order = order[np.lexsort((jax.random.uniform(jax.random.fold_in(key, 1), (len(labels),)), rank))]
    return order[: max(len(np.unique(labels)), round(share * len(labels)))]
