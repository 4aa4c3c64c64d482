"""What the views of images share."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from cljax.core import check


def wide(image):
    """The dtype that an image is computed in."""
    return jnp.promote_types(image.dtype, jnp.float32)


def luma(image):
    """How bright an image `[H, W]` or `[H, W, C]` is at each place; with one channel, or none, itself."""
    if image.ndim == 2 or image.shape[2] == 1:
        return image
    red, green, blue = (image[..., i : i + 1] for i in range(3))
    return 0.299 * red + 0.587 * green + 0.114 * blue


def maybe(chance, probability, changed, image):
    """The changed image, in the dtype of the given one, where a uniform number falls below the probability; else the given one."""
    return jnp.where(chance < probability, changed.astype(image.dtype), image)


def over(values, image):
    """An array `[H, W]` with the axes of the image."""
    return values.reshape(values.shape + (1,) * (image.ndim - 2))


def check_images(key, images, index, colour=False):
    """Checks the first arguments of a view; `colour`: there must be three channels, one or none."""
    check.key("key", key)
    check_shape(images, index=(index, "B?", "int"))
    if colour and jnp.ndim(images) == 4 and jnp.shape(images)[3] not in (1, 3):
        raise ValueError(f"images must have one channel or three (red, green, blue), got {jnp.shape(images)[3]}")


def check_shape(images, **others):
    """Checks that images are floats `[B, H, W]` or `[B, H, W, C]`, and `others` beside them, as `core.check.arrays` takes them."""
    if jnp.ndim(images) not in (3, 4):
        raise ValueError(f"images must have shape [B, H, W] or [B, H, W, C], got {list(jnp.shape(images))}")
    check.arrays(images=(images, "B H W" if jnp.ndim(images) == 3 else "B H W C"), **others)


def check_probability(probability):
    """Checks a probability."""
    check.number("probability", probability, at_least=0, at_most=1)


def check_size(name, size):
    """Height and width from a number for both or a pair."""
    pair = tuple(size) if isinstance(size, Sequence) and not isinstance(size, str) else (size, size)
    if len(pair) != 2:
        raise ValueError(f"{name} must be a number or a pair (height, width), got {size!r}")
    for length in pair:
        check.integer(name, length, at_least=1)
    return pair


def check_range(name, bounds, at_most=None):
    """Checks a pair (lowest, highest) of numbers not below 0."""
    if not isinstance(bounds, Sequence) or isinstance(bounds, str) or len(bounds) != 2:
        raise ValueError(f"{name} must be a pair (lowest, highest), got {bounds!r}")
    for i, bound in enumerate(bounds):
        check.number(f"{name}[{i}]", bound, at_least=0, at_most=at_most)
    if not any(isinstance(bound, jax.core.Tracer) for bound in bounds) and bounds[0] > bounds[1]:
        raise ValueError(f"{name} must be a pair (lowest, highest), got {bounds!r}")
