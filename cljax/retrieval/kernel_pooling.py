"""Scores of pairs from the similarities of their tokens."""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float

from cljax import core
from cljax.core import check


def kernel_pooling(
    queries: Float[ArrayLike, "B Q D"],
    documents: Float[ArrayLike, "B M T D"],
    weights: Float[ArrayLike, "B Q"],
    where: Bool[ArrayLike, "B M T"],
    *,
    centres: Sequence[float] = (1.0, 0.7, 0.4, 0.1),
    deviations: Sequence[float] = (0.02, 0.1, 0.1, 0.1),
) -> Float[Array, "B M features"]:
    r"""How many tokens of a document are how similar to a token of the query, and how near the nearest is: a weighted mean over the query's tokens.

    For each kernel k with centre $\mu_k$ and deviation $\sigma_k$, and with the cosine $c_{qt}$ of two tokens, two features:

    $$\frac{1}{\sum_q w_q} \sum_q w_q \log\Big(1 + \sum_t e^{-(c_{qt} - \mu_k)^2 / 2 \sigma_k^2}\Big), \qquad
    \frac{1}{\sum_q w_q} \sum_q w_q \max_t e^{-(c_{qt} - \mu_k)^2 / 2 \sigma_k^2}$$

    A layer on them ranks the documents of a query; a narrow kernel about 1 counts equal tokens.

    Args:
      queries: `[B, Q, D]`, vectors of tokens.
      documents: `[B, M, T, D]`, those of M documents a query.
      weights: `[B, Q]` of the query's tokens, at least 0; 0 at padding.
      where: `[B, M, T]`, which tokens of a document are real.
      centres, deviations: of the kernels.

    Returns:
      `[B, M, 2 kernels]`, the two features of the first kernel first; 0 for a query without weight.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference: Xiong et al., "End-to-End Neural Ad-hoc Ranking with Kernel Pooling" (K-NRM), SIGIR 2017, equations 3 to 6: there the sums over all
    tokens are taken under the logarithm and without 1, and there is no maximum.

    >>> same = jnp.array([[[1.0, 0.0]]])
    >>> kernel_pooling(same, same[:, None], jnp.ones((1, 1)), jnp.ones((1, 1, 1), bool)).shape
    (1, 1, 8)
    """
    specs = dict(queries=(queries, "B Q D"), documents=(documents, "B M T D"), weights=(weights, "B Q"), where=(where, "B M T", "bool"))
    check.arrays(**specs)
    if len(centres) != len(deviations) or not len(centres):
        raise ValueError(f"centres and deviations must be as many, one at least, got {len(centres)} and {len(deviations)}")
    for deviation in deviations:
        check.positive("deviations", deviation)
    weights, where = jnp.asarray(weights), jnp.asarray(where)[:, :, None]
    product = partial(jnp.einsum, precision=lax.Precision.HIGHEST)  # what the kernels tell apart is small
    cosines = product("bqd,bmtd->bmqt", core.safe_normalize(queries), core.safe_normalize(documents))
    features = []
    for centre, deviation in zip(centres, deviations, strict=True):  # one after the other: with an axis of kernels a step takes twice as long
        near = jnp.exp(-0.5 * jnp.square((cosines - centre) / deviation)) * where
        features += [jnp.log1p(jnp.sum(near, axis=-1)), jnp.max(near, axis=-1)]
    total = jnp.sum(weights, axis=1, keepdims=True)
    return product("bq,bmqf->bmf", weights / jnp.where(total == 0, 1, total), jnp.stack(features, axis=-1))
