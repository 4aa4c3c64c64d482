"""Entropies of predictions: how sure each is, of its class or of the anchor it belongs to; how evenly all of them use the classes."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float

from cljax import pairwise
from cljax.core import check
from cljax.losses import _pairs
from cljax.losses._pairs import Implementation, Scalar, Similarity, Where, float_array
from cljax.losses.averaging import mean
from cljax.pairwise import LogSumExp, Sum


def entropy(logits: Float[ArrayLike, "*batch K"], *, where: Bool[ArrayLike, "*batch K"] | None = None) -> Float[Array, "*batch"]:
    r"""The entropy of a softmax, $-\sum_k p_k \log p_k$ with $p = \operatorname{softmax}(\text{logits})$, in nats.

    Some released code adds 1e-5 inside the logarithm, which lowers each entropy by about 1e-5 K.

    >>> import jax.numpy as jnp
    >>> from cljax import losses
    >>> print(losses.entropy(jnp.log(jnp.array([0.5, 0.5, 0.0]))))
    0.6931472

    Args:
      logits: `[..., K]` scores; probabilities p are given as `jnp.log(p)`.
      where: `[..., K]` booleans, the classes that exist: others are left out.

    Returns:
      float32 `[...]`, from 0 to log K; 0 where there is no class.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree.

    Reference: Grandvalet & Bengio, "Semi-supervised Learning by Entropy Minimization", NeurIPS 2004.
    """
    check.arrays(logits=(logits, "... K"), where=(where, "... K?", "bool"))
    if where is not None and jnp.shape(where) != jnp.shape(logits):
        raise ValueError(f"where must have the shape of logits, {list(jnp.shape(logits))}, got {list(jnp.shape(where))}")
    logits = float_array(logits)
    logits = logits if where is None else jnp.where(where, logits, jnp.finfo(logits.dtype).min)
    log_p = jax.nn.log_softmax(logits)
    p = jnp.exp(log_p)
    counts = p != 0 if where is None else where & (p != 0)
    return -jnp.sum(jnp.where(counts, p * jnp.where(counts, log_p, 0), 0), axis=-1)


def anchor_entropy(
    embeddings: Float[ArrayLike, "B D"],
    anchors: Float[ArrayLike, "N D"],
    *,
    temperature: Scalar = 1.0,
    where: Where = None,
    anchor_where: Bool[ArrayLike, " N"] | None = None,
    similarity: Similarity = "cosine",
    block_size: int | None = None,
    implementation: Implementation = "auto",
) -> Float[Array, " B"]:
    r"""The entropy of a softmax over similarities to anchors: low where an embedding has made up its mind which of them it belongs to.

    $$-\sum_j d_{ij} \log d_{ij}, \qquad d_i = \operatorname{softmax}_j(\cos(z_i, m_j) / \tau)$$
    No gradient goes to the anchors, features of labelled examples that a `memory.bank` keeps. Without a temperature the logits lie in [-1, 1], and it
    can't fall more than 0.4745 below the logarithm of the number of anchors.

    >>> import jax.numpy as jnp
    >>> from cljax import losses
    >>> values = losses.anchor_entropy(jnp.array([[1.0, 0.0], [0.6, 0.8], [1.0, 1.0]]), jnp.array([[2.0, 0.0], [0.0, 1.0]]))
    >>> print(f"{losses.mean(values):.4f}")
    0.6545

    Args:
      embeddings: `[B, D]`.
      anchors: `[N, D]`, the same on every device.
      temperature: tau, a scalar.
      where: `[B]` booleans, the valid rows; the value of others is 0.
      anchor_where: `[N]` booleans, the anchors that exist.
      similarity, block_size, implementation: as in `pairwise.reduce`.

    Returns:
      float32 `[B]`, from 0 to the logarithm of the number of anchors; 0 where there is none.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree, a temperature that is not positive.

    Reference: Lyu et al., "Learn from the Learnt: Source-Free Active Domain Adaptation via Contrastive Sampling and Visual Persistence", ECCV 2024;
    the released code adds 1e-5 inside the logarithm, which lowers it by about 1e-5 N.
    """
    arrays = dict(embeddings=(embeddings, "B D"), anchors=(anchors, "N D"), where=(where, "B?", "bool"), anchor_where=(anchor_where, "N?", "bool"))
    check.arrays(**arrays, temperature=(temperature, "", "number"))
    check.positive("temperature", temperature)
    embeddings, anchors = _pairs.drop(where, embeddings), lax.stop_gradient(_pairs.drop(anchor_where, anchors))
    how = dict(columns=_pairs.present(where=anchor_where), params=float_array(temperature), similarity=similarity)
    how |= dict(block_size=block_size, implementation=implementation)
    total = pairwise.reduce(embeddings, anchors, _log_total, **how)
    exists = total != -jnp.inf
    total = jnp.where(exists, total, 0)
    expected = pairwise.reduce(embeddings, anchors, _expected, rows=total, **how)
    return _pairs.drop(where, jnp.where(exists, total - expected, 0))


def _log_total(scores, row, column, temperature):
    return LogSumExp(scores / temperature, column.get("where"))


def _expected(scores, total, column, temperature):
    logits = scores / temperature
    return Sum(jnp.exp(jnp.minimum(logits - total, 0)) * logits, column.get("where"))


def info_max(logits: Float[ArrayLike, "B K"], *, where: Where = None, axis_name: str | None = None) -> Float[Array, ""]:
    r"""Information maximisation: each prediction sure, all together even; minus the information that the input gives on the class.

    $$\frac1n \sum_i H(p_i) - H\left(\frac1n \sum_i p_i\right), \qquad p_i = \operatorname{softmax}(\text{logits}_i)$$

    Nonlinear in the whole batch, hence a scalar that is reduced over devices inside the second entropy; differentiate it as it is (see
    `losses.mean`). The first term alone, entropy minimisation, is `losses.mean(losses.entropy(logits))`.

    >>> import jax.numpy as jnp
    >>> from cljax import losses
    >>> print(f"{losses.info_max(jnp.array([[2.0, 0, -1], [0, 1, 0], [0.5, 0.5, 3]])):.6f}")
    -0.415560

    Args:
      logits: `[B, K]` scores.
      where: `[B]` booleans, the valid rows.
      axis_name: the mapped axis over which the rows are split, or None.

    Returns:
      A float32 scalar, the same on every device, from -log K to 0; 0 where no row is valid.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree, an axis that is not mapped.

    Reference: Krause et al., "Discriminative Clustering by Regularized Information Maximization", NeurIPS 2010, equation 3; Liang et al., "Do We
    Really Need to Access the Source Data?" (SHOT), ICML 2020, equations 2 and 3.
    """
    batch = check.arrays(logits=(logits, "B K"), where=(where, "B?", "bool"))["B"]
    check.axis("axis_name", axis_name)
    logits = _pairs.drop(where, float_array(logits))
    average = _pairs.total(_pairs.drop(where, jax.nn.softmax(logits)), axis_name, axis=0) / jnp.maximum(_pairs.valid(batch, where, axis_name), 1)
    used = average != 0
    marginal = -jnp.sum(jnp.where(used, average * jnp.log(jnp.where(used, average, 1)), 0))
    return mean(entropy(logits), where, axis_name) - marginal
