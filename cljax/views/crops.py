"""Crops of images: of a fixed size, of random place and shape, or of several sizes; in float32 at least, returned in the images' dtype."""

import itertools
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Integer, Num

from cljax.core import check
from cljax.core.check import KeyLike
from cljax.views import _images
from cljax.views.per_example import per_example

TRIES = 10


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
    _images.check_images(key, images, index)
    check_box("scale", scale, ratio)
    size = _images.check_size("size", jnp.shape(images)[1:3] if size is None else size)

    return _random_resized_crop(key, images, index, tuple(scale), tuple(ratio), size)


def multi_crop(
    key: KeyLike,
    images: Float[ArrayLike, "B H W *C"],
    *,
    sizes: Sequence[int | Sequence[int]],
    index: Integer[ArrayLike, " B"] | None = None,
    counts: Sequence[int] = (2, 6),
    scales: Sequence[Sequence[Num[ArrayLike, ""]]] = ((0.14, 1.0), (0.05, 0.14)),
    ratio: Sequence[Num[ArrayLike, ""]] = (3 / 4, 4 / 3),
) -> tuple[Float[Array, "_ B _ _ *C"], ...]:
    r"""Several large and several small crops of each image: of kind i, `counts[i]` crops by `random_resized_crop` with its own size and scale.

    The large ones see most of the image, the small ones a part of it, at little cost; a method compares each with the large ones. Each crop has
    draws of its own. Other views follow crop by crop: `jax.vmap(lambda k, x: view(k, x, index=index))(jax.random.split(key, len(crops)), crops)`.

    Args:
      key: a PRNG key.
      images: `[B, H, W]` or `[B, H, W, C]` floats.
      sizes: for each kind, height and width of its crops, or one number for both; published: (224, 96).
      index: `[B]` integers from which the draws are made, see `per_example`; None is 0, 1, ..., B - 1.
      counts: for each kind, how many crops.
      scales: for each kind, the smallest and the largest share of the image's area, in (0, 1]; DINO has ((0.4, 1.0), (0.05, 0.4)).
      ratio: the smallest and the largest width over height, of all kinds.

    Returns:
      For each kind `[counts[i], B, h, w]` or `[counts[i], B, h, w, C]`, in the dtype of `images`.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range; not as many sizes as counts and scales.

    Reference:
      Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments" (SwAV), NeurIPS 2020, section 3.2; Caron et al.,
      "Emerging Properties in Self-Supervised Vision Transformers" (DINO), ICCV 2021.

    >>> import jax, jax.numpy as jnp
    >>> large, small = multi_crop(jax.random.key(0), jnp.ones((4, 32, 32, 3)), sizes=(24, 12), counts=(2, 3))
    >>> large.shape, small.shape
    ((2, 4, 24, 24, 3), (3, 4, 12, 12, 3))
    """
    _images.check_images(key, images, index)
    kinds = sizes, counts, scales
    if not all(isinstance(values, Sequence) and len(values) == len(kinds[0]) for values in kinds):
        raise ValueError(f"sizes, counts and scales must be sequences with one entry for each kind of crop, got {sizes!r}, {counts!r} and {scales!r}")
    for count, scale in zip(counts, scales, strict=True):
        check.integer("counts", count, at_least=1)
        check_box("scales", scale, ratio)
    sizes = tuple(_images.check_size("sizes", size) for size in sizes)

    return _multi_crop(key, images, index, tuple(map(tuple, scales)), tuple(ratio), sizes, tuple(counts))


def random_crop(
    key: KeyLike,
    images: Float[ArrayLike, "B H W *C"],
    *,
    size: int | Sequence[int],
    index: Integer[ArrayLike, " B"] | None = None,
    padding: int = 0,
) -> Float[Array, "B h w *C"]:
    """Cuts a box of a fixed size out of each image, at a random place; nothing is interpolated.

    `size=32, padding=4` with `flip` is what most networks for CIFAR are trained with; `centre_crop` is what belongs to it in evaluation.

    Args:
      key: a PRNG key.
      images: `[B, H, W]` or `[B, H, W, C]` floats.
      size: height and width of the box, or one number for both.
      index: `[B]` integers from which the draws are made, see `per_example`; None is 0, 1, ..., B - 1.
      padding: pixels of value 0 that are put around each image first.

    Returns:
      The views, `[B, h, w]` or `[B, h, w, C]`, in the dtype of `images`.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range; a box that is larger than the padded images.

    >>> import jax, jax.numpy as jnp
    >>> random_crop(jax.random.key(0), jnp.ones((2, 32, 32, 3)), size=32, padding=4).shape
    (2, 32, 32, 3)
    """
    _images.check_images(key, images, index)
    check.integer("padding", padding, at_least=0)
    size = _fitting(size, *(length + 2 * padding for length in jnp.shape(images)[1:3]))
    return _random_crop(key, images, index, size, padding)


