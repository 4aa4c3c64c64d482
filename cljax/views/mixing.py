"""Mixtures of two images of a batch; computed in float32 at least and returned in the images' dtype."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int, Integer, Num

from cljax.core import check
from cljax.core.check import KeyLike
from cljax.views import _images
from cljax.views.per_example import per_example


class Mixed(NamedTuple):
    """Mixed images, and what a loss must know of them.

    A loss mixes as the images do, `weight * value(targets) + (1 - weight) * value(targets[partner])`; where it is linear in its targets, as the
    cross-entropy of probabilities is, it takes `mixed_targets`.

    Attributes:
      images: `[B, ...]`, the mixtures.
      partner: `[B]` int32, the row of the (global) batch that each was mixed with.
      weight: `[B]` float32, the share of the row's own image.
    """

    images: Float[Array, "B ..."]
    partner: Int[Array, " B"]
    weight: Float[Array, " B"]


def mix_up(
    key: KeyLike,
    images: Float[ArrayLike, "B H W *C"],
    *,
    index: Integer[ArrayLike, " B"] | None = None,
    alpha: Num[ArrayLike, ""] = 0.2,
    axis_name: str | None = None,
) -> Mixed:
    r"""Mixes each image with another of the batch, $y_i = \lambda_i x_i + (1 - \lambda_i) x_{\pi(i)}$,
    $\lambda_i \sim \mathrm{Beta}(\alpha, \alpha)$.

    $\pi$ is a random permutation of the batch, in which a row may stay alone. It is made of a draw from each row's index, so the same rows in
    another order meet the same partners. Each row has a weight of its own; the published code draws one for the batch.

    Args:
      key: a PRNG key.
      images: `[B, H, W]` or `[B, H, W, C]` floats.
      index: `[B]` integers from which the draws are made, see `per_example`; None is 0, 1, ..., B - 1 through all devices.
      alpha: both parameters of the Beta distribution, above 0: near 0 hardly any mixture, 1 uniform weights.
      axis_name: the mapped axis over which the batch is split: partners come from all of it, and all devices see all images.

    Returns:
      `Mixed`: the images in shape and dtype of `images`, the partners and the weights.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range; `axis_name` is not mapped here.

    Reference:
      Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, equation 1.

    >>> import jax, jax.numpy as jnp
    >>> mixed = mix_up(jax.random.key(0), jnp.eye(4)[:, None], alpha=1.0)
    >>> expected = mixed.weight[:, None] * jnp.eye(4) + (1 - mixed.weight[:, None]) * jnp.eye(4)[mixed.partner]
    >>> bool(jnp.allclose(mixed.images[:, 0], expected)), sorted(mixed.partner.tolist())
    (True, [0, 1, 2, 3])
    """
    _check(key, images, index, alpha, axis_name)

    return _mixed(_blend, key, images, index, alpha, axis_name=axis_name)


def cut_mix(
    key: KeyLike,
    images: Float[ArrayLike, "B H W *C"],
    *,
    index: Integer[ArrayLike, " B"] | None = None,
    alpha: Num[ArrayLike, ""] = 1.0,
    axis_name: str | None = None,
) -> Mixed:
    r"""Pastes a box of another image of the batch over each image.

    With $\lambda \sim \mathrm{Beta}(\alpha, \alpha)$ the box has the sides $\lfloor H \sqrt{1 - \lambda} \rfloor$ and
    $\lfloor W \sqrt{1 - \lambda} \rfloor$, and its centre is uniform over the pixels; what sticks out is cut off. `weight` is the share that is
    left of the row's own image. Partners are drawn as in `mix_up`.

    Args:
      key: a PRNG key.
      images: `[B, H, W]` or `[B, H, W, C]` floats.
      index: `[B]` integers from which the draws are made, see `per_example`; None is 0, 1, ..., B - 1 through all devices.
      alpha: both parameters of the Beta distribution, above 0.
      axis_name: the mapped axis over which the batch is split: partners come from all of it, and all devices see all images.

    Returns:
      `Mixed`: the images in shape and dtype of `images`, the partners and the weights.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range; `axis_name` is not mapped here.

    Reference:
      Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019, equations 1 and 2; half a side
      is rounded down, as in the released code.

    >>> import jax, jax.numpy as jnp
    >>> images = jnp.stack([jnp.zeros((8, 8)), jnp.ones((8, 8))])
    >>> mixed = cut_mix(jax.random.key(1), images)
    >>> own = jnp.mean(mixed.images == images, axis=(1, 2))
    >>> bool(jnp.allclose(own, jnp.where(mixed.partner == jnp.arange(2), 1, mixed.weight)))
    True
    """
    _check(key, images, index, alpha, axis_name)

    return _mixed(_paste, key, images, index, alpha, axis_name=axis_name)


def mixed_targets(mixed: Mixed, targets: Float[ArrayLike, "B K"], *, axis_name: str | None = None) -> Float[Array, "B K"]:
    r"""The targets of mixed images, $\lambda_i t_i + (1 - \lambda_i) t_{\pi(i)}$.

    Args:
      mixed: of `mix_up` or `cut_mix`.
      targets: `[B, K]` floats, the targets of the images before, such as one-hot labels.
      axis_name: that with which they were mixed.

    Returns:
      `[B, K]`, float32 at least.

    Raises:
      TypeError, ValueError: an argument of another shape or dtype; `axis_name` is not mapped here.

    >>> import jax, jax.numpy as jnp
    >>> mixed = mix_up(jax.random.key(0), jnp.eye(4)[:, None], alpha=1.0)
    >>> bool(jnp.allclose(mixed_targets(mixed, jnp.eye(4)), mixed.images[:, 0]))
    True
    """
    check.arrays(targets=(targets, "B K"), **{"mixed.weight": (mixed.weight, "B"), "mixed.partner": (mixed.partner, "B", "int")})
    check.axis("axis_name", axis_name)
    targets = jnp.asarray(targets)
    others = targets if axis_name is None else lax.all_gather(targets, axis_name, tiled=True)
    return mixed.weight[:, None] * targets + (1 - mixed.weight[:, None]) * others[mixed.partner]


@partial(jax.jit, static_argnums=0, static_argnames="axis_name")
def _mixed(mix, key, images, index, alpha, axis_name):
    k_partner, k_mix = jax.random.split(key)
    batch = images.shape[0]
    first = 0 if axis_name is None else batch * lax.axis_index(axis_name)
    index = first + jnp.arange(batch) if index is None else index
    rank = per_example(lambda key, _: jax.random.uniform(key, (2,)), k_partner, images, index=index)
    everything = images
    if axis_name is not None:
        rank, everything = (lax.all_gather(x, axis_name, tiled=True) for x in (rank, images))
    places, partners = (jnp.argsort(ranks) for ranks in rank.T)  # the k-th in one random order meets the k-th in another
    partner = lax.dynamic_slice_in_dim(jnp.zeros_like(places).at[places].set(partners), first, batch)

    def view(key, pair):
        changed, weight = mix(key, *(image.astype(_images.wide(image)) for image in pair), alpha)
        return changed.astype(images.dtype), weight

    mixed, weight = per_example(view, k_mix, (images, everything[partner]), index=index)
    return Mixed(mixed, partner, weight.astype(jnp.float32))


def _blend(key, image, other, alpha):
    weight = _beta(jax.random.uniform(key, (2,)), alpha)
    return weight * image + (1 - weight) * other, weight


def _paste(key, image, other, alpha):
    uniform = jax.random.uniform(key, (4,))
    side = jnp.sqrt(1 - _beta(uniform[:2], alpha))
    spans = [_span(u, length, side) for u, length in zip(uniform[2:], image.shape[:2], strict=True)]
    inside = spans[0][:, None] & spans[1]
    return jnp.where(inside.reshape(inside.shape + (1,) * (image.ndim - 2)), other, image), 1 - jnp.mean(inside)


def _beta(uniform, alpha):
    """A draw of Beta(alpha, alpha) from two uniform ones (Devroye, 1996); `jax.random.beta` loops, and takes ten times as long to compile."""
    towards = jnp.cos(2 * jnp.pi * uniform[0])
    distance = (uniform[1] ** (-1 / alpha) - 1) * towards**2  # its sign lost, the square of a Student t over its degrees of freedom, 2 alpha
    less = 0.5 / ((1 + distance) * (1 + jnp.sqrt(1 / (1 + 1 / distance))))
    return jnp.where(towards < 0, less, 1 - less)


def _span(uniform, length, side):
    """`[length]`: which places lie in a box of the side `side * length` around a random place."""
    half = jnp.floor(jnp.floor(length * side) / 2)
    centre, places = jnp.floor(length * uniform), jnp.arange(length)
    return (places >= centre - half) & (places < centre + half)


def _check(key, images, index, alpha, axis_name):
    _images.check_images(key, images, index)
    check.positive("alpha", alpha)
    check.axis("axis_name", axis_name)
