"""The learned temperature."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from cljax.core import check
from cljax.losses._pairs import Scalar, float_array


def bounded_temperature(log_scale: Scalar, cap: Scalar = 100) -> Float[Array, ""]:
    r"""The temperature of a learned logarithmic scale that is not let beyond a cap: $\tau = 1 / \min(\exp(\text{log\_scale}), \text{cap})$.

    Beyond the cap the value stays and the gradient is 0, so a parameter that an optimiser carried there stays there. CLIP's released code instead
    clamps the parameter after each update (`jnp.minimum(log_scale, jnp.log(cap))`); do so too where it should be able to come back: at the cap
    itself the gradient is whole.

    Args:
      log_scale: a scalar parameter; CLIP starts it at `log(1 / 0.07)`.
      cap: the largest scale, above 0.

    Returns:
      A float32 scalar, at least 1 / cap.

    Raises:
      TypeError: an argument that is not a number.
      ValueError: a cap that is not positive, or a log_scale that is not a scalar.

    Reference: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (CLIP), ICML 2021, section 2.5.
    """
    check.number("log_scale", log_scale)
    check.arrays(log_scale=(log_scale, "", "number"))
    check.positive("cap", cap)
    log_scale, highest = float_array(log_scale), jnp.log(float_array(cap))
    return jnp.exp(-jnp.where(log_scale > highest, highest, log_scale))
