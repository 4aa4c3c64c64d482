"""Videos that are made: small pictures that move."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int32

from cljax.core import check
from cljax.core.check import KeyLike


class MovingGlyphs(NamedTuple):
    """What `moving_glyphs` makes.

    Attributes:
      videos: `[B, length, side, side]`.
      direction: int32 `[B]`, that of the first frames, in eighths of a turn; 0 is to the right, 2 downwards.
    """

    videos: Float[Array, "B T S S"]
    direction: Int32[Array, " B"]


def moving_glyphs(
    key: KeyLike,
    glyphs: Float[ArrayLike, "B H W"],
    *,
    length: int = 24,
    side: int = 16,
    speed: float | int = 1.5,
    turns: tuple[int, int] = (8, 16),
    shown: float | int = 1.0,
) -> MovingGlyphs:
    """A video of each glyph: it moves over a torus, and once, half-way, goes another way.

    Place, first direction, second one (another) and when it turns are uniform; places are rounded to whole pixels when they are drawn. So the
    direction of the first frames is a label that is local in time, and what glyph it is one that stays the same.

    Args:
      key: a PRNG key.
      glyphs: `[B, height, width]`.
      length: the frames of a video.
      side: the height and width of a frame, at least those of the glyphs; what leaves at one edge comes in at the other.
      speed: pixels a frame.
      turns: the turn comes after so many moves, from the first to below the second.
      shown: the share of a video's frames, drawn at random, in which the glyph is seen; the others are empty.

    Returns:
      `MovingGlyphs(videos, direction)`.

    Raises:
      TypeError, ValueError: an argument of another shape or range.

    >>> found = moving_glyphs(jax.random.key(0), jnp.ones((5, 8, 8)), shown=0.5)
    >>> found.videos.shape, found.direction.shape, int((found.videos[0].max(axis=(1, 2)) > 0).sum())
    ((5, 24, 16, 16), (5,), 12)
    """
    check.key("key", key)
    check.arrays(glyphs=(glyphs, "B H W"))
    check.integer("length", length, at_least=2)
    check.integer("side", side, at_least=max(jnp.shape(glyphs)[1:]))
    check.number("speed", speed)
    check.integer("turns[0]", turns[0], at_least=0)
    check.integer("turns[1]", turns[1], at_least=turns[0] + 1)
    check.number("shown", shown, at_least=0, at_most=1)
    return _moving_glyphs(key, glyphs, length, side, speed, tuple(turns), shown)


@partial(jax.jit, static_argnums=(2, 3, 5, 6))
def _moving_glyphs(key, glyphs, length, side, speed, turns, shown):
    glyphs = jnp.asarray(glyphs)
    count, *size = glyphs.shape
    k_start, k_first, k_second, k_turn, k_shown = jax.random.split(key, 5)
    start = jax.random.uniform(k_start, (count, 1, 2), maxval=side)
    first = jax.random.randint(k_first, (count,), 0, 8)
    second = (first + jax.random.randint(k_second, (count,), 1, 8)) % 8
    turn = jax.random.randint(k_turn, (count, 1), *turns)
    angle = 2 * np.pi / 8 * jnp.where(jnp.arange(length - 1) < turn, first[:, None], second[:, None])
    moves = speed * jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1)
    place = jnp.round(jnp.concatenate([start, start + jnp.cumsum(moves, axis=1)], axis=1)).astype(int)
    rows, columns = ((jnp.arange(side) - place[..., i, None]) % side for i in (0, 1))
    canvas = jnp.pad(glyphs, ((0, 0), (0, side - size[0]), (0, side - size[1])))
    videos = canvas[jnp.arange(count)[:, None, None, None], rows[..., :, None], columns[..., None, :]]
    rank = jnp.argsort(jax.random.uniform(k_shown, (count, length)), axis=1)  # a random order of the frames
    return MovingGlyphs(videos * (rank < shown * length)[..., None, None], first)
