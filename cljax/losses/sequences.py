"""Sequences of tokens: how likely a model finds them, and how alike their hidden states are."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Integer

from cljax.core import check, safe_normalize, token_log_probs
from cljax.losses import _pairs
from cljax.losses._pairs import Scalar
from cljax.losses.averaging import Masked
from cljax.pairwise.similarity import product

Mask = Bool[ArrayLike, "*batch T"] | None


def sequence_logprob(logits: Float[ArrayLike, "*batch T V"], tokens: Integer[ArrayLike, "*batch T"], mask: Mask = None) -> Float[Array, "*batch"]:
    r"""The log-probability of whole sequences, $\sum_t \log \operatorname{softmax}(z_t)_{y_t}$: what `dpo`, `copg` or `reinforce` take.

    Args:
      logits: `[..., T, V]`; those at t predict token t: of a model of next tokens that was given `tokens`, they are those of the place before.
      tokens: integers `[..., T]`.
      mask: `[..., T]` booleans, the tokens that count: of a generation, without the prompt and the padding. None: all.

    Returns:
      float32 `[...]`; 0 where no token counts, NaN where one that counts is outside the vocabulary.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree.

    >>> logits = jnp.log(jnp.array([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [1.0, 1.0, 1.0]]]))
    >>> print(f"{jnp.exp(sequence_logprob(logits, jnp.array([[0, 2, 1]]), jnp.array([[True, True, False]])))[0]:.4f}")
    0.4000
    """
    return jnp.sum(token_log_probs(logits, tokens, mask), axis=-1)


def token_cross_entropy(logits: Float[ArrayLike, "*batch T V"], tokens: Integer[ArrayLike, "*batch T"], mask: Mask = None) -> Masked:
    r"""How unlikely each token is, $-\log \operatorname{softmax}(z_t)_{y_t}$: its `losses.mean` is the loss of a language model, the exponential of
    that its perplexity.

    Args:
      logits, tokens, mask: as in `sequence_logprob`.

    Returns:
      `Masked` of float32 values and booleans, both `[..., T]`: the mean is over all tokens that count, so that long texts weigh more.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree.

    >>> from cljax import losses
    >>> logits, tokens = jnp.zeros((1, 3, 8)), jnp.array([[5, 0, -1]])
    >>> print(jnp.exp(losses.mean(token_cross_entropy(logits, tokens, tokens >= 0))).round(4))
    8.0
    """
    values = -token_log_probs(logits, tokens, mask)
    return Masked(values, jnp.ones(values.shape, bool) if mask is None else jnp.asarray(mask))


def simctg(
    hidden: Float[ArrayLike, "B S E"], *, margin: Scalar = 0.5, mask: Bool[ArrayLike, "B S"] | None = None, axis_name: str | None = None
) -> Float[Array, ""]:
    r"""How far the states of two tokens of one sequence come nearer each other than a margin allows.

    $$\frac{\sum_b \sum_{i \ne j} [\rho - 1 + \cos(h_{bi}, h_{bj})]_+}{\sum_b n_b (n_b - 1)}$$

    with $n_b$ tokens in sequence b: every pair of all sequences counts the same, so long ones weigh more, as in the released code; the paper takes
    the mean over sequences of the mean of each. Two places of the same word are a pair like any other. Nonlinear in the count of pairs, hence a
    scalar: differentiate it as it is (see `losses.mean`).

    Args:
      hidden: `[B, S, E]`, the states that enter the output projection; they are normalised.
      margin: $\rho$, from -1 to 1; with 0 or less nothing is asked.
      mask: `[B, S]` booleans, the tokens that count. None: all.
      axis_name: the mapped axis over which the sequences are split, or None.

    Returns:
      A float32 scalar, the same on every device, from 0 to $\rho$; 0 where no sequence has two tokens.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree, a margin outside [-1, 1], an axis that is not mapped.

    Reference: Su et al., "A Contrastive Framework for Neural Text Generation" (SimCTG), NeurIPS 2022, equation 2.

    >>> hidden = jnp.array([[[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]]])
    >>> print(f"{simctg(hidden):.6f}")
    0.066667
    """
    sizes = check.arrays(hidden=(hidden, "B S E"), mask=(mask, "B S?", "bool"))
    check.number("margin", margin, at_least=-1, at_most=1)
    check.arrays(margin=(margin, "", "number"))
    check.axis("axis_name", axis_name)
    kept = jnp.ones((sizes["B"], sizes["S"]), bool) if mask is None else jnp.asarray(mask)
    unit = safe_normalize(jnp.where(kept[..., None], hidden, 0))
    pairs = kept[:, :, None] & kept[:, None, :] & ~jnp.eye(sizes["S"], dtype=bool)
    near = jax.nn.relu(jax.vmap(product)(unit, unit) + (margin - 1))
    count = _pairs.total(pairs, axis_name).astype(near.dtype)
    return _pairs.total(jnp.where(pairs, near, 0), axis_name) / jnp.maximum(count, 1)
