"""Photographs as the networks take them that were made for ImageNet."""

from collections.abc import Sequence
from functools import partial

from jaxtyping import Array, ArrayLike, Float, Integer, UInt8

from cljax.core.check import KeyLike
from cljax.views.compose import compose
from cljax.views.crops import centre_crop, random_crop
from cljax.views.images import IMAGENET, flip, to_floats


def imagenet(
    images: Float[ArrayLike, "B H W 3"] | UInt8[ArrayLike, "B H W 3"],
    size: int | Sequence[int],
    *,
    key: KeyLike | None = None,
    index: Integer[ArrayLike, " B"] | None = None,
) -> Float[Array, "B h w 3"]:
    """Photographs that a classifier is trained on, and those that it is tested on, normalised by ImageNet's means and deviations.

    With a key a random part of each, mirrored at random; without one the middle. The usual sizes are 224 out of 256. For views of a contrastive loss
    there is more: see `compose`.

    Args:
      images: `[B, H, W, 3]`, bytes or floats in [0, 1].
      size: height and width of the part, or one number for both.
      key: a PRNG key, or None in evaluation.
      index: `[B]` integers from which the draws are made, see `per_example`; None is 0, 1, ..., B - 1.

    Returns:
      `[B, h, w, 3]`, float32 or in the floats' dtype.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    >>> import jax, jax.numpy as jnp
    >>> from cljax import views
    >>> photographs = jnp.full((2, 256, 256, 3), 124, jnp.uint8)
    >>> views.imagenet(photographs, 224).shape, views.imagenet(photographs, 224, key=jax.random.key(0)).shape
    ((2, 224, 224, 3), (2, 224, 224, 3))
    """
    images = to_floats(images, *IMAGENET)
    return centre_crop(images, size) if key is None else compose(partial(random_crop, size=size), flip)(key, images, index=index)
