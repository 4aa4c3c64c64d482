"""Similarities as one product: each is `left(queries) @ right(keys).T`, with an elementwise finish."""

import jax
import jax.numpy as jnp
from jax import lax

from cljax.core import safe_normalize

SIMILARITIES = ("dot", "cosine", "sqeuclidean")


def accumulator(*arrays):
    """The dtype of scores, sums and gradients' sums: float32 for any narrower input, float64 for float64."""
    return jnp.promote_types(jnp.result_type(*arrays), jnp.float32)


def prepare(similarity, queries, keys, centre):
    """The two factors of the scores, `[b, E]` and `[n, E]`: row by row, so a block can be prepared on its own.

    `sqeuclidean` takes `-|q - k|^2 = 2 q.k - |q|^2 - |k|^2` from inputs centred at `centre`, as one product of vectors with two more entries: far from the
    origin the three terms would cancel.
    """
    if similarity == "dot":
        return queries, keys
    if similarity == "cosine":
        return safe_normalize(queries), safe_normalize(keys)
    dtype = accumulator(queries, keys)
    queries, keys = queries.astype(dtype) - centre, keys.astype(dtype) - centre
    norms = [-jnp.sum(x * x, axis=-1, keepdims=True) for x in (queries, keys)]
    ones = [jnp.ones_like(norm) for norm in norms]
    return jnp.concatenate([2 * queries, norms[0], ones[0]], axis=-1), jnp.concatenate([keys, ones[1], norms[1]], axis=-1)


def finish(similarity, products):
    """The scores from the product of the factors: squared distances are not below 0."""
    return jnp.minimum(products, 0) if similarity == "sqeuclidean" else products


def centre(similarity, keys):
    """The point from which squared distances are taken; they do not depend on it, so it has no gradient."""
    if similarity != "sqeuclidean":
        return None
    return lax.stop_gradient(jnp.mean(keys.astype(accumulator(keys)), axis=0))


def product(left, right, contract=(1, 1)):
    """Matrix product over axis `contract` of each side, accumulated and returned in `accumulator`, at full precision.

    Float32 factors are multiplied in float32 also where the hardware's default is narrower (TF32, bfloat16), unless `jax_default_matmul_precision` is set: at
    temperature 0.01 a relative error of 1e-3 in a score is 10 % of its exponential.
    """
    dtype = accumulator(left, right)
    if left.dtype != right.dtype or jax.default_backend() == "cpu":  # XLA:CPU multiplies narrow floats slower than float32
        left, right = left.astype(dtype), right.astype(dtype)
    precision = None if jax.config.jax_default_matmul_precision else lax.Precision.HIGHEST
    return lax.dot_general(left, right, (((contract[0],), (contract[1],)), ((), ())), precision=precision, preferred_element_type=dtype)


def scores(similarity, queries, keys, centre):
    """The whole matrix of similarities `[b, n]`."""
    return finish(similarity, product(*prepare(similarity, queries, keys, centre)))
