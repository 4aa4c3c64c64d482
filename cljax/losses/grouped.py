"""InfoNCE where each anchor brings its own positives and negatives."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from cljax.core import check
from cljax.losses import _pairs
from cljax.losses._pairs import Similarity, Temperature, Where


def grouped_info_nce(
    anchors: Float[ArrayLike, "B D"],
    positives: Float[ArrayLike, "B P D"],
    negatives: Float[ArrayLike, "B M D"],
    *,
    temperature: Temperature,
    positive_weights: Float[ArrayLike, "... P"] | Bool[ArrayLike, "... P"] | None = None,
    negative_weights: Float[ArrayLike, "... M"] | Bool[ArrayLike, "... M"] | None = None,
    combine: Literal["inside", "outside", "apart"] = "inside",
    where: Where = None,
    similarity: Similarity = "cosine",
) -> Float[Array, " B"]:
    r"""How badly each anchor picks its own positives among its own candidates; nothing is shared in the batch.

    With weights w and w', $N = \sum_p w_p \exp(s_p/\tau)$ and $G = \sum_m w'_m \exp(s_m/\tau)$, `combine` says how several positives make one value:
      "inside" the logarithm: $-\log \frac{N}{N + G}$;
      "outside" it: the mean over positives, weighted by w, of $-\log \frac{\exp(s_p/\tau)}{N + G}$;
      "apart": the mean over positives, weighted by w, of $-\log \frac{\exp(s_p/\tau)}{\exp(s_p/\tau) + G}$, so that positives don't compete.
    Scores that are already made are embeddings of width 1: anchors of ones and similarity "dot" give the listwise cross-entropy.

    Args:
      anchors: `[B, D]` embeddings.
      positives: `[B, P, D]` embeddings.
      negatives: `[B, M, D]` embeddings.
      temperature: divides the similarity; above 0, a scalar or `[B]`.
      positive_weights: `[B, P]` or `[P]`, not below 0; 0 or False leaves the entry out, whatever it holds.
      negative_weights: `[B, M]` or `[M]`, likewise.
      combine: "inside", "outside" or "apart"; all the same for one positive of weight 1.
      where: `[B]` booleans, the valid anchors.
      similarity: as in `pairwise.reduce`.

    Returns:
      float32 `[B]`; 0 for an anchor that is not valid or has no positive.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree, a temperature that is not positive, a negative weight, an unknown `combine`.

    Reference: Jain et al., "ColloSSL: Collaborative Self-Supervised Learning for Human Activity Recognition", 2022 (inside, weighted).
    """
    check.choice("combine", combine, ("inside", "outside", "apart"))
    arrays = dict(anchors=(anchors, "B D"), positives=(positives, "B P D"), negatives=(negatives, "B M D"), where=(where, "B?", "bool"))
    scale = _pairs.scale(temperature, check.arrays(**arrays)["B"], where)[:, None]
    w = _pairs.drop(where, _weights("positive_weights", positive_weights, positives))
    v = _pairs.drop(where, _weights("negative_weights", negative_weights, negatives))
    anchors = _pairs.drop(where, anchors)[:, None]
    p = _pairs.aligned(anchors, jnp.where(w[..., None] > 0, positives, 0), similarity) * scale
    n = _pairs.aligned(anchors, jnp.where(v[..., None] > 0, negatives, 0), similarity) * scale
    ours, theirs = _log_sum(p, w), _log_sum(n, v)
    if combine == "inside":
        values = jax.nn.softplus(theirs - ours)
    else:
        each = jax.nn.softplus(theirs[:, None] - p) if combine == "apart" else jnp.logaddexp(ours, theirs)[:, None] - p
        values = jnp.sum(w * each, axis=1) / jnp.maximum(jnp.sum(w, axis=1), jnp.finfo(w.dtype).tiny)
    return jnp.where(jnp.any(w > 0, axis=1), values, 0)


def _weights(name, weights, others):
    """The weights of a list as floats, `[B, P]`; 0 where an entry is left out."""
    shape = np.shape(others)[:2]
    if weights is None:
        return jnp.ones(shape)
    check.arrays(**{name: (weights, " ".join(map(str, shape[-np.ndim(weights) :])), None)})
    if not jnp.issubdtype(jnp.result_type(weights), jnp.bool_) and np.size(weights):
        check.number(name, weights if isinstance(weights, jax.core.Tracer) else np.min(weights), at_least=0, several=True)
    return jnp.broadcast_to(_pairs.float_array(weights), shape)


def _log_sum(logits, weights):
    """log of the weighted sum of exponentials, `[B]`."""
    kept = weights > 0
    return _pairs.log_sum_exp(logits + jnp.log(jnp.where(kept, weights, 1)), kept)
