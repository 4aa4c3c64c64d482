"""Similarities as one product, `left(queries) @ right(keys).T`, with an elementwise finish."""

import jax
import jax.numpy as jnp
from jax import lax

from cljax.core import safe_normalize

SIMILARITIES = ("dot", "cosine", "sqeuclidean")


def accumulator(*arrays):
    """The dtype of scores and sums: float32 for any narrower input, float64 for float64."""
    return jnp.promote_types(jnp.result_type(*arrays), jnp.float32)


def centre(similarity, keys):
    """The point from which squared distances are taken; they do not depend on it, so it has no gradient. None for other similarities."""
    if similarity != "sqeuclidean":
        return None
    return lax.stop_gradient(jnp.mean(keys.astype(accumulator(keys)), axis=0))


def left(similarity, queries, centre):
    """The queries' factor `[b, E]`: each row from its own query, so that a block can be made on its own.

    Minus the squared distance, `2 q.k - |q|^2 - |k|^2`, is one product of vectors with two more entries; the inputs are centred, as far from the
    origin the three terms would cancel.
    """
    if similarity == "sqeuclidean":
        queries, square, one = _centred(queries, centre)
        return jnp.concatenate([2 * queries, square, one], axis=-1)
    return safe_normalize(queries) if similarity == "cosine" else queries


def right(similarity, keys, centre):
    """The keys' factor `[n, E]`, as `left`."""
    if similarity == "sqeuclidean":
        keys, square, one = _centred(keys, centre)
        return jnp.concatenate([keys, one, square], axis=-1)
    return safe_normalize(keys) if similarity == "cosine" else keys


def _centred(x, centre):
    x = x.astype(accumulator(x)) - centre
    square = -jnp.sum(x * x, axis=-1, keepdims=True)
    return x, square, jnp.ones_like(square)


def finish(similarity, products):
    """The scores from the product of the factors: no squared distance is below 0."""
    return jnp.minimum(products, 0) if similarity == "sqeuclidean" else products


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
    """The whole matrix of similarities, `[b, n]`."""
    return finish(similarity, product(left(similarity, queries, centre), right(similarity, keys, centre)))


def aligned(similarity, queries, keys):
    """The similarity of vectors that stand in the same place, `[..., D]` with `[..., D]`."""
    if similarity == "cosine":
        queries, keys = safe_normalize(queries), safe_normalize(keys)
    dtype = accumulator(queries, keys)
    queries, keys = queries.astype(dtype), keys.astype(dtype)
    return -jnp.sum((queries - keys) ** 2, axis=-1) if similarity == "sqeuclidean" else jnp.sum(queries * keys, axis=-1)
