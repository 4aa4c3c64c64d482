"""One state of a text out of those of its tokens."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from cljax.core import check


def last_state(hidden: Float[ArrayLike, "B L D"], mask: Bool[ArrayLike, "B L"]) -> Float[Array, "B D"]:
    """The state of each text's last real token, which in a `Decoder` has seen all of the text: what a reward model or a retriever reads.

    Args:
      hidden: `[B, L, D]`, the states.
      mask: `[B, L]`, which tokens are real, wherever they stand.

    Returns:
      `[B, D]`, of the dtype of the states; 0 where a text has no token.

    Raises:
      TypeError, ValueError: an argument of another shape or dtype.

    Reference: Ouyang et al., "Training Language Models to Follow Instructions with Human Feedback", NeurIPS 2022 (a reward model's score).

    >>> last_state(jnp.arange(6.0).reshape(1, 3, 2), jnp.array([[True, True, False]])).tolist()
    [[2.0, 3.0]]
    """
    length = check.arrays(hidden=(hidden, "B L D"), mask=(mask, "B L", "bool"))["L"]
    last = jnp.max(jnp.where(mask, jnp.arange(length), -1), axis=1, initial=-1)
    place = jnp.where(last < 0, length, last)[:, None, None]  # a negative one would count from the end
    return jnp.take_along_axis(jnp.asarray(hidden), place, axis=1, mode="fill", fill_value=0)[:, 0]
