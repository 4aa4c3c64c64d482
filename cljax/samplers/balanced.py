"""Batches by identity: none twice, or as many examples of each class."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Int32, Integer

from cljax.core import check, permuted, vary, varying_axes
from cljax.core.check import KeyLike
from cljax.samplers import _runs


class Batches(NamedTuple):
    """Batches of which some are not full.

    Attributes:
      indices: int32 `[batches, B]`, indices of examples; -1 where there is none.
      where: `[batches, B]` booleans, which entries are examples: the `where` of the losses.
    """

    indices: Int32[Array, "batches B"]
    where: Bool[Array, "batches B"]


def unique_batches(key: KeyLike, ids: Integer[ArrayLike, " N"], batch: int, epoch: Integer[ArrayLike, ""]) -> Batches:
    r"""All batches of one epoch, in which no two examples of a batch share an id: no positive is another anchor's negative.

    Each example comes once at most. There are $n = \lfloor N/B \rfloor$ batches, and an id comes at most n times, once a batch; what is beyond
    that, and the rest of $N/B$, is left out, drawn anew each epoch. Where all that is left does not fill the batches they are short by one entry
    more or less, at their ends; with no id more frequent than n all are full. Given that, which batch an example is in is random.

    It works under jit with traced ids and epoch, and compiles once for a number of examples: O(N log N).

    Args:
      key: a PRNG key, the same in every epoch.
      ids: integers `[N]`, any values: the text, the place, the product of an example.
      batch: B, at most N and at most the number of different ids.
      epoch: from 0 on; may be traced.

    Returns:
      `Batches` of shape `[N // B, B]`.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range; no ids; fewer different ids than `batch`, where they are concrete.

    >>> import jax
    >>> ids = jnp.array([7, 7, 5, 5, 3, 4])
    >>> indices, where = unique_batches(jax.random.key(0), ids, 2, epoch=0)
    >>> [len(set(row)) for row in ids[indices].tolist()], bool(where.all())
    ([2, 2, 2], True)
    """
    numbers, epoch = checked(key, "ids", ids, batch, epoch)
    known = _runs.counted(ids)
    if known is not None and len(known[0]) < batch:
        raise ValueError(f"ids must hold at least batch = {batch} different ids, got {len(known[0])}")
    return _unique(key, numbers, batch, epoch)


def class_batches(
    key: KeyLike, labels: Integer[ArrayLike, " N"], batch: int, epoch: Integer[ArrayLike, ""], *, per_class: int
) -> Int32[Array, "batches batch"]:
    r"""All batches of one epoch, each of P = B / M different classes and M different examples of each (PK sampling).

    Every class has the same number of turns in an epoch, but for one more or less, whatever its size. The examples of a class come in a random
    order, and again, in another order, once all full sets of M have been shown: a large class may not be shown whole in one epoch.

    It works under jit with traced labels and epoch, and compiles once for a number of examples. Of traced labels nothing can be said: a class with
    fewer than M examples is left out there, and with fewer than P classes the entries that can't be filled are -1.

    Args:
      key: a PRNG key, the same in every epoch.
      labels: integers `[N]`, any values.
      batch: B, at most N, a multiple of `per_class`.
      epoch: from 0 on; may be traced.
      per_class: M, the examples of a class in a batch.

    Returns:
      int32 `[N // B, B]`, indices of examples; the M of one class stand side by side.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range; no labels; where they are concrete, a class with fewer than M examples or
        fewer classes than P.

    Reference:
      Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification", 2017, section 2.

    >>> import jax
    >>> labels = jnp.array([4, 4, 4, 4, 4, 8, 8, 8])
    >>> sorted(labels[class_batches(jax.random.key(0), labels, 4, epoch=0, per_class=2)].reshape(4, 2).tolist())
    [[4, 4], [4, 4], [8, 8], [8, 8]]
    """
    numbers, epoch = checked(key, "labels", labels, batch, epoch)
    check.integer("per_class", per_class, at_least=1, at_most=batch)
    if batch % per_class:
        raise ValueError(f"batch must be a multiple of per_class = {per_class}, got {batch}")
    _runs.check_members("labels", labels, per_class, batch // per_class, "per_class")
    return _classes(key, numbers, batch, epoch, per_class)


def checked(key, name, values, batch, epoch):
    """The labels as an array and the epoch as uint32, both checked as all samplers of batches do."""
    check.key("key", key)
    values = _runs.numbers(name, values)
    check.integer("batch", batch, at_least=1, at_most=len(values))
    check.arrays(epoch=(epoch, "", "int"))
    check.number("epoch", epoch, at_least=0)
    return values, jnp.asarray(epoch).astype(jnp.uint32)


@partial(jax.jit, static_argnames="batch")
def _unique(key, ids, batch, epoch):
    total, place = len(ids), jnp.arange(len(ids), dtype=jnp.int32)
    count = total // batch
    k_draw, k_deal = jax.random.split(jax.random.fold_in(key, epoch))
    in_order, in_cut, in_groups = jax.random.bits(k_draw, (3, total), jnp.uint32)
    known, _, index = lax.sort((ids, in_order, place), num_keys=2)
    start, _ = _runs.runs(known)
    fits = place - start < count
    first = lax.sort((~fits, in_cut, place), num_keys=2)[-1][: count * batch]
    kept = jnp.zeros(total, bool).at[first].set(True) & fits
    _, _, group, index, kept = lax.sort((~kept, in_groups[start], start, index, kept), num_keys=3)  # the groups in a random order
    group, index, kept = (x[: count * batch].reshape(batch, count) for x in (group, index, kept))
    columns = _deal(k_deal, group, kept)
    empty = jnp.full((count, batch), -1, jnp.int32)
    indices = empty.at[columns, jnp.arange(batch)[:, None]].set(jnp.where(kept, index, -1))
    return Batches(indices, indices >= 0)


@partial(jax.jit, static_argnames=("batch", "per_class"))
def _classes(key, labels, batch, epoch, per_class):
    total, place = len(labels), jnp.arange(len(labels), dtype=jnp.int32)
    count, classes = total // batch, batch // per_class
    k_class, k_deal, k_member = jax.random.split(jax.random.fold_in(key, epoch), 3)
    known, index = lax.sort((labels, place), num_keys=1)
    start, end = _runs.runs(known)
    whole = (place == start) & (end - start >= per_class)
    _, _, start, members = lax.sort((~whole, jax.random.bits(k_class, (total,), jnp.uint32), start, end - start), num_keys=2)

    # The turns of an epoch are shared out in runs: the first `more` classes of a random order have one turn more than the others.
    number = jnp.maximum(jnp.sum(whole, dtype=jnp.int32), 1)
    turn = jnp.arange(count * classes, dtype=jnp.int32)
    each, more = count * classes // number, count * classes % number
    late = turn - more * (each + 1)
    of = jnp.where(late < 0, turn // (each + 1), more + late // jnp.maximum(each, 1))
    turn = jnp.where(late < 0, turn % (each + 1), late % jnp.maximum(each, 1))
    kept = (turn < count) & (of < jnp.sum(whole))

    sets = jnp.maximum(members[of] // per_class, 1)
    words = jax.vmap(_runs.fold)(jax.vmap(jax.random.fold_in, (None, 0))(k_member, of), turn // sets)
    entry = (turn % sets)[:, None] * per_class + jnp.arange(per_class)
    chosen = index[start[of][:, None] + permuted(words[:, None], members[of][:, None], entry)]
    columns = _deal(k_deal, of.reshape(classes, count), kept.reshape(classes, count))
    chosen = jnp.where(kept[:, None], chosen, -1).reshape(classes, count, per_class)
    return jnp.zeros((count, classes, per_class), jnp.int32).at[columns, jnp.arange(classes)[:, None]].set(chosen).reshape(count, batch)


def _deal(key, groups, kept):
    """Deals out a list whose groups stand in runs, one entry of each row to each batch, the entries of a group to different batches.

    Args:
      key: a PRNG key.
      groups: int32 `[rows, batches]`, the group of each entry of the list, not below 0; no group has more entries than there are batches.
      kept: booleans of that shape; entries that are not kept belong to no group.

    Returns:
      int32 `[rows, batches]`, the batch of each entry: a permutation in each row, random but for what the group allows.
    """
    rows, count = groups.shape
    column = jnp.arange(count, dtype=jnp.int32)
    groups = jnp.where(kept, groups, -1 - jnp.arange(rows * count, dtype=jnp.int32).reshape(rows, count))

    def row(before, now):
        taken, group = before  # by a group that began in the row above
        groups, bits = now
        head = jnp.sum(groups == group)
        _, _, free_first = lax.sort((taken, bits[0], column), num_keys=2)
        _, _, chosen = lax.sort((column >= head, bits[1], free_first), num_keys=2)
        return (jnp.zeros(count, bool).at[chosen].set(groups == groups[-1]), groups[-1]), chosen

    bits = jax.random.bits(key, (rows, 2, count), jnp.uint32)
    start = jnp.zeros(count, bool), jnp.int32(jnp.iinfo(jnp.int32).min)
    return lax.scan(row, vary(start, varying_axes(groups, bits)), (groups, bits))[1]
