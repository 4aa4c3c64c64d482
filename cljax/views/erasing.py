"""Images of which a part is left out; returned in the images' dtype."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Integer, Num

from cljax.core import check, vary, varying_axes
from cljax.core.check import KeyLike
from cljax.views import _images
from cljax.views.crops import TRIES, check_box, sides
from cljax.views.per_example import per_example


def random_erasing(
    key: KeyLike,
    images: Float[ArrayLike, "B H W *C"],
    *,
    index: Integer[ArrayLike, " B"] | None = None,
    scale: Sequence[Num[ArrayLike, ""]] = (0.02, 0.33),
    ratio: Sequence[Num[ArrayLike, ""]] = (0.3, 3.3),
    value: Num[ArrayLike, ""] | None = 0.0,
    probability: Num[ArrayLike, ""] = 0.5,
) -> Float[Array, "B H W *C"]:
    r"""Fills a box of random area, shape and place, with a probability.

    The box has the area $H W a$ with $a \sim U(\text{scale})$ and the height over width $r$, $\log r \sim U(\log \text{ratio})$; both sides are
    rounded, and the place is uniform among those where it lies inside. A box that is not smaller than the image in both directions is drawn again,
    ten times at most; then the image stays. This is torchvision's `RandomErasing`, in distribution; there the noise is normal.

    Args:
      key: a PRNG key.
      images: `[B, H, W]` or `[B, H, W, C]` floats.
      index: `[B]` integers from which the draws are made, see `per_example`; None is 0, 1, ..., B - 1.
      scale: the smallest and the largest share of the image's area, in (0, 1].
      ratio: the smallest and the largest height over width.
      value: what the box is filled with; None is noise, U(0, 1) for each value.
      probability: of the change, from 0 to 1.

    Returns:
      The views, in shape and dtype of `images`.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference:
      Zhong et al., "Random Erasing Data Augmentation", AAAI 2020, algorithm 1, with the logarithm of the ratio uniform.

    >>> import jax, jax.numpy as jnp
    >>> left = jnp.mean(random_erasing(jax.random.key(0), jnp.ones((64, 32, 32)), probability=1.0), axis=(1, 2))
    >>> bool(jnp.all((left > 0.6) & (left < 1)))
    True
    """
    _images.check_images(key, images, index)
    check_box("scale", scale, ratio)
    if value is not None:
        check.number("value", value)
    _images.check_probability(probability)

    return _random_erasing(key, images, index, tuple(scale), tuple(ratio), value, probability)


def block_mask(
    key: KeyLike,
    images: Float[ArrayLike, "B H W *C"],
    *,
    index: Integer[ArrayLike, " B"] | None = None,
    patch: int | Sequence[int] = 16,
    share: Sequence[Num[ArrayLike, ""]] = (0.05, 0.25),
    ratio: Sequence[Num[ArrayLike, ""]] = (0.3, 1 / 0.3),
    value: Num[ArrayLike, ""] = 0.0,
) -> Float[Array, "B H W *C"]:
    r"""Masks blocks of patches until a random share of an image is masked.

    On the grid of $h \times w$ whole patches, up to $n = h w s$ of them are masked, $s \sim U(\text{share})$. While fewer are, a block is drawn:
    its area uniform between $\lfloor \min(h, w) / 3 \rfloor^2$ and what is left to mask, its height over width log-uniform in `ratio`, both sides
    rounded, its place uniform. It is taken if it is smaller than the grid in both directions and masks at least one new patch and not more than are
    left; after ten misses in a row nothing more is masked.

    Args:
      key: a PRNG key.
      images: `[B, H, W]` or `[B, H, W, C]` floats.
      index: `[B]` integers from which the draws are made, see `per_example`; None is 0, 1, ..., B - 1.
      patch: height and width of a patch in pixels, or one number for both; pixels beyond the last whole patch stay.
      share: the smallest and the largest share of patches that may be masked, from 0 to 1.
      ratio: the smallest and the largest height over width of a block.
      value: what masked patches are filled with.

    Returns:
      The views, in shape and dtype of `images`.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range; a patch larger than the images.

    Reference:
      Bao et al., "BEiT: BERT Pre-Training of Image Transformers", ICLR 2022, algorithm 1; the smallest block, `share` and `patch` as in the
      released code of BECLR (ICLR 2024).

    >>> import jax, jax.numpy as jnp
    >>> left = block_mask(jax.random.key(0), jnp.ones((64, 32, 32)), patch=4, share=(0.3, 0.3))
    >>> bool(jnp.mean(left) < 0.85), bool(jnp.min(jnp.mean(left, axis=(1, 2))) >= 0.7)
    (True, True)
    """
    _images.check_images(key, images, index)
    patch = _images.check_size("patch", patch)
    if any(side > length for side, length in zip(patch, jnp.shape(images)[1:3], strict=True)):
        raise ValueError(f"patch must not be larger than the images, of shape {list(jnp.shape(images)[1:3])}, got {list(patch)}")
    _images.check_range("share", share, at_most=1)
    _images.check_range("ratio", ratio)
    check.positive("ratio[0]", ratio[0])
    check.number("value", value)

    return _block_mask(key, images, index, patch, tuple(share), tuple(ratio), value)


@jax.jit
def _random_erasing(key, images, index, scale, ratio, value, probability):
    def view(key, image):
        k_box, k_noise = jax.random.split(key)
        uniform = jax.random.uniform(k_box, (2 * TRIES + 3,))
        down, right, chance = uniform[2 * TRIES :]
        heights, widths = sides(uniform[: 2 * TRIES], image.shape[0] * image.shape[1], scale, ratio)
        fits = (heights < image.shape[0]) & (widths < image.shape[1])
        chosen = jnp.argmax(fits)  # the first that fits
        inside = _inside(image.shape[:2], heights[chosen], widths[chosen], down, right) & fits[chosen]
        fill = jax.random.uniform(k_noise, (image.size,), image.dtype).reshape(image.shape) if value is None else value
        return _images.maybe(chance, probability, jnp.where(_images.over(inside, image), fill, image), image)

    return per_example(view, key, images, index=index)


@partial(jax.jit, static_argnames="patch")
def _block_mask(key, images, index, patch, share, ratio, value):
    def view(key, image):
        grid = tuple(length // side for length, side in zip(image.shape[:2], patch, strict=True))
        mask = _blocks(key, grid, share, ratio).repeat(patch[0], 0).repeat(patch[1], 1)
        mask = jnp.pad(mask, [(0, length - there) for length, there in zip(image.shape[:2], mask.shape, strict=True)])
        return jnp.where(_images.over(mask, image), value, image).astype(image.dtype)

    return per_example(view, key, images, index=index)


def _blocks(key, grid, share, ratio):
    """`[h, w]` booleans: which patches are masked."""
    k_share, k_block = jax.random.split(key)
    most = grid[0] * grid[1] * (share[0] + (share[1] - share[0]) * jax.random.uniform(k_share))
    least = float((min(grid) // 3) ** 2)

    def unfinished(carry):
        mask, _, misses = carry
        return (jnp.sum(mask) < most) & (misses < TRIES)

    def draw(carry):
        mask, t, misses = carry
        left = most - jnp.sum(mask)
        uniform = jax.random.uniform(jax.random.fold_in(k_block, t), (4,))
        (height,), (width,) = sides(uniform[:2], 1.0, (least, left), ratio)
        block = _inside(grid, height, width, *uniform[2:])
        new = jnp.sum(block & ~mask)
        taken = (height < grid[0]) & (width < grid[1]) & (new > 0) & (new <= left)
        return mask | (block & taken), t + 1, jnp.where(taken, 0, misses + 1)

    return lax.while_loop(unfinished, draw, vary((jnp.zeros(grid, bool), 0, 0), varying_axes(key)))[0]


def _inside(shape, height, width, down, right):
    """`shape` booleans: which places lie in a box of that height and width, at a uniform place inside."""
    spans = []
    for length, side, uniform in zip(shape, (height, width), (down, right), strict=True):
        start, places = jnp.floor(uniform * (length - side + 1)), jnp.arange(length)
        spans.append((places >= start) & (places < start + side))
    return spans[0][:, None] & spans[1]
