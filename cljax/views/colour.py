"""Views of an image's colours; values in [0, 1], computed in float32 at least and returned in the images' dtype."""

import itertools
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Integer, Num

from cljax.core import check
from cljax.core.check import KeyLike
from cljax.views import _images
from cljax.views.per_example import per_example

_ORDERS = tuple(itertools.permutations(range(3)))  # of brightness, contrast and saturation


def colour_jitter(
    key: KeyLike,
    images: Float[ArrayLike, "B H W *C"],
    *,
    index: Integer[ArrayLike, " B"] | None = None,
    brightness: Num[ArrayLike, ""] = 0.4,
    contrast: Num[ArrayLike, ""] = 0.4,
    saturation: Num[ArrayLike, ""] = 0.4,
    hue: Num[ArrayLike, ""] = 0.1,
    probability: Num[ArrayLike, ""] = 0.8,
    contrast_mean: Literal["luma", "channel"] = "luma",
) -> Float[Array, "B H W *C"]:
    r"""Changes brightness, contrast, saturation and hue, in random order, with a probability for all of it.

    The first three are $y = \mathrm{clip}(f x + (1 - f) z, 0, 1)$ with $z$ black, the image's mean luma, and the luma $0.299 R + 0.587 G + 0.114 B$
    at the same place; $f \sim U(\max(0, 1 - s), 1 + s)$ with the strength $s$ of each. The hue, as a share of the circle, is turned by $U(-h, h)$.
    All 24 orders are equally likely. With one channel, or none, the last two do nothing. This is torchvision's `ColorJitter`, in distribution,
    within a `RandomApply`.

    Args:
      key: a PRNG key.
      images: `[B, H, W]`, `[B, H, W, 1]` or `[B, H, W, 3]` floats in [0, 1].
      index: `[B]` integers from which the draws are made, see `per_example`; None is 0, 1, ..., B - 1.
      brightness: the strength of this change, not below 0; so are `contrast` and `saturation`. The defaults are those of MoCo v2.
      contrast: see `brightness`.
      saturation: see `brightness`.
      hue: h, from 0 to 0.5.
      probability: of any change, from 0 to 1.
      contrast_mean: what z is for the contrast: the image's mean "luma", or the mean of each "channel" (SimCLR's released code).

    Returns:
      The views, in shape and dtype of `images`.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference:
      Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations" (SimCLR), ICML 2020, appendix A: strengths 0.8, 0.8, 0.8,
      0.2.

    >>> import jax, jax.numpy as jnp
    >>> colour_jitter(jax.random.key(0), jnp.full((2, 8, 8, 3), 0.5)).shape
    (2, 8, 8, 3)
    """
    _images.check_images(key, images, index, colour=True)
    strengths = dict(brightness=brightness, contrast=contrast, saturation=saturation)
    for name, strength in strengths.items():
        check.number(name, strength, at_least=0)
    check.number("hue", hue, at_least=0, at_most=0.5)
    _images.check_probability(probability)
    check.choice("contrast_mean", contrast_mean, ("luma", "channel"))

    return _colour_jitter(key, images, index, tuple(strengths.values()), hue, probability, contrast_mean == "channel")


def greyscale(
    key: KeyLike,
    images: Float[ArrayLike, "B H W *C"],
    *,
    index: Integer[ArrayLike, " B"] | None = None,
    probability: Num[ArrayLike, ""] = 0.2,
) -> Float[Array, "B H W *C"]:
    """Puts the luma 0.299 R + 0.587 G + 0.114 B into all three channels, with a probability.

    Args:
      key: a PRNG key.
      images: `[B, H, W, 3]` floats; `[B, H, W]` and `[B, H, W, 1]` are grey and stay.
      index: `[B]` integers from which the draws are made, see `per_example`; None is 0, 1, ..., B - 1.
      probability: of becoming grey, from 0 to 1.

    Returns:
      The views, in shape and dtype of `images`.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference:
      Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations" (SimCLR), ICML 2020, appendix A.

    >>> import jax, jax.numpy as jnp
    >>> print(greyscale(jax.random.key(0), jnp.array([[[[1.0, 0.5, 0.0]]]]), probability=1.0))
    [[[[0.5925 0.5925 0.5925]]]]
    """
    _images.check_images(key, images, index, colour=True)
    _images.check_probability(probability)

    return _greyscale(key, images, index, probability)


