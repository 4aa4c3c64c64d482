"""Augmentations of images; any of `[B, H, W]` and `[B, H, W, C]`, computed in float32 at least and returned in the images' dtype."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Integer, Num

from cljax.core import check
from cljax.core.check import KeyLike
from cljax.views.per_example import per_example

_TRIES = 10


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
    _check(key, images, index)
    check.integer("shift", shift, at_least=0)
    _check_range("gain", gain)
    check.number("noise", noise, at_least=0)

    return _shift_gain_noise(key, images, index, shift, tuple(gain), noise)


def flip(
    key: KeyLike,
    images: Float[ArrayLike, "B H W *C"],
    *,
    index: Integer[ArrayLike, " B"] | None = None,
    probability: Num[ArrayLike, ""] = 0.5,
) -> Float[Array, "B H W *C"]:
    """Mirrors an image left to right, with a probability.

    Args:
      key: a PRNG key.
      images: `[B, H, W]` or `[B, H, W, C]` floats.
      index: `[B]` integers from which the draws are made, see `per_example`; None is 0, 1, ..., B - 1.
      probability: of being mirrored, from 0 to 1.

    Returns:
      The views, in shape and dtype of `images`.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    >>> import jax, jax.numpy as jnp
    >>> flip(jax.random.key(0), jnp.array([[[1.0, 2.0, 3.0]]]), probability=1.0).tolist()
    [[[3.0, 2.0, 1.0]]]
    """
    _check(key, images, index)
    check.number("probability", probability, at_least=0, at_most=1)

    return _flip(key, images, index, probability)


def random_resized_crop(
    key: KeyLike,
    images: Float[ArrayLike, "B H W *C"],
    *,
    index: Integer[ArrayLike, " B"] | None = None,
    scale: Sequence[Num[ArrayLike, ""]] = (0.08, 1.0),
    ratio: Sequence[Num[ArrayLike, ""]] = (3 / 4, 4 / 3),
    size: int | Sequence[int] | None = None,
) -> Float[Array, "B h w *C"]:
    r"""Cuts out a box of random area and shape and brings it to a fixed size.

    Box: area $H W a$ with $a \sim U(\text{scale})$ and width over height $r$, $\log r \sim U(\log \text{ratio})$; width $\sqrt{H W a r}$ and height
    $\sqrt{H W a / r}$ are rounded, and the place is uniform among those where the box lies inside. A box that is too large is drawn again, ten times
    at most; then the central box is taken that is as large as `ratio` allows. Size: linear interpolation between pixel centres, with a wider kernel
    where it shrinks (antialias); only pixels of the box count. This is torchvision's `RandomResizedCrop`, in distribution.

    Args:
      key: a PRNG key.
      images: `[B, H, W]` or `[B, H, W, C]` floats.
      index: `[B]` integers from which the draws are made, see `per_example`; None is 0, 1, ..., B - 1.
      scale: the smallest and the largest share of the image's area, in (0, 1].
      ratio: the smallest and the largest width over height.
      size: height and width of the result, or one number for both; None is the size of `images`.

    Returns:
      The views, `[B, h, w]` or `[B, h, w, C]`, in the dtype of `images`.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference:
      Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, section 6.

    >>> import jax, jax.numpy as jnp
    >>> random_resized_crop(jax.random.key(0), jnp.ones((2, 32, 32, 3)), scale=(0.2, 1.0), size=24).shape
    (2, 24, 24, 3)
    """
    _check(key, images, index)
    _check_range("scale", scale, at_most=1)
    _check_range("ratio", ratio)
    check.positive("scale[0]", scale[0])
    check.positive("ratio[0]", ratio[0])
    height, width = images.shape[1:3] if size is None else (size, size) if not isinstance(size, Sequence) else size
    check.integer("size", height, at_least=1)
    check.integer("size", width, at_least=1)

    return _random_resized_crop(key, images, index, tuple(scale), tuple(ratio), (height, width))


# Compiled as a whole also where a view is called plainly: forty operations one by one take three times as long to compile.


@partial(jax.jit, static_argnames="shift")
def _shift_gain_noise(key, images, index, shift, gain, noise):
    def view(key, image):
        k_uniform, k_normal = jax.random.split(key)
        *places, brightness = jax.random.uniform(k_uniform, (3,))
        start = [(place * (2 * shift + 1)).astype(jnp.int32) for place in places]
        padded = jnp.pad(image, [(shift, shift)] * 2 + [(0, 0)] * (image.ndim - 2))
        moved = lax.dynamic_slice(padded, [*start, *[0] * (image.ndim - 2)], image.shape).astype(_wide(image))
        drawn = jax.random.normal(k_normal, (image.size,), moved.dtype).reshape(image.shape)  # in one row: compiles in a third of the time
        return (moved * (gain[0] + (gain[1] - gain[0]) * brightness) + noise * drawn).astype(image.dtype)

    return per_example(view, key, images, index=index)


@jax.jit
def _flip(key, images, index, probability):
    return per_example(lambda key, image: jnp.where(jax.random.bernoulli(key, probability), image[:, ::-1], image), key, images, index=index)


@partial(jax.jit, static_argnames="size")
def _random_resized_crop(key, images, index, scale, ratio, size):
    def view(key, image):
        top, left, height, width = _box(key, *image.shape[:2], scale, ratio)
        rows = _interpolation(size[0], image.shape[0], top, height)
        columns = _interpolation(size[1], image.shape[1], left, width)
        product = partial(jnp.einsum, precision=lax.Precision.HIGHEST)
        return product("hH,wW,HW...->hw...", rows, columns, image.astype(_wide(image))).astype(image.dtype)

    return per_example(view, key, images, index=index)


def _box(key, height, width, scale, ratio):
    """Top, left, height and width of a random box, as float32 whole numbers."""
    uniform = jax.random.uniform(key, (2 * _TRIES + 2,))  # one call: the generator is most of what there is to compile
    area = height * width * (scale[0] + (scale[1] - scale[0]) * uniform[:_TRIES])
    lowest, highest = jnp.log(ratio[0]), jnp.log(ratio[1])
    shape = jnp.exp(lowest + (highest - lowest) * uniform[_TRIES:-2])
    widths, heights = jnp.round(jnp.sqrt(area * shape)), jnp.round(jnp.sqrt(area / shape))
    fits = (widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height)
    chosen = jnp.argmax(fits)  # the first that fits
    found = fits[chosen]
    # The central box: the whole image where its own shape is allowed.
    widest = jnp.where(width / height > ratio[1], jnp.round(height * jnp.float32(ratio[1])), width)
    tallest = jnp.where(width / height < ratio[0], jnp.round(width / jnp.float32(ratio[0])), height)
    box_height, box_width = jnp.where(found, heights[chosen], tallest), jnp.where(found, widths[chosen], widest)
    rooms = height - box_height, width - box_width
    top, left = (jnp.floor(jnp.where(found, u * (room + 1), room / 2)) for u, room in zip(uniform[-2:], rooms, strict=True))
    return top, left, box_height, box_width


def _interpolation(size, length, start, extent):
    """`[size, length]`: the weights of the pixels in each place of the result, which sum to 1 and are 0 outside the box."""
    step = extent / size
    centres = start + (jnp.arange(size) + 0.5)[:, None] * step - 0.5
    pixels = jnp.arange(length)
    weights = jnp.maximum(0, 1 - jnp.abs(pixels - centres) / jnp.maximum(step, 1))
    weights = jnp.where((pixels >= start) & (pixels < start + extent), weights, 0)
    return weights / jnp.sum(weights, axis=1, keepdims=True)


def _wide(image):
    return jnp.promote_types(image.dtype, jnp.float32)


def _check(key, images, index):
    check.key("key", key)
    if jnp.ndim(images) not in (3, 4):
        raise ValueError(f"images must have shape [B, H, W] or [B, H, W, C], got {list(jnp.shape(images))}")
    check.arrays(images=(images, "B H W" if jnp.ndim(images) == 3 else "B H W C"), index=(index, "B?", "int"))


def _check_range(name, bounds, at_most=None):
    if not isinstance(bounds, Sequence) or isinstance(bounds, str) or len(bounds) != 2:
        raise ValueError(f"{name} must be a pair (lowest, highest), got {bounds!r}")
    for i, bound in enumerate(bounds):
        check.number(f"{name}[{i}]", bound, at_least=0, at_most=at_most)
    if not any(isinstance(bound, jax.core.Tracer) for bound in bounds) and bounds[0] > bounds[1]:
        raise ValueError(f"{name} must be a pair (lowest, highest), got {bounds!r}")
