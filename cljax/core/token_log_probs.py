"""What logits say of the tokens that are there."""

import jax
import jax.numpy as jnp

from cljax.core import check


def token_log_probs(logits, tokens, mask=None):
    r"""The log-probability of each token, $z_{y_t} - \log \sum_v e^{z_v}$.

    Args:
      logits: `[..., T, V]` floats; computed in float32 at least.
      tokens: `[..., T]` integers.
      mask: `[..., T]` booleans, which tokens count. None: all.

    Returns:
      `[..., T]`; 0 where a token doesn't count, NaN where one that does lies outside the vocabulary.

    Raises:
      TypeError, ValueError: an argument of another kind or shape.

    >>> jnp.exp(token_log_probs(jnp.log(jnp.array([[0.25, 0.75], [0.5, 0.5]])), jnp.array([1, 0]))).round(2).tolist()
    [0.75, 0.5]
    """
    check.arrays(logits=(logits, "... T V"), tokens=(tokens, "... T", "int"), mask=(mask, "... T?", "bool"))
    for name, value in (("tokens", tokens), ("mask", mask)):
        if value is not None and jnp.shape(value) != jnp.shape(logits)[:-1]:
            raise ValueError(f"{name} must have shape {list(jnp.shape(logits)[:-1])} as logits without the last axis, got {list(jnp.shape(value))}")
    logits, tokens = jnp.asarray(logits, jnp.promote_types(jnp.result_type(logits), jnp.float32)), jnp.asarray(tokens)
    if mask is not None:  # overwritten before, so that no NaN of padding reaches a gradient
        logits, tokens = jnp.where(jnp.asarray(mask)[..., None], logits, 0), jnp.where(mask, tokens, 0)
    place = jnp.where(tokens < 0, logits.shape[-1], tokens)[..., None]  # a negative one would count from the end
    chosen = jnp.take_along_axis(logits, place, axis=-1, mode="fill", fill_value=jnp.nan)[..., 0]
    values = chosen - jax.nn.logsumexp(logits, axis=-1)
    return values if mask is None else jnp.where(mask, values, 0)