def solarise(
    key: KeyLike,
    images: Float[ArrayLike, "B H W *C"],
    *,
    index: Integer[ArrayLike, " B"] | None = None,
    threshold: Num[ArrayLike, ""] = 0.5,
    probability: Num[ArrayLike, ""] = 0.2,
) -> Float[Array, "B H W *C"]:
    r"""Inverts what is bright, $y = 1 - x$ where $x \ge t$, with a probability.

    Args:
      key: a PRNG key.
      images: `[B, H, W]` or `[B, H, W, C]` floats in [0, 1].
      index: `[B]` integers from which the draws are made, see `per_example`; None is 0, 1, ..., B - 1.
      threshold: t, the lowest value that is inverted.
      probability: of the change, from 0 to 1.

    Returns:
      The views, in shape and dtype of `images`.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference:
      Grill et al., "Bootstrap Your Own Latent", NeurIPS 2020, appendix B: with probability 0.2, on one of two views.

    >>> import jax, jax.numpy as jnp
    >>> print(solarise(jax.random.key(0), jnp.array([[[0.25, 0.5, 1.0]]]), probability=1.0))
    [[[0.25 0.5  0.  ]]]
    """
    _images.check_images(key, images, index)
    check.number("threshold", threshold)
    _images.check_probability(probability)

    return _solarise(key, images, index, threshold, probability)


@partial(jax.jit, static_argnames="by_channel")
def _colour_jitter(key, images, index, strengths, hue, probability, by_channel):
    def view(key, image):
        *uniform, turn, order, place, chance = jax.random.uniform(key, (7,))
        lowest = [jnp.maximum(0, 1 - strength) for strength in strengths]
        factors = [low + (1 + strength - low) * u for low, strength, u in zip(lowest, strengths, uniform, strict=True)]
        order = jnp.asarray(_ORDERS)[jnp.floor(6 * order).astype(int)]
        changed = _jitter(image.astype(_images.wide(image)), jnp.stack(factors), order, hue * (2 * turn - 1), jnp.floor(4 * place), by_channel)
        return _images.maybe(chance, probability, changed, image)

    return per_example(view, key, images, index=index)


def _jitter(image, factors, order, turn, place, by_channel=False):
    """Brightness, contrast and saturation (0, 1, 2) by their `factors`, in the given order; the hue, by `turn`, after the first `place` of them."""

    def blend(image, steps):
        for kind, applied in zip(order, steps, strict=True):
            luma = _images.luma(image)
            target = jnp.where(kind == 0, 0, jnp.where(kind == 1, jnp.mean(image, axis=(0, 1)) if by_channel else jnp.mean(luma), luma))
            factor = jnp.where(applied, factors[kind], 1)
            image = jnp.clip(factor * image + (1 - factor) * target, 0, 1)
        return image

    before = jnp.arange(3) < place  # the hue, which costs most, is computed at one place only
    image = blend(image, before)
    if image.ndim == 3 and image.shape[2] == 3:
        image = _turn_hue(image, turn)
    return blend(image, ~before)


def _turn_hue(image, turn):
    """Moves the hue on by `turn` of the circle. Channels are compared with one another, never with their maximum: where a compiler computes a channel
    twice the two may differ in the last bit, and where nothing equals the maximum the hue would be lost."""
    red, green, blue = jnp.moveaxis(image, -1, 0)
    highest, lowest = jnp.max(image, axis=-1), jnp.min(image, axis=-1)
    chroma = highest - lowest
    share = 1 / jnp.where(chroma > 0, chroma, 1)
    first, second = (red >= green) & (red >= blue), green >= blue
    angle = jnp.where(first, green - blue, jnp.where(second, blue - red, red - green)) * share + jnp.where(first, 0, jnp.where(second, 2, 4))
    places = (angle[..., None] + 6 * turn + jnp.array([5.0, 3.0, 1.0], image.dtype)) % 6
    return highest[..., None] - chroma[..., None] * jnp.clip(jnp.minimum(places, 4 - places), 0, 1)


@jax.jit
def _greyscale(key, images, index, probability):
    def view(key, image):
        grey = jnp.broadcast_to(_images.luma(image.astype(_images.wide(image))), image.shape)
        return _images.maybe(jax.random.uniform(key), probability, grey, image)

    return per_example(view, key, images, index=index)


@jax.jit
def _solarise(key, images, index, threshold, probability):
    def view(key, image):
        return _images.maybe(jax.random.uniform(key), probability, jnp.where(image >= threshold, 1 - image, image), image)

    return per_example(view, key, images, index=index)
