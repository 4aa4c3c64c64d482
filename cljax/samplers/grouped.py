"""Batches of what belongs together: one group, or examples of similar length."""

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Int32, Integer

from cljax.core import check
from cljax.core.check import KeyLike
from cljax.samplers import _runs
from cljax.samplers.balanced import Batches, checked


def group_batches(key: KeyLike, groups: Integer[ArrayLike, " N"], batch: int, epoch: Integer[ArrayLike, ""], *, partial: bool = False) -> Batches:
    r"""All batches of one epoch, each from one group (a cluster, a user, a book): all negatives are near.

    A group of m examples is shuffled and cut into $\lfloor m/B \rfloor$ batches; the rest of it is left out, as are groups smaller than B. The
    batches come in random order, and since their number hangs on the groups, those of the $\lfloor N/B \rfloor$ that there are not are empty and
    come last.

    With `partial` all $\lfloor N/B \rfloor$ batches are used, and small groups too: each group has batches in proportion to its size, $m/N$ of them
    rounded up or down at random (systematic sampling), among which its examples are shared evenly; a batch with fewer than B is short at its end.

    Each example comes once at most. It works under jit with traced groups and epoch, and compiles once for a number of examples: O(N log N).

    Args:
      key: a PRNG key, the same in every epoch.
      groups: integers `[N]`, any values.
      batch: B, at most N.
      epoch: from 0 on; may be traced.
      partial: whether small groups make batches that are not full.

    Returns:
      `Batches` of shape `[N // B, B]`.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range; no groups; without `partial`, where the groups are concrete, none with as
        many examples as a batch.

    Reference:
      Zhang et al., "Learning the Unlearned: Mitigating Feature Suppression in Contrastive Learning" (MCL), ECCV 2024.

    >>> import jax
    >>> groups = jnp.array([3, 3, 3, 8, 8])
    >>> indices, where = group_batches(jax.random.key(0), groups, 2, epoch=0)
    >>> sorted(groups[indices].tolist()), bool(where.all())
    ([[3, 3], [8, 8]], True)
    """
    numbers, epoch = checked(key, "groups", groups, batch, epoch)
    known = None if partial else _runs.counted(groups)
    if known is not None and known[1].max() < batch:
        largest = known[1].argmax()
        raise ValueError(f"batch must be at most the size of the largest group, {known[1][largest]} of group {known[0][largest]}, got {batch}")
    return (_shares if partial else _whole)(key, numbers, batch, epoch)


def held_out_groups(key: KeyLike, groups: Integer[ArrayLike, " N"], share: float | int = 0.2) -> Bool[np.ndarray, " N"]:
    r"""Draws the groups (people, speakers, films) on which is tested: what a model knows of a group by others of its examples doesn't count.

    Of G groups $\lceil s G \rceil$ are held out, but never all.

    Args:
      key: a PRNG key.
      groups: integers `[N]` of two values at least, concrete.
      share: s, above 0 and below 1.

    Returns:
      numpy booleans `[N]`, whether the example's group is held out.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range; traced groups; one group alone.

    >>> groups = np.repeat([2, 3, 5, 7, 11], 3)
    >>> where = held_out_groups(jax.random.key(0), groups, 0.4)
    >>> int(where.sum()), len(np.unique(groups[where]))
    (6, 2)
    """
    check.key("key", key)
    check.arrays(groups=(groups, "N", "int"))
    if isinstance(groups, jax.core.Tracer):
        raise TypeError("groups must be concrete, got a traced array")
    check.number("share", share)
    if not 0 < share < 1:
        raise ValueError(f"share must be above 0 and below 1, got {share}")
    names, place = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"groups must hold two different ones at least, got {len(names)}")
    count = min(math.ceil(round(share * len(names), 9)), len(names) - 1)
    return np.isin(place, np.asarray(jax.random.permutation(key, len(names)))[:count])


class Buckets(NamedTuple):
    """Batches of examples of similar length.

    Attributes:
      indices: int32 `[batches, B]`, indices of examples.
      length: int32 `[batches]`, the length to which all of a batch are padded, one of the boundaries.
    """

    indices: Int32[Array, "batches B"]
    length: Int32[Array, " batches"]


