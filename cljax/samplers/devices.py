"""Several devices that record the same moments: which of them are positives, which negatives, and whose other moments they give."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int32

from cljax import pairwise
from cljax.core import check, mmd, permuted, safe_norm
from cljax.core.check import KeyLike
from cljax.core.mmd import SCALES


class Devices(NamedTuple):
    """What each device is to the anchor, as `losses.grouped_info_nce` takes it.

    Attributes:
      positive: `[D]` booleans, the one device whose simultaneous windows are the positives.
      negative: `[D]` booleans, the devices whose other windows are negatives.
      weights: float32 `[D]`, the weights of the negatives; 0 where a device gives none.
    """

    positive: Bool[Array, " D"]
    negative: Bool[Array, " D"]
    weights: Float[Array, " D"]


def device_distances(
    windows: Float[ArrayLike, "B D T C"],
    anchor: int | Int32[Array, ""] | None = None,
    *,
    by: Literal["magnitude", "axes"] = "magnitude",
    axes: int = 3,
    scales: Sequence[float] = SCALES,
    floor: float = 1e-4,
    axis_name: str | None = None,
) -> Float[Array, "*D"]:
    r"""How far the movements that each device records are from the anchor's: squared maximum mean discrepancies of their windows.

    A window is one point with a coordinate for each moment, its magnitude $\lVert a_t \rVert_2$ over the first axes (the accelerometer's), so that it
    does not hang on how a device is turned; `by="axes"` takes the mean of the distances of each axis alone.

    Args:
      windows: `[B, D, T, C]`: B moments, D devices, T samples, C channels. No gradient goes to them.
      anchor: which device, from 0 to D - 1; it may be traced. None: each in turn.
      by: "magnitude" or "axes".
      axes: how many of the channels, from the first on, are compared.
      scales: the variances of the kernels, see `core.mmd`.
      floor: the least distance, so that the weight 1 / distance is finite.
      axis_name: the mapped axis over which the moments are split.

    Returns:
      float32 `[D]`, without an anchor `[D, D]`; the distance of a device to itself is the floor.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range.

    Reference: Jain et al., "ColloSSL: Collaborative Self-Supervised Learning for Human Activity Recognition", 2022 (device selection).

    >>> steps = jnp.sin(jnp.arange(8.0)) * jnp.array([[[1.0]], [[0.9]], [[0.1]]])
    >>> windows = jnp.stack([steps, 1.1 * steps]).swapaxes(2, 3)
    >>> windows.shape, jnp.argsort(device_distances(windows, 0, axes=1)).tolist()
    ((2, 3, 8, 1), [0, 1, 2])
    """
    sizes = check.arrays(windows=(windows, "B D T C"))
    if anchor is not None and not isinstance(anchor, jax.core.Tracer):
        check.integer("anchor", anchor, at_least=0, at_most=sizes["D"] - 1)
    check.choice("by", by, ("magnitude", "axes"))
    check.integer("axes", axes, at_least=1, at_most=sizes["C"])
    points = jnp.moveaxis(lax.stop_gradient(jnp.asarray(windows))[..., :axes], 3, 0).swapaxes(1, 2)
    points = safe_norm(points, axis=0)[None] if by == "magnitude" else points

    def distance(x, y):
        return mmd(x, y, scales=scales, floor=floor, axis_name=axis_name)

    def distances(anchor):
        return jnp.mean(jax.vmap(jax.vmap(distance, (None, 0)))(points[:, anchor], points), axis=0)

    return lax.map(distances, jnp.arange(sizes["D"])) if anchor is None else distances(anchor)


def select_devices(
    distances: Float[ArrayLike, " D"],
    *,
    positive: Literal["closest", "farthest", "random"] = "closest",
    negatives: Literal["all", "positive", "next"] = "all",
    weighted: bool = True,
    key: KeyLike | None = None,
) -> Devices:
    r"""Chooses the positive device and the negative ones by their distances to the anchor: masks of a fixed shape, under jit too.

    A near device gives good positives, and good negatives at other moments: each negative device d has the weight $1 / \text{distance}_d$, next to a
    positive of weight 1. `losses.grouped_info_nce` takes the embeddings of all devices with these weights.

    Args:
      distances: `[D]`, above 0, of the other devices: without the anchor.
      positive: which device gives the positives; of equal ones the first.
      negatives: "all" devices, the positive one too; the "positive" one alone; the two "next" ones, the second and the third closest.
      weighted: whether negatives are weighted; else each has weight 1.
      key: a PRNG key, which `positive="random"` needs.

    Returns:
      `Devices`.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range; too few devices for `negatives`.

    Reference: Jain et al., "ColloSSL: Collaborative Self-Supervised Learning for Human Activity Recognition", 2022 (device selection).

    >>> chosen = select_devices(jnp.array([2.0, 0.5, 1.0]))
    >>> chosen.positive.tolist(), chosen.weights.tolist()
    ([False, True, False], [0.5, 2.0, 1.0])
    """
    devices = check.arrays(distances=(distances, "D"))["D"]
    check.choice("positive", positive, ("closest", "farthest", "random"))
    check.choice("negatives", negatives, ("all", "positive", "next"))
    if devices < (2 if negatives == "next" else 1):
        raise ValueError(f"distances must be those of {2 if negatives == 'next' else 1} devices at least, got shape [{devices}]")
    check.positive("distances", distances, several=True)
    if positive == "random":
        check.key("key", key)
    distances = jnp.asarray(distances, jnp.promote_types(jnp.result_type(distances), jnp.float32))
    if positive == "random":
        place = jax.random.randint(key, (), 0, devices)
    else:
        place = jnp.argmin(distances) if positive == "closest" else jnp.argmax(distances)
    chosen = jnp.arange(devices) == place
    rank = jnp.argsort(jnp.argsort(distances))
    negative = {"all": jnp.ones(devices, bool), "positive": chosen, "next": (rank == 1) | (rank == 2)}[negatives]
    return Devices(chosen, negative, jnp.where(negative, 1 / distances if weighted else jnp.ones_like(distances), 0))


def asynchronous(key: KeyLike, batch: int, draws: int, *, allow_sync: bool = False, axis_name: str | None = None) -> Int32[Array, "draws B"]:
    r"""For each anchor the row of another moment, several times: negatives out of windows that other devices recorded.

    Draw q shifts the whole batch of N rows by one number of its own, $i + s_q \bmod N$ with $s_q \sim U\{1, \ldots, N - 1\}$, so each row is used
    once and no anchor meets its own moment. With `allow_sync` each draw is a random permutation, which may leave some where they are: the released
    code does so.

    Args:
      key: a PRNG key, the same on all devices of the axis.
      batch: B, the anchors (of this device).
      draws: how many rows each anchor gets, one or more for each source of negatives.
      allow_sync: whether an anchor may get its own moment.
      axis_name: the mapped axis over which the batch is split; rows are those of the whole one, N = B times its size.

    Returns:
      int32 `[draws, B]`, from 0 to N - 1.

    Raises:
      TypeError, ValueError: an argument of another kind or range, a single row without `allow_sync`, an axis that is not mapped.

    >>> import jax
    >>> rows = asynchronous(jax.random.key(0), 5, 3)
    >>> rows.shape, bool((rows != jnp.arange(5)).all())
    ((3, 5), True)
    """
    check.key("key", key)
    check.integer("batch", batch, at_least=1)
    check.integer("draws", draws, at_least=1)
    check.axis("axis_name", axis_name)
    total = batch * (1 if axis_name is None else lax.axis_size(axis_name))
    if total == 1 and not allow_sync:
        raise ValueError("batch must hold at least 2 rows over all devices, got 1, which has no other moment")
    own = pairwise.index(batch, axis_name)
    if allow_sync:
        words = jax.random.bits(key, (draws, 1, 2), jnp.uint32)
        return permuted(words, total, jnp.broadcast_to(own, (draws, batch)))
    return (own + jax.random.randint(key, (draws, 1), 1, total, jnp.int32)) % total


def window(total: int, length: int, *, stride: int | None = None) -> np.ndarray:
    """The samples of each window of a signal: `signal[window(len(signal), 150, stride=75)]` are its windows `[W, 150, ...]`.

    Args:
      total: the samples of the signal.
      length: the samples of a window, at most `total`.
      stride: from the start of one to that of the next; None is the length, so that windows don't overlap. What is left at the end is in no window.

    Returns:
      int32 `[W, length]`, a numpy array.

    Raises:
      TypeError, ValueError: an argument of another kind or range.

    >>> window(7, 3, stride=2).tolist()
    [[0, 1, 2], [2, 3, 4], [4, 5, 6]]
    """
    check.integer("total", total, at_least=1)
    check.integer("length", length, at_least=1, at_most=total)
    stride = length if stride is None else stride
    check.integer("stride", stride, at_least=1)
    return (np.arange(0, total - length + 1, stride)[:, None] + np.arange(length)).astype(np.int32)
