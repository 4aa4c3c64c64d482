"""Convolutions over time and space: those of XLA, or on a CPU, where these are slow, products with patches."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from cljax.core import check, compat

BYTES = 2**20  # of the patches that are made at a time: they stay in the cache
LAYOUT = ("NDHWC", "DHWIO", "NDHWC")


def convolve(
    inputs: Float[ArrayLike, "B T H W C"],
    kernel: Float[ArrayLike, "t h w C D"],
    strides: Sequence[int] = (1, 1, 1),
    padding: Sequence[Sequence[int]] = ((0, 0), (0, 0), (0, 0)),
    *,
    implementation: Literal["auto", "convolution", "patches"] = "auto",
    **options: Any,
) -> Float[Array, "B U P Q D"]:
    r"""A convolution of clips, $y_{t i j} = \sum_{a b c} x_{s t + a, s' i + b, s'' j + c} K_{a b c}$, by XLA's operation or by products with patches.

    XLA:CPU takes ten times as long and more for three dimensions as for the products that they consist of. With "patches" the pixels around each
    place of a frame are put side by side, and for each frame that the kernel sees there is one product; a few clips at a time, so that their patches
    stay in the cache, and again in the backward pass. The two agree to rounding, in values and in gradients.

    Args:
      inputs: `[B, T, H, W, C]`.
      kernel: `[t, h, w, C, D]`.
      strides: over time, height and width.
      padding: pairs of zeros before and after, in time, height and width.
      implementation: "patches" or "convolution"; "auto" is the first on a CPU and the second elsewhere, and where it is dilated or grouped.
      **options: those of `lax.conv_general_dilated` beyond these, as `flax.linen.Conv` gives them, which takes this function for its own.

    Returns:
      `[B, U, P, Q, D]`, in the inputs' dtype; sums are float32 at least.

    Raises:
      ValueError: an unknown implementation, or patches of a dilated or grouped convolution.

    >>> clip, kernel = jnp.ones((1, 4, 5, 5, 1)), jnp.ones((2, 3, 3, 1, 1))
    >>> convolve(clip, kernel, (1, 2, 2)).shape, float(convolve(clip, kernel)[0, 0, 0, 0, 0])
    ((1, 3, 2, 2, 1), 18.0)
    """
    check.choice("implementation", implementation, ("auto", "convolution", "patches"))
    inputs, kernel = jnp.asarray(inputs), jnp.asarray(kernel)
    plain = options.get("feature_group_count", 1) == 1 and all(
        step == 1 for name in ("lhs_dilation", "rhs_dilation") for step in options.get(name) or ()
    )
    if implementation == "patches" and not plain:
        raise ValueError("implementation='patches' knows neither dilated nor grouped convolutions, got one of them; 'auto' does")
    if implementation == "convolution" or (implementation == "auto" and not (plain and compat.platform() == "cpu")):
        return lax.conv_general_dilated(inputs, kernel, strides, padding, **{"dimension_numbers": LAYOUT} | options)
    each = math.prod(inputs.shape[1:]) * math.prod(kernel.shape[1:3]) * inputs.dtype.itemsize // math.prod(strides[1:])
    chunk = min(max(1, BYTES // each), len(inputs))

    @jax.checkpoint  # what is kept are the inputs, not their patches
    def some(clips):
        patches = jnp.pad(clips, [(0, 0), *padding, (0, 0)])
        for axis in (3, 2):
            patches = jnp.concatenate(
                [_every(patches, i, kernel.shape[axis - 1], strides[axis - 1], axis) for i in range(kernel.shape[axis - 1])], -1
            )
        frames = (_every(patches, i, kernel.shape[0], strides[0], 1) for i in range(kernel.shape[0]))
        weights = kernel.reshape(kernel.shape[0], -1, kernel.shape[-1])
        wide = jnp.promote_types(inputs.dtype, jnp.float32)
        return sum(jnp.matmul(part, weight, preferred_element_type=wide) for part, weight in zip(frames, weights, strict=True)).astype(inputs.dtype)

    return lax.map(lambda clip: some(clip[None])[0], inputs, batch_size=chunk)


def _every(values, first, size, stride, axis):
    """The entries along an axis that entry `first` of a kernel of that size meets."""
    steps = (values.shape[axis] - size) // stride
    return lax.slice_in_dim(values, first, first + steps * stride + 1, stride, axis)