def bucket_batches(
    key: KeyLike, lengths: Integer[ArrayLike, " N"], batch: int, epoch: Integer[ArrayLike, ""], *, boundaries: Sequence[int]
) -> Buckets:
    """All batches of one epoch, each of examples of similar length, to be padded to one of a few lengths: a step compiles once for each of these.

    The examples are shuffled, ordered by the bucket that their length falls into, and cut; a batch in which two buckets meet has the length of the
    longer. So all batches are full, no example comes twice, only `N % B` random ones are left out, and who is with whom changes each epoch. The
    batches come in random order.

    It works under jit with traced lengths and epoch, and compiles once for a number of examples; the padded length has to be known outside of jit,
    where `tokens[indices[i]][:, : int(length[i])]` is cut.

    Args:
      key: a PRNG key, the same in every epoch.
      lengths: integers `[N]`.
      batch: B, at most N.
      epoch: from 0 on; may be traced.
      boundaries: the padded lengths, rising; an example falls into the first that is not below its length.

    Returns:
      `Buckets` of `N // B` batches.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range; no lengths; boundaries that don't rise; where the lengths are concrete,
        one above the last boundary (traced ones fall into the last bucket).

    >>> import jax
    >>> lengths = jnp.array([3, 30, 5, 20, 4, 31])
    >>> indices, length = bucket_batches(jax.random.key(0), lengths, 3, epoch=0, boundaries=(8, 32))
    >>> sorted(zip(length.tolist(), [sorted(row) for row in lengths[indices].tolist()]))
    [(8, [3, 4, 5]), (32, [20, 30, 31])]
    """
    numbers, epoch = checked(key, "lengths", lengths, batch, epoch)
    if not isinstance(boundaries, Sequence) or not boundaries:
        raise TypeError(f"boundaries must be a sequence of integers, got {boundaries!r}")
    for boundary in boundaries:
        check.integer("boundaries", boundary, at_least=1, at_most=2**31 - 1)
    if any(a >= b for a, b in pairwise(boundaries)):
        raise ValueError(f"boundaries must rise, got {tuple(boundaries)}")
    if not isinstance(lengths, jax.core.Tracer) and np.max(lengths) > boundaries[-1]:
        raise ValueError(f"lengths must be at most the last boundary, {boundaries[-1]}, got {np.max(lengths)}")
    return _buckets(key, numbers, batch, epoch, jnp.array(boundaries, jnp.int32))


def _ordered(key, groups):
    """The examples in the order of their groups, shuffled within each: their indices, and where the group of each begins and ends."""
    place = jnp.arange(len(groups), dtype=jnp.int32)
    known, _, index = lax.sort((groups, jax.random.bits(key, (len(groups),), jnp.uint32), place), num_keys=2)
    return index, *_runs.runs(known)


def _cut(index, begin, size, batch):
    """The batches that take `size` entries of `index` from `begin` on."""
    where = jnp.arange(batch) < size[:, None]
    return Batches(jnp.where(where, index[jnp.minimum(begin[:, None] + jnp.arange(batch), len(index) - 1)], -1), where)


@partial(jax.jit, static_argnames="batch")
def _whole(key, groups, batch, epoch):
    total, place = len(groups), jnp.arange(len(groups), dtype=jnp.int32)
    k_order, k_batch = jax.random.split(jax.random.fold_in(key, epoch))
    index, start, end = _ordered(k_order, groups)
    heads = ((place - start) % batch == 0) & (place + batch <= end)
    none, _, begin = (x[: total // batch] for x in lax.sort((~heads, jax.random.bits(k_batch, (total,), jnp.uint32), place), num_keys=2))
    return _cut(index, begin, jnp.where(none, 0, batch), batch)


@partial(jax.jit, static_argnames="batch")
def _shares(key, groups, batch, epoch):
    total, count = len(groups), len(groups) // batch
    row = jnp.arange(count, dtype=jnp.int32)
    k_order, k_offset, k_batch = jax.random.split(jax.random.fold_in(key, epoch), 3)
    index, start, end = _ordered(k_order, groups)
    # Batch r belongs to the group of the entry floor((r total + offset) / count): of equally spaced entries a group has its share.
    entry = row * batch + (row * (total % batch) + jax.random.randint(k_offset, (), 0, total, jnp.int32)) // count
    start, end = start[entry], end[entry]
    first, last = _runs.runs(start)
    number, batches, size = row - first, last - first, end - start
    begin = start + number * (size // batches) + jnp.minimum(number, size % batches)
    size = jnp.minimum(batch, size // batches + (number < size % batches))
    order = _shuffle(k_batch, row)
    return _cut(index, begin[order], size[order], batch)


@partial(jax.jit, static_argnames="batch")
def _buckets(key, lengths, batch, epoch, boundaries):
    total, count = len(lengths), len(lengths) // batch
    k_order, k_batch = jax.random.split(jax.random.fold_in(key, epoch))
    index = _shuffle(k_order, jnp.arange(total, dtype=jnp.int32))[: count * batch]
    bucket = jnp.minimum(jnp.searchsorted(boundaries, lengths[index]), len(boundaries) - 1)
    bucket, index = (x.reshape(count, batch) for x in lax.sort((bucket, index), num_keys=1))
    mixed = _shuffle(k_batch, jnp.arange(count, dtype=jnp.int32))
    return Buckets(index[mixed], boundaries[bucket[mixed, -1]])


def _shuffle(key, x):
    return lax.sort((jax.random.bits(key, x.shape, jnp.uint32), x), num_keys=1)[1]
