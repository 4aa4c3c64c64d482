"""Gaussian blur of images; computed in float32 at least and returned in the images' dtype."""

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


def gaussian_blur(
    key: KeyLike,
    images: Float[ArrayLike, "B H W *C"],
    *,
    index: Integer[ArrayLike, " B"] | None = None,
    kernel_size: int | None = None,
    sigma: Sequence[Num[ArrayLike, ""]] = (0.1, 2.0),
    probability: Num[ArrayLike, ""] = 0.5,
) -> Float[Array, "B H W *C"]:
    r"""Blurs an image with a Gaussian kernel of random width, with a probability.

    The weights at distance $d$ along either axis are proportional to $\exp(-d^2 / 2 \sigma^2)$ up to half the kernel size, and sum to 1;
    $\sigma \sim U(\text{sigma})$, one for an image. Beyond its edge the image is continued by its mirror image, the edge pixels not repeated. This
    is torchvision's `GaussianBlur`, in distribution, within a `RandomApply`.

    Args:
      key: a PRNG key.
      images: `[B, H, W]` or `[B, H, W, C]` floats.
      index: `[B]` integers from which the draws are made, see `per_example`; None is 0, 1, ..., B - 1.
      kernel_size: pixels of the kernel along an axis, odd; half of it must be less than height and width. None is about a tenth of the shorter
        side, as in SimCLR: 23 at 224 pixels, 3 at 32.
      sigma: the lowest and the highest standard deviation, in pixels; above 0.
      probability: of the change, from 0 to 1.

    Returns:
      The views, in shape and dtype of `images`.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference:
      Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations" (SimCLR), ICML 2020, appendix A.

    >>> import jax, jax.numpy as jnp
    >>> gaussian_blur(jax.random.key(0), jnp.ones((2, 32, 32, 3)), kernel_size=5).shape
    (2, 32, 32, 3)
    """
    _images.check_images(key, images, index)
    shorter = min(jnp.shape(images)[1:3])
    kernel_size = 2 * (shorter // 20) + 1 if kernel_size is None else kernel_size
    check.integer("kernel_size", kernel_size, at_least=1)
    if kernel_size % 2 == 0 or kernel_size // 2 >= shorter:
        raise ValueError(
            f"kernel_size must be odd and at most {2 * shorter - 1} for images of shape {list(jnp.shape(images)[1:3])}, got {kernel_size}"
        )
    _images.check_range("sigma", sigma)
    check.positive("sigma[0]", sigma[0])
    _images.check_probability(probability)

    return _gaussian_blur(key, images, index, kernel_size, tuple(sigma), probability)


@partial(jax.jit, static_argnames="kernel_size")
def _gaussian_blur(key, images, index, kernel_size, sigma, probability):
    def view(key, image):
        uniform, chance = jax.random.uniform(key, (2,))
        width = sigma[0] + (sigma[1] - sigma[0]) * uniform
        rows, columns = (_blurring(length, kernel_size // 2, width) for length in image.shape[:2])
        product = partial(jnp.einsum, precision=lax.Precision.HIGHEST)
        return _images.maybe(chance, probability, product("hH,wW,HW...->hw...", rows, columns, image.astype(_images.wide(image))), image)

    return per_example(view, key, images, index=index)


def _blurring(length, radius, sigma):
    """`[length, length]`: the weights of the pixels in each place, those of the mirrored ones added to where they come from."""

    def weight(distance):
        return jnp.where(jnp.abs(distance) <= radius, jnp.exp(-((distance / sigma) ** 2) / 2), 0)

    place, pixel = jnp.arange(length)[:, None], jnp.arange(length)
    before = jnp.where(pixel > 0, weight(-pixel - place), 0)
    after = jnp.where(pixel < length - 1, weight(2 * (length - 1) - pixel - place), 0)
    return (weight(pixel - place) + before + after) / jnp.sum(weight(jnp.arange(-radius, radius + 1)))
