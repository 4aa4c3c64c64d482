"""RandAugment: a few operations of one strength, drawn anew for each image."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Integer, Num

from cljax.core import check
from cljax.core.check import KeyLike
from cljax.views import _images
from cljax.views.images import IMAGENET
from cljax.views.per_example import per_example

_MOVING = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
_BLENDING = ("brightness", "contrast", "colour", "sharpness")
RAND_AUGMENT = ("identity", "auto_contrast", "equalise", "solarise", "posterise", *_BLENDING, *_MOVING)
_KNOWN = (*RAND_AUGMENT, "invert", "solarise_add")
RAND_AUGMENT_TIMM = dict(operations=_KNOWN[1:], deviation=0.5, probability=0.5, ranges="released", fill=IMAGENET[0])  # timm's, but for the magnitude


def rand_augment(
    key: KeyLike,
    images: Float[ArrayLike, "B H W *C"],
    *,
    index: Integer[ArrayLike, " B"] | None = None,
    count: int = 2,
    magnitude: Num[ArrayLike, ""] = 9.0,
    deviation: Num[ArrayLike, ""] = 0.0,
    probability: Num[ArrayLike, ""] = 1.0,
    operations: Sequence[str] = RAND_AUGMENT,
    ranges: Literal["increasing", "released"] = "increasing",
    fill: Num[ArrayLike, "*C"] | Sequence[float] = 0.5,
) -> Float[Array, "B H W *C"]:
    r"""RandAugment: `count` operations, one after the other, each drawn for each image from the same list and made as strong as `magnitude` says.

    With $r = m / 10$, m the magnitude plus $N(0, \text{deviation}^2)$ cut to [0, 10], and $\pm$ a side that is drawn:

    - `identity`: nothing;
    - `auto_contrast`: each channel is stretched to [0, 1]; `equalise`: its 256 levels are used equally often; both know no magnitude;
    - `rotate`: by $\pm 30 r$ degrees; `shear_x`, `shear_y`: by $\pm 0.3 r$ from the upper left corner; `translate_x`, `translate_y`: by $\pm 0.45 r$
      of the width or height (in the authors' code by $100 r$ pixels). Pixels are interpolated linearly; what comes in is `fill`;
    - `brightness`, `contrast`, `colour`, `sharpness`: $\mathrm{clip}(f x + (1 - f) z, 0, 1)$ with z black, the mean luma, the luma at the same place,
      and the image smoothed with weights 5 in the middle and 1 around it (not at the border); $f = 1 \pm 0.9 r$ ("released": $0.1 + 1.8 r$);
    - `solarise`: $1 - x$ where $x \ge 1 - r$ ("released": where $255 x \ge \lfloor 256 r \rfloor$);
    - `posterise`: $8 - \mathrm{round}(4 r)$ bits of each value are kept ("released": $\lfloor 4 r \rfloor$);
    - and where they are asked for `invert`: $1 - x$; `solarise_add`: $\lfloor 110 r \rfloor / 255$ is added to what lies below 128 / 255.

    With "increasing" each is the stronger the higher the magnitude, as in torchvision; "released" are the ranges of the authors' code, in which some
    are the identity in the middle or at the upper end. `views.RAND_AUGMENT_TIMM` are the options with which timm, and many methods, have it:
    `partial(rand_augment, magnitude=9.0, **RAND_AUGMENT_TIMM)`. All operations are computed for all images, as `jax.vmap` has it, and one is kept.

    Args:
      key: a PRNG key.
      images: `[B, H, W]`, `[B, H, W, 1]` or `[B, H, W, 3]` floats in [0, 1].
      index: `[B]` integers from which the draws are made, see `per_example`; None is 0, 1, ..., B - 1.
      count: n, how many operations.
      magnitude: m, from 0 to 10; torchvision counts to 30.
      deviation: of the magnitude, drawn for each operation and image.
      probability: with which each of the operations that were drawn is made, from 0 to 1.
      operations: the names of those that are drawn from.
      ranges: "increasing" or "released".
      fill: the value of what comes in, or one for each channel.

    Returns:
      The views, in shape and dtype of `images`.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range; an operation that isn't known.

    Reference:
      Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space", NeurIPS 2020, section 3 and its released code.

    >>> import jax, jax.numpy as jnp
    >>> rand_augment(jax.random.key(0), jnp.full((2, 8, 8, 3), 0.5)).shape
    (2, 8, 8, 3)
    >>> print(rand_augment(jax.random.key(0), jnp.array([[[0.0, 0.25, 1.0]]]), count=1, operations=("invert",)))
    [[[1.   0.75 0.  ]]]
    """
    _images.check_images(key, images, index, colour=True)
    check.integer("count", count, at_least=1)
    check.number("magnitude", magnitude, at_least=0, at_most=10)
    check.number("deviation", deviation, at_least=0)
    _images.check_probability(probability)
    if isinstance(operations, str) or not isinstance(operations, Sequence) or not operations:
        raise ValueError(f"operations must be a tuple of names, at least one, got {operations!r}")
    for name in operations:
        check.choice("operations", name, _KNOWN)
    check.choice("ranges", ranges, ("increasing", "released"))
    fill = jnp.asarray(fill)
    check.number("fill", fill, several=True)
    channels = () if jnp.ndim(images) == 3 else jnp.shape(images)[3:]
    if fill.ndim and fill.shape != channels:
        raise ValueError(f"fill must be a number or one for each channel, of shape {list(channels)}, got {list(fill.shape)}")

    return _rand_augment(key, images, index, magnitude, deviation, probability, fill, count, tuple(operations), ranges == "increasing")


@partial(jax.jit, static_argnames=("count", "operations", "increasing"))
def _rand_augment(key, images, index, magnitude, deviation, probability, fill, count, operations, increasing):
    def view(key, image):
        k_uniform, k_normal = jax.random.split(key)
        uniform = jax.random.uniform(k_uniform, (count, 3))
        strength = jnp.clip(magnitude + deviation * jax.random.normal(k_normal, (count,)), 0, 10) / 10
        view = image.astype(_images.wide(image))
        for (place, side, chance), share in zip(uniform, strength, strict=True):
            kind = jnp.floor(place * len(operations)).astype(jnp.int32)
            changed = _changed(view, kind, share, jnp.where(side < 0.5, -1, 1), fill, operations, increasing)
            view = _images.maybe(chance, probability, changed, view)
        return view.astype(image.dtype)

    return per_example(view, key, images, index=index)


def _changed(image, kind, share, side, fill, operations, increasing):
    """The image after operation number `kind` of `operations`, as strong as `share`, from 0 to 1, says, to the `side` -1 or 1."""
    name = jnp.asarray([_KNOWN.index(operation) for operation in operations])[kind]
    levels = jnp.round(255 * jnp.clip(image, 0, 1))
    bright = image >= 1 - share if increasing else levels >= jnp.floor(256 * share)
    step = 2.0 ** (jnp.round(4 * share) if increasing else 8 - jnp.floor(4 * share))
    factor = 1 + 0.9 * share * side if increasing else 0.1 + 1.8 * share
    found = {"identity": image, "auto_contrast": _stretched(image), "equalise": _equalised(image, levels), "invert": 1 - image}
    found["solarise"] = jnp.where(bright, 1 - image, image)
    found["solarise_add"] = jnp.where(levels < 128, jnp.minimum(image + jnp.floor(110 * share) / 255, 1), image)
    found["posterise"] = jnp.floor(levels / step) * step / 255
    found |= dict.fromkeys(_BLENDING, _blended(image, name, factor))  # one blend and one warp, whichever of them it is
    found |= dict.fromkeys(_MOVING, _warped(image, _matrix(name, share * side, *image.shape[:2]), fill))
    return lax.select_n(kind, *(found[operation] for operation in operations))


def _matrix(name, amount, height, width):
    """`[2, 3]`: from where in the image each place of the view comes, x and y in pixels."""
    zero, one = jnp.zeros_like(amount), jnp.ones_like(amount)
    turn = jnp.radians(30 * amount)
    cos, sin, x, y = jnp.cos(turn), jnp.sin(turn), width / 2, height / 2
    still = jnp.array([[1.0, 0, 0], [0, 1, 0]])
    change = {
        "rotate": [[cos - 1, -sin, x - cos * x + sin * y], [sin, cos - 1, y - sin * x - cos * y]],
        "shear_x": [[zero, 0.3 * amount, zero], [zero] * 3],
        "shear_y": [[zero] * 3, [0.3 * amount, zero, zero]],
        "translate_x": [[zero, zero, 0.45 * amount * width], [zero] * 3],
        "translate_y": [[zero] * 3, [zero, zero, 0.45 * amount * height]],
    }
    return still + sum(jnp.where(name == _KNOWN.index(moving), jnp.array(rows) * one, 0) for moving, rows in change.items())


def _warped(image, matrix, fill):
    """Each place of the view by linear interpolation of the four pixels around where it comes from."""
    height, width = image.shape[:2]
    columns, rows = jnp.arange(width) + 0.5, jnp.arange(height)[:, None] + 0.5
    across, down = (row[0] * columns + row[1] * rows + row[2] for row in matrix)
    inside = (across >= 0) & (across < width) & (down >= 0) & (down < height)
    left, top = jnp.floor(across - 0.5), jnp.floor(down - 0.5)
    to_right, to_bottom = (_images.over(share, image) for share in (across - 0.5 - left, down - 0.5 - top))

    def pixel(row, column):
        return image[jnp.clip(row, 0, height - 1).astype(jnp.int32), jnp.clip(column, 0, width - 1).astype(jnp.int32)]

    upper, lower = ((1 - to_right) * pixel(row, left) + to_right * pixel(row, left + 1) for row in (top, top + 1))
    return jnp.where(_images.over(inside, image), (1 - to_bottom) * upper + to_bottom * lower, jnp.asarray(fill, image.dtype))


def _blended(image, name, factor):
    """What lies between the image, for factor 1, and another one, for factor 0, or beyond it."""
    luma = _images.luma(image)
    others = {"brightness": jnp.zeros_like(image), "contrast": jnp.mean(luma), "colour": luma, "sharpness": _smoothed(image)}
    other = sum(jnp.where(name == _KNOWN.index(kind), target, 0) for kind, target in others.items())
    return jnp.clip(factor * image + (1 - factor) * other, 0, 1)


def _smoothed(image):
    """The mean of each pixel, five times, and those around it; the border stays."""
    if min(image.shape[:2]) < 3:
        return image
    height, width = image.shape[:2]
    around = sum(image[i : height - 2 + i, j : width - 2 + j] for i in range(3) for j in range(3))
    return image.at[1:-1, 1:-1].set((around + 4 * image[1:-1, 1:-1]) / 13)


def _stretched(image):
    """Each channel from 0 to 1; one of a single value stays."""
    lowest, highest = jnp.min(image, axis=(0, 1)), jnp.max(image, axis=(0, 1))
    flat = highest <= lowest
    return jnp.where(flat, image, (image - lowest) / jnp.where(flat, 1, highest - lowest))


def _equalised(image, levels):
    """Each channel by the places of its levels in their cumulative histogram, in whole numbers, as Pillow has it."""
    flat = jnp.where(jnp.isnan(levels), 0, levels).astype(jnp.int32).reshape(image.shape[0] * image.shape[1], -1)

    def channel(levels):
        counts = jnp.zeros(256, jnp.int32).at[levels].add(1)
        step = (len(levels) - counts[jnp.max(levels)]) // 255
        places = (step // 2 + jnp.cumsum(counts) - counts) // jnp.maximum(step, 1)
        return jnp.where(step == 0, jnp.arange(256), jnp.minimum(places, 255))[levels]

    found = jax.vmap(channel, in_axes=1, out_axes=1)(flat).reshape(image.shape)
    return jnp.where(jnp.isnan(image), image, found.astype(image.dtype) / 255)
