"""Augmentations of images; any of `[B, H, W]` and `[B, H, W, C]`, computed in float32 at least and returned in the images' dtype."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Integer, Num, UInt8

from cljax.core import check
from cljax.core.check import KeyLike
from cljax.views import _images
from cljax.views.per_example import per_example

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # the means and the standard deviations of its channels, in [0, 1]


def to_floats(
    images: Float[ArrayLike, "..."] | UInt8[ArrayLike, "..."],
    mean: Num[ArrayLike, "*C"] | Sequence[float] = 0.0,
    deviation: Num[ArrayLike, "*C"] | Sequence[float] = 1.0,
) -> Float[Array, "..."]:
    r"""Images as the views and networks take them, out of the bytes in which they lie on the device in a quarter of the memory: $(x - \mu) / \sigma$.

    Args:
      images: bytes, which become floats in [0, 1], or floats, which stay; any shape.
      mean: $\mu$, of all values or of each channel, the last axis: `to_floats(images, *IMAGENET)` is what ImageNet's networks take. Views of colours
        come before that: they take values in [0, 1].
      deviation: $\sigma$, above 0.

    Returns:
      The images; those of bytes in float32.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range.

    >>> print(to_floats(jnp.array([[0, 255]], jnp.uint8)), to_floats(jnp.array([[0, 255]], jnp.uint8), 0.5, 0.5))
    [[0. 1.]] [[-1.  1.]]
    """
    bytes_given = jnp.result_type(images) == jnp.uint8
    if not bytes_given:
        check.arrays(images=(images, "..."))
    for name, value in (("mean", mean), ("deviation", deviation)):
        value = jnp.asarray(value)
        check.number(name, value, several=True)
        if value.ndim and value.shape != jnp.shape(images)[-1:]:
            raise ValueError(f"{name} must be a number or one for each channel, of shape {list(jnp.shape(images)[-1:])}, got {list(value.shape)}")
    check.positive("deviation", jnp.asarray(deviation), several=True)
    images = jnp.asarray(images) / jnp.float32(255) if bytes_given else jnp.asarray(images)
    wide = _images.wide(images)
    return ((images.astype(wide) - jnp.asarray(mean, wide)) / jnp.asarray(deviation, wide)).astype(images.dtype)


def shift_gain_noise(
    key: KeyLike,
    images: Float[ArrayLike, "B H W *C"],
    *,
    index: Integer[ArrayLike, " B"] | None = None,
    shift: int = 1,
    gain: Sequence[Num[ArrayLike, ""]] = (0.7, 1.3),
    noise: Num[ArrayLike, ""] = 0.15,
) -> Float[Array, "B H W *C"]:
    r"""Moves an image by whole pixels, scales its brightness and adds noise.

    $y = g \cdot \mathrm{shift}(x; d) + \sigma n$ with $d$ uniform on $\{-s, \ldots, s\}^2$ (what comes in is 0), $g \sim U(g_0, g_1)$ for the whole
    image and $n \sim N(0, 1)$ for each value. Nothing is clipped.

    Args:
      key: a PRNG key.
      images: `[B, H, W]` or `[B, H, W, C]` floats.
      index: `[B]` integers from which the draws are made, see `per_example`; None is 0, 1, ..., B - 1.
      shift: s, the largest shift along either axis, in pixels.
      gain: the lowest and the highest gain.
      noise: the standard deviation of the noise, in units of the images' values.

    Returns:
      The views, in shape and dtype of `images`.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference:
      The view of the small experiment on 8 x 8 digits with values in [0, 1]: the defaults are made for it.

    >>> import jax, jax.numpy as jnp
    >>> shift_gain_noise(jax.random.key(0), jnp.ones((2, 8, 8))).shape
    (2, 8, 8)
    """
    _images.check_images(key, images, index)
    check.integer("shift", shift, at_least=0)
    _images.check_range("gain", gain)
    check.number("noise", noise, at_least=0)

    return _shift_gain_noise(key, images, index, shift, tuple(gain), noise)


def flip(
    key: KeyLike,
    images: Float[ArrayLike, "B H W *C"],
    *,
    index: Integer[ArrayLike, " B"] | None = None,
    probability: Num[ArrayLike, ""] = 0.5,
    vertical: bool = False,
) -> Float[Array, "B H W *C"]:
    """Mirrors an image left to right, or top to bottom, with a probability.

    Args:
      key: a PRNG key.
      images: `[B, H, W]` or `[B, H, W, C]` floats.
      index: `[B]` integers from which the draws are made, see `per_example`; None is 0, 1, ..., B - 1.
      probability: of being mirrored, from 0 to 1.
      vertical: whether top and bottom change places, instead of left and right.

    Returns:
      The views, in shape and dtype of `images`.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    >>> import jax, jax.numpy as jnp
    >>> flip(jax.random.key(0), jnp.array([[[1.0, 2.0, 3.0]]]), probability=1.0).tolist()
    [[[3.0, 2.0, 1.0]]]
    """
    _images.check_images(key, images, index)
    _images.check_probability(probability)

    return _flip(key, images, index, probability, vertical)


# Compiled as a whole also where a view is called plainly: forty operations one by one take three times as long to compile.


@partial(jax.jit, static_argnames="shift")
def _shift_gain_noise(key, images, index, shift, gain, noise):
    def view(key, image):
        k_uniform, k_normal = jax.random.split(key)
        *places, brightness = jax.random.uniform(k_uniform, (3,))
        start = [(place * (2 * shift + 1)).astype(jnp.int32) for place in places]
        padded = jnp.pad(image, [(shift, shift)] * 2 + [(0, 0)] * (image.ndim - 2))
        moved = lax.dynamic_slice(padded, [*start, *[0] * (image.ndim - 2)], image.shape).astype(_images.wide(image))
        drawn = jax.random.normal(k_normal, (image.size,), moved.dtype).reshape(image.shape)  # in one row: compiles in a third of the time
        return (moved * (gain[0] + (gain[1] - gain[0]) * brightness) + noise * drawn).astype(image.dtype)

    return per_example(view, key, images, index=index)


@partial(jax.jit, static_argnames="vertical")
def _flip(key, images, index, probability, vertical):
    def view(key, image):
        return jnp.where(jax.random.bernoulli(key, probability), image[::-1] if vertical else image[:, ::-1], image)

    return per_example(view, key, images, index=index)
