"""A retriever that is trained against a ranker."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float

from cljax.core import check
from cljax.losses._pairs import Scalar, float_array


def adversarial_retriever(
    scores: Float[ArrayLike, "B M"],
    ranker_scores: Float[ArrayLike, "B M"],
    *,
    temperature: Scalar = 1.0,
    form: Literal["paper", "code"] = "paper",
    where: Bool[ArrayLike, "B M"] | None = None,
) -> Float[Array, " B"]:
    r"""How well a ranker tells the negatives that a retriever prefers from the gold candidate: minimised, the retriever finds those that deceive it.

    With candidate 0 the gold one, retriever's scores s, ranker's scores t and $r_j = \log \sigma((t_0 - t_j) / \tau)$,

    $$\sum_{j \ge 1} p_j\, r_j, \qquad p = \operatorname{softmax}(s_1, \ldots, s_{M-1})$$

    is an upper bound of the ranker's log-probability of the gold candidate. `form="code"` is what was released: $\sum_{j \ge 0} r_j \log p_j$ with
    the softmax over all M, the gold one too, and without the weight $p_j$. With one negative the paper's form is constant, its gradient zero; the
    code's is not. The ranker gets no gradient. The published objective adds `soft_cross_entropy(scores, ranker_scores)`; the ranker itself learns by
    the listwise cross-entropy, `grouped_info_nce` of scores.

    Args:
      scores: `[B, M]`, the retriever's; column 0 is the gold candidate, the others are sampled negatives.
      ranker_scores: `[B, M]`, the ranker's.
      temperature: divides the ranker's scores.
      form: "paper" or "code".
      where: `[B, M]` booleans, the candidates that exist.

    Returns:
      float32 `[B]`: not above 0 in the paper's form, not below in the code's; 0 where the gold candidate or every negative is missing.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree, fewer than two candidates, a temperature that is not positive, an unknown form.

    Reference: Zhang et al., "Adversarial Retriever-Ranker for Dense Text Retrieval" (AR2), ICLR 2022, equations 9 and 10. The paper multiplies by
    tau; the released code sums over the batch, which is the caller's to do here.

    >>> import jax.numpy as jnp
    >>> print(adversarial_retriever(jnp.array([[2.0, 1.0, 0.0]]), jnp.array([[3.0, 1.0, -1.0]])).round(4))
    [-0.0977]
    """
    check.choice("form", form, ("paper", "code"))
    check.positive("temperature", temperature)
    sizes = check.arrays(
        scores=(scores, "B M"), ranker_scores=(ranker_scores, "B M"), where=(where, "B M?", "bool"), temperature=(temperature, "", "number")
    )
    check.integer("the number of candidates", sizes["M"], at_least=2)
    exists = jnp.ones(jnp.shape(scores), bool) if where is None else jnp.asarray(where)
    whole = exists[:, :1] & jnp.any(exists[:, 1:], axis=1, keepdims=True)
    exists = exists & whole
    ranked = lax.stop_gradient(jnp.where(exists, float_array(ranker_scores), 0) / float_array(temperature))
    reward = jax.nn.log_sigmoid(ranked[:, :1] - ranked)
    if form == "paper":
        exists = exists.at[:, 0].set(False)
    scores = float_array(scores)
    # Masked with a number: a softmax of nothing but -inf has a NaN gradient.
    log_p = jax.nn.log_softmax(jnp.where(exists, scores, jnp.finfo(scores.dtype).min))
    return jnp.sum(jnp.where(exists, reward * (jnp.exp(log_p) if form == "paper" else log_p), 0), axis=1)
