"""A student's distribution against a teacher's."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float

from cljax.core import check
from cljax.losses._pairs import Scalar, float_array


def soft_cross_entropy(
    logits: Float[ArrayLike, "*batch K"],
    teacher: Float[ArrayLike, "*batch K"],
    *,
    temperature: Scalar = 1.0,
    teacher_temperature: Scalar = 1.0,
    where: Bool[ArrayLike, "*batch K"] | None = None,
) -> Float[Array, "*batch"]:
    r"""Cross-entropy of the student's softmax from the teacher's.

    $$-\sum_j \operatorname{softmax}(t / \tau_t)_j \log \operatorname{softmax}(s / \tau)_j$$

    No gradient goes to the teacher. With Hinton's one temperature for both, multiply the loss by its square to keep the size of the gradient.

    Args:
      logits: `[..., K]` scores of the student.
      teacher: `[..., K]` scores of the teacher; probabilities p are given as `jnp.log(p)`.
      temperature: divides the student's scores.
      teacher_temperature: divides the teacher's.
      where: `[..., K]` booleans, the candidates that exist: others are left out on both sides.

    Returns:
      float32 `[...]`, not below the teacher's entropy; 0 where there is no candidate.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree, a temperature that is not positive.

    Reference: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, equation 1; Zhang et al., "Adversarial Retriever-Ranker for
    Dense Text Retrieval" (AR2), ICLR 2022, equation 12.
    """
    check.arrays(logits=(logits, "... K"), teacher=(teacher, "... K"), where=(where, "... K?", "bool"))
    for name, value in (("teacher", teacher), ("where", where)):
        if value is not None and jnp.shape(value) != jnp.shape(logits):
            raise ValueError(f"{name} must have the shape of logits, {list(jnp.shape(logits))}, got {list(jnp.shape(value))}")
    for name, value in (("temperature", temperature), ("teacher_temperature", teacher_temperature)):
        check.positive(name, value)
        check.arrays(**{name: (value, "", "number")})
    target = jax.nn.softmax(_scaled(lax.stop_gradient(float_array(teacher)), lax.stop_gradient(teacher_temperature), where))
    log_p = jax.nn.log_softmax(_scaled(float_array(logits), temperature, where))
    exists = jnp.ones(jnp.shape(logits), bool) if where is None else where
    # What the teacher excludes counts 0, also where the student does (0 times -inf); a NaN of either side stays.
    return -jnp.sum(jnp.where(exists & (target != 0), target * log_p, 0), axis=-1)


def _scaled(logits, temperature, where):
    # Scaled first and masked after, with a number: -inf over a learned temperature has a NaN gradient, and so has a softmax of nothing but -inf.
    scaled = (logits if where is None else jnp.where(where, logits, 0)) / float_array(temperature)
    return scaled if where is None else jnp.where(where, scaled, jnp.finfo(scaled.dtype).min)
