"""Similarities as one product of a query's vector and a key's, with an elementwise finish.

What a vector needs to take part (`units`) is one or two numbers a row, made once; a block is put in order where it is loaded, so that no second copy
of all queries or keys is held.
"""

import jax
import jax.numpy as jnp
from jax import lax

from cljax.core import safe_normalize, unit_factors

SIMILARITIES = ("dot", "cosine", "sqeuclidean")


def accumulator(*arrays):
    """The dtype of scores and sums: float32 for any narrower input, float64 for float64."""
    return jnp.promote_types(jnp.result_type(*arrays), jnp.float32)


def narrow(similarity, queries, keys):
    """Whether products are made in bfloat16: where both sides are, and the hardware multiplies it faster than float32."""
    return similarity != "sqeuclidean" and queries.dtype == keys.dtype == jnp.bfloat16 and jax.default_backend() != "cpu"


def centre(similarity, keys, axis_name=None):
    """The point from which squared distances are taken; they do not depend on it, so it has no gradient. None for other similarities."""
    if similarity != "sqeuclidean":
        return None
    keys = lax.stop_gradient(keys.astype(accumulator(keys)))
    mean = jnp.mean(jnp.where(jnp.isfinite(keys), keys, 0), axis=0)  # one that is not finite shall not make all distances so
    return mean if axis_name is None else lax.pmean(mean, axis_name)


def units(similarity, x, centre):
    """What `load` and `finish` need to know of each vector, a tuple of `[n, 1]`."""
    if similarity == "cosine":
        return unit_factors(x)
    if similarity == "sqeuclidean":
        x = x.astype(accumulator(x)) - centre
        return (-jnp.sum(x * x, axis=-1, keepdims=True),)
    return ()


def load(similarity, side, x, units, centre, narrow=False):
    """A block of vectors as a factor of the product, `[n, E]`; `side` is "left" (queries) or "right" (keys).

    Minus the squared distance, `2 q.k - |q|^2 - |k|^2`, is one product of vectors with two more entries; the inputs are centred, as far from the
    origin the three terms would cancel. Vectors that stay in bfloat16 are normalised after the product.
    """
    if similarity == "cosine":
        power, inverse = units
        return x * power.astype(x.dtype) if narrow else x.astype(inverse.dtype) * power * inverse
    if similarity == "sqeuclidean":
        x, (square,) = x.astype(accumulator(x)) - centre, units
        return jnp.concatenate([2 * x, square, jnp.ones_like(square)] if side == "left" else [x, jnp.ones_like(square), square], axis=-1)
    return x


def finish(similarity, products, left_units, right_units, narrow=False):
    """The scores from the product of the factors: no squared distance is below 0. `right_units` are `[1, n]` each."""
    if similarity == "cosine" and narrow:
        return products * left_units[1] * right_units[1]
    return jnp.minimum(products, 0) if similarity == "sqeuclidean" else products


def pull(similarity, side, x, known, total, centre, narrow=False):
    """The gradient of vectors `x`, in `accumulator`, from `total` `[n, E]`: the sum of (gradient of a product) times (the other side's factor).

    `known` are the vectors' `units`.
    """
    if similarity == "dot":
        return total
    x = x.astype(accumulator(x))
    if similarity == "sqeuclidean":
        return jax.vjp(lambda x: load(similarity, side, x, units(similarity, x, centre), centre), x)[1](total)[0]
    power, inverse = known
    scaled, weight = x * power, 1 if narrow else inverse
    return power * (weight * total - scaled * (weight * inverse**2 * jnp.sum(scaled * total, axis=-1, keepdims=True)))


def product(x, y, contract=(1, 1)):
    """Matrix product over axis `contract[0]` of x and `contract[1]` of y, accumulated and returned in `accumulator`.

    Float32 factors are multiplied in float32 also where the hardware's default is narrower (TF32, bfloat16), unless `jax_default_matmul_precision`
    is set: at temperature 0.01 an error of 1e-3 in a score is 10 % of its exponential.
    """
    dtype = accumulator(x, y)
    if x.dtype != y.dtype or jax.default_backend() == "cpu":  # XLA:CPU multiplies narrow floats more slowly than float32
        x, y = x.astype(dtype), y.astype(dtype)
    precision = None if jax.config.jax_default_matmul_precision else lax.Precision.HIGHEST
    return lax.dot_general(x, y, (((contract[0],), (contract[1],)), ((), ())), precision=precision, preferred_element_type=dtype)


def scores(similarity, queries, keys, centre):
    """The whole matrix of similarities, `[b, n]`, in plain operations."""
    if similarity == "cosine":
        return product(safe_normalize(queries), safe_normalize(keys))
    sides = [load(similarity, side, x, units(similarity, x, centre), centre) for side, x in (("left", queries), ("right", keys))]
    return finish(similarity, product(*sides), None, None)


def aligned(similarity, queries, keys):
    """The similarity of vectors that stand in the same place, `[..., D]` with `[..., D]`."""
    if similarity == "cosine":
        queries, keys = safe_normalize(queries), safe_normalize(keys)
    dtype = accumulator(queries, keys)
    queries, keys = queries.astype(dtype), keys.astype(dtype)
    return -jnp.sum((queries - keys) ** 2, axis=-1) if similarity == "sqeuclidean" else jnp.sum(queries * keys, axis=-1)