def centre_crop(images: Float[ArrayLike, "B H W *C"], size: int | Sequence[int]) -> Float[Array, "B h w *C"]:
    """The middle of each image; where it can't lie in the middle, half a pixel towards the upper left.

    Args:
      images: `[B, H, W]` or `[B, H, W, C]` floats.
      size: height and width, or one number for both.

    Returns:
      `[B, h, w]` or `[B, h, w, C]`, in the dtype of `images`.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range; a size that is larger than the images.

    >>> import jax.numpy as jnp
    >>> centre_crop(jnp.arange(20.0).reshape(1, 4, 5), 2).tolist()
    [[[6.0, 7.0], [11.0, 12.0]]]
    """
    _images.check_shape(images)
    images = jnp.asarray(images)
    height, width = size = _fitting(size, *images.shape[1:3])
    top, left = ((length - part) // 2 for length, part in zip(images.shape[1:3], size, strict=True))
    return images[:, top : top + height, left : left + width]


def resize(images: Float[ArrayLike, "B H W *C"], size: int | Sequence[int]) -> Float[Array, "B h w *C"]:
    """Images brought to a size: linear interpolation between pixel centres, with a wider kernel where they shrink (antialias).

    Args:
      images: `[B, H, W]` or `[B, H, W, C]` floats.
      size: height and width, or one number for both.

    Returns:
      `[B, h, w]` or `[B, h, w, C]`, in the dtype of `images`.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    >>> import jax.numpy as jnp
    >>> resize(jnp.array([[[0.0, 1.0, 2.0, 3.0]]]), (1, 2)).shape, resize(jnp.ones((5, 32, 32, 3)), 224).shape
    ((1, 1, 2), (5, 224, 224, 3))
    """
    _images.check_shape(images)
    images = jnp.asarray(images)
    shape = images.shape[0], *_images.check_size("size", size), *images.shape[3:]
    return jax.image.resize(images.astype(_images.wide(images)), shape, "linear").astype(images.dtype)


@partial(jax.jit, static_argnames=("size", "padding"))
def _random_crop(key, images, index, size, padding):
    def view(key, image):
        padded = jnp.pad(image, [(padding, padding)] * 2 + [(0, 0)] * (image.ndim - 2))
        rooms = (length - part for length, part in zip(padded.shape, size, strict=False))
        start = [jnp.floor(place * (room + 1)).astype(jnp.int32) for place, room in zip(jax.random.uniform(key, (2,)), rooms, strict=True)]
        return lax.dynamic_slice(padded, [*start, *[0] * (image.ndim - 2)], size + image.shape[2:])

    return per_example(view, key, images, index=index)


@partial(jax.jit, static_argnames="size")
def _random_resized_crop(key, images, index, scale, ratio, size):
    def view(key, image):
        top, left, height, width = _box(key, *image.shape[:2], scale, ratio)
        rows = _interpolation(size[0], image.shape[0], top, height)
        columns = _interpolation(size[1], image.shape[1], left, width)
        product = partial(jnp.einsum, precision=lax.Precision.HIGHEST)
        return product("hH,wW,HW...->hw...", rows, columns, image.astype(_images.wide(image))).astype(image.dtype)

    return per_example(view, key, images, index=index)


@partial(jax.jit, static_argnames=("sizes", "counts"))
def _multi_crop(key, images, index, scales, ratio, sizes, counts):
    def crops(key, count, scale, size):
        return jax.vmap(lambda k: _random_resized_crop(k, images, index, scale, ratio, size))(jax.random.split(key, count))

    return tuple(itertools.starmap(crops, zip(jax.random.split(key, len(counts)), counts, scales, sizes, strict=True)))


def _box(key, height, width, scale, ratio):
    """Top, left, height and width of a random box, as float32 whole numbers."""
    uniform = jax.random.uniform(key, (2 * TRIES + 2,))  # one call: the generator is most of what there is to compile
    widths, heights = sides(uniform[:-2], height * width, scale, ratio)
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


def sides(uniform, area, scale, ratio):
    """Both sides, as whole numbers, of random boxes with a share of the area and the first side over the second in the given ranges."""
    share, shape = jnp.split(uniform, 2)
    area = area * (scale[0] + (scale[1] - scale[0]) * share)
    lowest, highest = jnp.log(ratio[0]), jnp.log(ratio[1])
    shape = jnp.exp(lowest + (highest - lowest) * shape)
    return jnp.round(jnp.sqrt(area * shape)), jnp.round(jnp.sqrt(area / shape))


def _interpolation(size, length, start, extent):
    """`[size, length]`: the weights of the pixels in each place of the result, which sum to 1 and are 0 outside the box."""
    step = extent / size
    centres = start + (jnp.arange(size) + 0.5)[:, None] * step - 0.5
    pixels = jnp.arange(length)
    weights = jnp.maximum(0, 1 - jnp.abs(pixels - centres) / jnp.maximum(step, 1))
    weights = jnp.where((pixels >= start) & (pixels < start + extent), weights, 0)
    return weights / jnp.sum(weights, axis=1, keepdims=True)


def check_box(name, scale, ratio):
    _images.check_range(name, scale, at_most=1)
    _images.check_range("ratio", ratio)
    check.positive(f"{name}[0]", scale[0])
    check.positive("ratio[0]", ratio[0])


def _fitting(size, height, width):
    """Height and width of a box that lies inside of an image."""
    size = _images.check_size("size", size)
    if size[0] > height or size[1] > width:
        raise ValueError(f"size must be at most that of the images with their padding, {height} x {width}, got {size[0]} x {size[1]}")
    return size
