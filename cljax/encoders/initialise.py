"""The first values of weights."""

import math

import jax
import jax.numpy as jnp

# All are drawn as one row: XLA:CPU unrolls the generator over small axes, and bits of shape (3, 3, 8, 12) take 30 s to compile, the same 864 in a
# row half a second.


def lecun_normal(key, shape, dtype=jnp.float32):
    """The values of `nn.initializers.lecun_normal()`: variance 1 over the inputs of a unit, cut off at two deviations."""
    size, inputs = math.prod(shape), math.prod(shape[:-1])
    deviation = inputs**-0.5 / 0.87962566103423978  # of a normal cut off at two deviations
    return jax.random.truncated_normal(key, -2, 2, (size,), dtype).reshape(shape) * jnp.asarray(deviation, dtype)


def he_normal(key, shape, dtype=jnp.float32):
    """Normal values with variance 2 over the outputs that an input of a convolution reaches: gradients keep their size through ReLU layers."""
    outputs = math.prod(shape[:-2]) * shape[-1]
    return jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape) * jnp.asarray((2 / outputs) ** 0.5, dtype)


def normal(deviation):
    """Draws normal values with mean 0."""

    def draw(key, shape, dtype=jnp.float32):
        return jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape) * jnp.asarray(deviation, dtype)

    return draw
