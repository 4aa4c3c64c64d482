"""Clips of a video: how far apart in time two of them lie, which frames they are of, and clips spread over the whole of it."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int32, Integer

from cljax.core import check
from cljax.core.check import KeyLike

Scalar = float | int | Float[ArrayLike, ""]
Kind = Literal["decreasing", "uniform", "increasing", "zero"]
KINDS = ("decreasing", "uniform", "increasing", "zero")


class ClipPair(NamedTuple):
    """Two clips of each video, as `sample_clip_pair` draws them.

    Attributes:
      first, second: int32 `[..., frames]`, the places of their frames in the video.
    """

    first: Int32[Array, "*B n"]
    second: Int32[Array, "*B n"]


def interval_pmf(total: int, kind: Kind = "decreasing", power: float | int = 1.0) -> Float[Array, " M"]:
    r"""The probability of each interval between the starts of two clips.

    $$P(\delta = k) = F(k + 1) - F(k), \qquad F(k) = \frac{p + 1}{p} \frac{k}{M} - \frac{1}{p} \left( \frac{k}{M} \right)^{p + 1}$$

    for "decreasing", whose density is $(1 - (\delta / M)^p) (p + 1) / (p M)$: near clips often, far ones seldom. "increasing" is its mirror image,
    "uniform" has all alike, and "zero" is always 0.

    Args:
      total: M, the places where a clip may start.
      kind: "decreasing", "uniform", "increasing" or "zero".
      power: p, above 0, of the first and the third; 1 falls in a line, and the larger it is the more even.

    Returns:
      float32 `[M]`, which sums to 1.

    Raises:
      TypeError, ValueError: an argument of another kind or range.

    Reference: Qian et al., "Spatiotemporal Contrastive Video Representation Learning", CVPR 2021, section 3.2; the discrete form is the code's.

    >>> print(interval_pmf(3) * 9, interval_pmf(3, "increasing") * 9)
    [5. 3. 1.] [1. 3. 5.]
    """
    check.integer("total", total, at_least=1)
    _check(kind, power)
    if kind in ("uniform", "zero"):
        return jnp.full(total, 1 / total) if kind == "uniform" else jnp.zeros(total).at[0].set(1)
    share = np.arange(total + 1) / total
    found = np.diff(((power + 1) * share - share ** (power + 1)) / power)  # in float64, as differences lose digits
    return jnp.asarray(found if kind == "decreasing" else found[::-1], jnp.float32)


def sample_interval(
    key: KeyLike,
    total: int | Integer[ArrayLike, "*B"],
    kind: Kind = "decreasing",
    power: Scalar = 1.0,
    *,
    index: Integer[ArrayLike, " B"] | None = None,
) -> Int32[Array, "*B"]:
    r"""Draws intervals between the starts of two clips, by the probabilities of `interval_pmf`, in closed form.

    $$\delta = \lfloor M x \rfloor, \qquad x = 1 - \sqrt{1 - u} \;\; (p = 1), \qquad x = u \, v^{1 / (p + 1)} \;\; (\text{any } p)$$

    with u and v uniform. The first inverts F; the second has the density $(1 - x^p) (p + 1) / p$, as $v^{1 / (p + 1)}$ has $(p + 1) x^p$.

    Args:
      key: a PRNG key.
      total: M, the places where a clip may start, above 0; or `[B]` of them, one for each video.
      kind, power: as in `interval_pmf`; `power` may be traced.
      index: integers `[B]`, which example each video is: its draw hangs on the key and on it alone. None: one draw.

    Returns:
      int32 from 0 to M - 1: a scalar, or with `index` `[B]`.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range.

    Reference: Qian et al., "Spatiotemporal Contrastive Video Representation Learning", CVPR 2021, section 3.2.

    >>> sample_interval(jax.random.key(0), 14, index=jnp.arange(5)).shape
    (5,)
    """
    _check(kind, power)
    _check_videos(key, "total", total, index)
    return _each(lambda key, total: _interval(jax.random.uniform(key, (2,)), total, kind, power), key, total, index)


def sample_clip_pair(
    key: KeyLike,
    length: int | Integer[ArrayLike, "*B"],
    frames: int,
    stride: int = 1,
    kind: Kind = "decreasing",
    *,
    power: Scalar = 1.0,
    index: Integer[ArrayLike, " B"] | None = None,
) -> ClipPair:
    r"""Draws two clips of a video: the interval between them first, then a place for both, then which of them comes first.

    With n frames of stride s out of L there are $M = L - (n - 1) s$ places to start. $\delta$ is drawn as by `sample_interval`, the earlier start
    from $U\{0, \ldots, M - \delta - 1\}$, and the two are swapped half of the time. In a video that is too short, $L \le (n - 1) s$, any frame may
    be a start, the two are drawn apart (of "zero" they are one), and a clip that comes to the end goes on at the beginning.

    Args:
      key: a PRNG key.
      length: L, the frames of the video, above 0; or `[B]` of them, one for each video.
      frames: n, the frames of a clip.
      stride: s, from one frame of a clip to the next.
      kind, power: of the interval, as in `interval_pmf`.
      index: integers `[B]`, which example each video is: its draws hang on the key and on it alone. None: one video.

    Returns:
      `ClipPair` of int32 `[n]`, with `index` `[B, n]`: `video[pair.first]` is a clip.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range.

    Reference: Qian et al., "Spatiotemporal Contrastive Video Representation Learning", CVPR 2021, section 3.2; short videos as in its code.

    >>> first, second = sample_clip_pair(jax.random.key(0), 20, 4, 2, "zero")
    >>> bool((first == second).all()), jnp.diff(first).tolist()
    (True, [2, 2, 2])
    """
    check.integer("frames", frames, at_least=1)
    check.integer("stride", stride, at_least=1)
    _check(kind, power)
    _check_videos(key, "length", length, index)

    def pair(key, length):
        *interval, early, other, order = jax.random.uniform(key, (5,))
        short = length <= (frames - 1) * stride
        total = jnp.where(short, length, length - (frames - 1) * stride)
        gap = jnp.where(short, 0, _interval(interval, total, kind, power))
        start = _below(early, total - gap)
        end = start + gap if kind == "zero" else jnp.where(short, _below(other, total), start + gap)
        starts = jnp.where(order < 0.5, jnp.stack([start, end]), jnp.stack([end, start]))
        return ClipPair(*((starts[:, None] + stride * jnp.arange(frames)) % length).astype(jnp.int32))

    return _each(pair, key, length, index)


def spread_clips(length: int | Integer[ArrayLike, "*B"], frames: int, stride: int = 1, *, clips: int) -> Int32[Array, "*B clips n"]:
    r"""Clips at even distances over the whole of a video, for evaluation: what an encoder says of a video is the mean over them.

    Clip c of C starts at $\lfloor c (M - 1) / (C - 1) \rceil$ of the $M = L - (n - 1) s$ places, a single one in the middle. In a video that is too
    short, $L \le (n - 1) s$, M is L, and a clip that comes to the end goes on at the beginning.

    Args:
      length: L, the frames of the video, above 0; or `[B]` of them.
      frames: n, the frames of a clip.
      stride: s, from one frame of a clip to the next.
      clips: C, how many.

    Returns:
      int32 `[..., C, n]`, the places of their frames.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range.

    >>> spread_clips(10, 4, clips=3).tolist()
    [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    """
    for name, value in (("frames", frames), ("stride", stride), ("clips", clips)):
        check.integer(name, value, at_least=1)
    _check_length("length", length, "...")
    length = jnp.asarray(length, jnp.int32)[..., None, None]
    room = length - (frames - 1) * stride
    last = jnp.where(room < 1, length, room) - 1
    place = jnp.arange(clips)[:, None] / (clips - 1) if clips > 1 else jnp.full((1, 1), 0.5)
    return (jnp.round(last * place).astype(jnp.int32) + stride * jnp.arange(frames, dtype=jnp.int32)) % length


def _interval(uniform, total, kind, power):
    """The interval that two uniform numbers stand for."""
    u, v = uniform
    if kind == "zero":
        return jnp.zeros_like(total)
    share = u if kind == "uniform" else jnp.where(jnp.asarray(power) == 1, _line(u), u * v ** (1 / (power + 1)))
    found = _below(share, total)
    return total - 1 - found if kind == "increasing" else found


def _line(u):
    """The inverse of F for a power of 1, as a share of M: $1 - \\sqrt{1 - u}$ without the digits that the difference loses."""
    return u / (1 + jnp.sqrt(1 - u))


def _below(share, total):
    """The integer from 0 to total - 1 at a share of it, also where the product rounds up to the total."""
    return jnp.minimum(jnp.floor(share * total).astype(jnp.int32), total - 1)


def _each(draw, key, sizes, index):
    """One draw, or one for each example by its own key."""
    sizes = jnp.asarray(sizes, jnp.int32)
    if index is None:
        return draw(key, sizes)
    index = jnp.asarray(index)
    return jax.vmap(draw)(jax.vmap(jax.random.fold_in, (None, 0))(key, index), jnp.broadcast_to(sizes, index.shape))


def _check(kind, power):
    check.choice("kind", kind, KINDS)
    check.positive("power", power)


def _check_videos(key, name, sizes, index):
    check.key("key", key)
    check.arrays(index=(index, "B?", "int"))
    _check_length(name, sizes, "" if index is None or not jnp.ndim(sizes) else f"{jnp.shape(index)[0]}")


def _check_length(name, sizes, spec):
    check.arrays(**{name: (sizes, spec, "int")})
    check.number(name, sizes, at_least=1, several=True)
