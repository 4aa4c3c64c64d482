"""Views of clips: any view of images, with the same draws for all frames of a clip; and crops that are no draws."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Integer, Num, PyTree

from cljax.core import check
from cljax.core.check import KeyLike
from cljax.views.blur import gaussian_blur
from cljax.views.colour import colour_jitter, greyscale, solarise
from cljax.views.compose import compose
from cljax.views.crops import random_resized_crop
from cljax.views.images import flip


def per_clip(
    view: Callable[..., Any],
    key: KeyLike,
    clips: Num[ArrayLike, "B T H W *C"],
    *,
    index: Integer[ArrayLike, " B"] | None = None,
    consistent: bool = True,
    tall: bool = False,
) -> PyTree:
    """Applies a view of images to clips, with the same draws for all frames of a clip: what moves in it still moves as it did.

    Frames are images of one batch, in which those of a clip have its index: as a view draws by the index alone, they get one draw. A view of clips is
    `partial(per_clip, views.flip)`.

    Args:
      view: called as `view(key, images, index=index)`, any of this room that draws for each image alone.
      key: a PRNG key.
      clips: `[B, T, H, W]` or `[B, T, H, W, C]`, T frames each.
      index: `[B]` integers from which the draws are made, see `per_example`; None is 0, 1, ..., B - 1.
      consistent: False gives each frame a draw of its own, which destroys the motion: to compare with.
      tall: whether the view sees the frames of a clip one below the other, as one picture, so that a mean that it takes, as for the contrast, is that
        of the whole clip. For views that leave every pixel where it is; without `consistent` the frames are apart all the same.

    Returns:
      What `view` returns, with the axes B and T in front.

    Raises:
      TypeError, ValueError: an argument of another kind or shape.

    Reference: Qian et al., "Spatiotemporal Contrastive Video Representation Learning", CVPR 2021, section 3.3.

    >>> import jax, jax.numpy as jnp
    >>> from cljax import views
    >>> clip = jnp.arange(6.0).reshape(1, 3, 1, 2)
    >>> per_clip(partial(views.flip, probability=1.0), jax.random.key(0), clip)[0, :, 0].tolist()
    [[1.0, 0.0], [3.0, 2.0], [5.0, 4.0]]
    """
    if not callable(view):
        raise TypeError(f"view must be a function view(key, images, *, index), got {type(view).__name__}")
    check.key("key", key)
    _check_clips(clips, index, "number")
    clips = jnp.asarray(clips)
    (batch, frames), image = clips.shape[:2], clips.shape[2:]
    index = jnp.arange(batch) if index is None else jnp.asarray(index, jnp.int32)
    if consistent and tall:
        changed = view(key, clips.reshape(batch, frames * image[0], *image[1:]), index=index)
        return jax.tree.map(lambda x: x.reshape(batch, frames, *image), changed)
    index = jnp.repeat(index, frames) if consistent else (index[:, None] * frames + jnp.arange(frames)).ravel()
    changed = view(key, clips.reshape(batch * frames, *image), index=index)
    return jax.tree.map(lambda x: x.reshape(batch, frames, *x.shape[1:]), changed)


def clip_augment(
    key: KeyLike,
    clips: Float[ArrayLike, "B T H W C"],
    *,
    index: Integer[ArrayLike, " B"] | None = None,
    second: bool = False,
    consistent: bool = True,
    size: int | Sequence[int] | None = None,
    scale: Sequence[Num[ArrayLike, ""]] = (0.3, 1.0),
    ratio: Sequence[Num[ArrayLike, ""]] = (0.5, 2.0),
    strength: Num[ArrayLike, ""] = 1.0,
) -> Float[Array, "B T h w C"]:
    """The augmentation of CVRL, one draw for all frames of a clip.

    A random resized crop; a mirror image half of the time; with probability 0.8 a jitter of colours, of strengths 0.8, 0.8, 0.8 and 0.2, its contrast
    about each channel's mean over the whole clip; grey with probability 0.2; a blur, of the first of two clips always, of the second with probability
    0.1; and the second is solarised with probability 0.2. Values stay within [0, 1]. The released code jitters the saturation in HSV, and blurs with
    zeros beyond the edge; here both are as in `colour_jitter` and `gaussian_blur`.

    Args:
      key: a PRNG key, another one for each of the two clips.
      clips: `[B, T, H, W, C]` floats in [0, 1], of one channel or three.
      index: `[B]` integers from which the draws are made, see `per_example`; None is 0, 1, ..., B - 1.
      second: whether these are the second clips of the pairs.
      consistent: False gives each frame a draw of its own: to compare with.
      size: height and width of the result, or one number for both; None is that of `clips`.
      scale, ratio: of the crop, as in `random_resized_crop`.
      strength: of the jitter, which multiplies its four strengths; from 0 to 2.5.

    Returns:
      The views, `[B, T, h, w, C]`, in the dtype of `clips`.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference: Qian et al., "Spatiotemporal Contrastive Video Representation Learning", CVPR 2021, section 3.3; order and numbers are the code's.

    >>> import jax, jax.numpy as jnp
    >>> clip_augment(jax.random.key(0), jnp.full((2, 4, 24, 24, 3), 0.5), size=20).shape
    (2, 4, 20, 20, 3)
    """
    _check_clips(clips, index, "float")
    check.number("strength", strength, at_least=0, at_most=2.5)
    strengths = dict(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)
    jitter = partial(colour_jitter, contrast_mean="channel", **{name: strength * value for name, value in strengths.items()})
    over = partial(partial, per_clip, consistent=consistent)
    steps = [
        over(partial(random_resized_crop, scale=scale, ratio=ratio, size=size)),
        over(flip),
        over(jitter, tall=True),
        over(greyscale),
        over(partial(gaussian_blur, probability=0.1 if second else 1.0)),
    ]
    changed = compose(*steps, *[over(solarise)] * second)(key, clips, index=index)
    return jnp.clip(changed, 0, 1)


def take_clips(videos: Num[ArrayLike, "B L *F"], places: PyTree) -> PyTree:
    """The clips whose frames a sampler chose, out of videos.

    Args:
      videos: `[B, L, ...]`, L frames each.
      places: integers `[B, ...]` from 0 to L - 1, such as `[B, T]` for a clip of each; or a tree of such arrays, such as those of
        `samplers.sample_clip_pair`.

    Returns:
      `[B, ...]` with the axes of a frame behind, or a tree of such arrays.

    Raises:
      TypeError, ValueError: an argument of another kind or shape.

    >>> import jax.numpy as jnp
    >>> take_clips(jnp.arange(10).reshape(2, 5), {"clip": jnp.array([[0, 2], [3, 4]])})["clip"].tolist()
    [[0, 2], [8, 9]]
    """
    check.arrays(videos=(videos, "...", "number"))
    if jnp.ndim(videos) < 2:
        raise ValueError(f"videos must have shape [B, L, ...], got {list(jnp.shape(videos))}")
    for leaf in jax.tree.leaves(places):
        check.arrays(places=(leaf, "...", "int"))
        if jnp.shape(leaf)[:1] != jnp.shape(videos)[:1]:
            raise ValueError(f"places must have a row for each of the {len(videos)} videos, got shape {list(jnp.shape(leaf))}")
    return jax.tree.map(lambda place: jax.vmap(partial(jnp.take, axis=0))(jnp.asarray(videos), jnp.asarray(place)), places)


def spread_crops(clips: Num[ArrayLike, "*B H W C"], crops: int = 3) -> Num[Array, "crops *B S S C"]:
    """Squares at even distances along the longer side of images or of clips, for evaluation: what an encoder says of a clip is the mean over them.

    Args:
      clips: `[..., H, W, C]`, numbers of any dtype.
      crops: how many; a single one lies in the middle. Where height and width are equal all are the same.

    Returns:
      `[crops, ..., S, S, C]` with S the shorter side, from the left or the upper one to the other.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range.

    Reference: Feichtenhofer et al., "SlowFast Networks for Video Recognition", ICCV 2019, section 4 (inference).

    >>> import jax.numpy as jnp
    >>> spread_crops(jnp.arange(5.0).reshape(1, 5, 1))[:, 0, 0, 0].tolist()
    [0.0, 2.0, 4.0]
    """
    check.arrays(clips=(clips, "... H W C", "number"))
    check.integer("crops", crops, at_least=1)
    clips = jnp.asarray(clips)
    height, width = clips.shape[-3:-1]
    side, room = min(height, width), abs(height - width)
    starts = [round(room * n / (crops - 1)) for n in range(crops)] if crops > 1 else [room // 2]
    return jnp.stack([clips[..., start : start + side, :, :] if height > width else clips[..., start : start + side, :] for start in starts])


def _check_clips(clips, index, kind):
    if jnp.ndim(clips) not in (4, 5):
        raise ValueError(f"clips must have shape [B, T, H, W] or [B, T, H, W, C], got {list(jnp.shape(clips))}")
    check.arrays(clips=(clips, "B T H W" if jnp.ndim(clips) == 4 else "B T H W C", kind), index=(index, "B?", "int"))
