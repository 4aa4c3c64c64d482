"""The machinery of the miners: whom a query may have, random numbers of pairs, and the best keys by any value of a pair."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cljax import pairwise
from cljax.core import check, mixed, safe_normalize, vary, varying_axes
from cljax.core.ids import integers, meet
from cljax.pairwise import Max, Sum


class Pool(NamedTuple):
    """What a miner chooses from, without gradients, the keys of all devices on each.

    Attributes:
      queries: `[B, D]`.
      keys: `[N, D]`.
      rows, columns: trees with leading axes B and N of all that is known of a query and of a key beside its embedding.
      where: None, or the user's function of the leaves "user" of both.
      similarity: as in `pairwise.reduce`.
    """

    queries: Any
    keys: Any
    rows: dict
    columns: dict
    where: Callable | None
    similarity: str


def pool(queries, keys, k, *, positives, ids, key_ids, rows=None, columns=None, where=None, guide=None, index=None, similarity, axis_name):
    """The arguments that all miners share, checked, as a `Pool`; `guide` is None or (embeddings of queries, of keys, margin)."""
    sizes = check.arrays(queries=(queries, "B D"), keys=(keys, "N D"), index=(index, "B?", "int"))
    batch, local = sizes["B"], sizes["N"]
    check.choice("similarity", similarity, pairwise.similarity.SIMILARITIES)
    check.axis("axis_name", axis_name)
    total = local * (1 if axis_name is None else lax.axis_size(axis_name))
    check.integer("k", k, at_least=1, at_most=total)
    if where is not None and not callable(where):
        raise TypeError(f"where must be None or a function of (row, column), got {type(where).__name__}")
    if ids is None and key_ids is not None:
        raise ValueError("key_ids needs ids (of the queries), got ids=None")
    if ids is not None and key_ids is None and batch != local:
        raise ValueError(f"key_ids must be given where there are not as many keys as queries, got {local} keys and {batch} queries")
    ids, key_ids = integers("ids", ids, batch), integers("key_ids", ids if key_ids is None else key_ids, local)
    row = dict(positives=_positives(positives, batch, total), ids=ids, example=pairwise.index(batch, axis_name) if index is None else index)
    column = dict(index=pairwise.index(local, axis_name), ids=key_ids)
    if guide is not None:
        check.arrays(**{"guide[0]": (guide[0], f"{batch} E"), "guide[1]": (guide[1], f"{local} E")})
        row["guide"], column["guide"] = map(safe_normalize, guide[:2])
    row, column = ({name: leaf for name, leaf in leaves.items() if leaf is not None} for leaves in (row, column))
    found = (queries, keys, row | {"user": rows}, column | {"user": columns})
    queries, keys, row, column = lax.stop_gradient(jax.tree.map(jnp.asarray, found))
    if axis_name is not None:
        keys, column = jax.tree.map(lambda leaf: lax.all_gather(vary(leaf, {axis_name}), axis_name, tiled=True), (keys, column))
    if guide is not None:
        theirs = jnp.einsum("be,bpe->bp", row["guide"], column["guide"][jnp.maximum(row["positives"], 0)], precision=lax.Precision.HIGHEST)
        row["limit"] = jnp.min(jnp.where(row["positives"] >= 0, theirs, jnp.inf), axis=1) - guide[2]
    return Pool(queries, keys, row, column, where, similarity)


def forbidden(pool, row, column):
    """Which keys a query may not have, whatever their scores: `[b, n]` booleans."""
    found = jnp.zeros(jnp.broadcast_shapes(row["example"].shape, column["index"].shape), bool)
    if "positives" in row:
        found |= jnp.any(row["positives"] == column["index"][..., None], axis=-1)
    if "ids" in row:
        found |= meet(row["ids"], column["ids"])
    if "guide" in row:
        found |= jnp.einsum("bie,jne->bn", row["guide"], column["guide"], precision=lax.Precision.HIGHEST) > row["limit"]
    return found if pool.where is None else found | ~pool.where(row["user"], column["user"])


def ruled(pool):
    """Whether anything but a score can forbid a key."""
    return pool.where is not None or not {"positives", "ids", "guide"}.isdisjoint(pool.rows)


def scores(pool, indices):
    """The similarity of each query with the keys `indices` `[B, k]`; -inf for those below 0."""
    found = pairwise.similarity.aligned(pool.similarity, pool.queries[:, None], pool.keys[jnp.maximum(indices, 0)])
    return jnp.where(indices >= 0, found, -jnp.inf)


def positive(pool):
    """The lowest score among the positives of each query, `[B]`; inf where it has none."""
    indices = pool.rows["positives"]
    return jnp.min(jnp.where(indices >= 0, scores(pool, indices), jnp.inf), axis=1)


def nearest(pool, count):
    """The `count` keys of the highest scores that are not forbidden: scores and indices `[B, count]`."""
    where = (lambda row, column: ~forbidden(pool, row, column)) if ruled(pool) else None
    return pairwise.top_k(pool.queries, pool.keys, count, similarity=pool.similarity, rows=pool.rows, columns=pool.columns, where=where)


def count(pool, rows, left_out):
    """How many keys of each query `left_out(scores, row, column)` is True for, int32 `[B]`."""
    return _reduce(pool, rows, lambda scores, row, column, _: Sum(1.0, left_out(scores, row, column))).astype(jnp.int32)


def best(pool, rows, k, value, fits, taken=None):
    """The k keys of the highest values, the highest first, one pass over all pairs each: nothing but a block of pairs is held.

    Args:
      pool: a `Pool`.
      rows: its rows, with what `value` and `fits` need.
      k: how many.
      value: `value(scores, row, column)`, what is compared; ties go to the lowest index.
      fits: `fits(scores, row, column)`, which of the keys that are not forbidden may be chosen.
      taken: int32 `[B, K]`, keys that may not, or None.

    Returns:
      int32 `[B, k]`, -1 where there are no more.
    """
    taken = jnp.full((len(pool.queries), 0), -1, jnp.int32) if taken is None else taken
    room = jnp.concatenate([jnp.full((len(pool.queries), k), -1, jnp.int32), taken], axis=1)

    def one(taken, slot):
        def terms(scores, row, column, _):
            free = ~forbidden(pool, row, column) & ~jnp.any(row["taken"] == column["index"][..., None], axis=-1)
            return Max(value(scores, row, column), free & fits(scores, row, column))

        highest, chosen = _reduce(pool, rows | {"taken": taken}, terms)
        chosen = jnp.where(highest == -jnp.inf, -1, chosen)
        return taken.at[:, slot].set(chosen), chosen

    return lax.scan(one, vary(room, varying_axes(pool[:4], rows, taken)), jnp.arange(k))[1].T


def gumbel(words, column):
    """A standard Gumbel number for each pair of an example and a key: it hangs on the example's words `[..., 2]` and the index of the key alone."""
    bits = mixed(mixed(column.astype(jnp.uint32) ^ words[..., 0]) + words[..., 1])
    share = jnp.minimum((bits.astype(jnp.float32) + 0.5) * 2.0**-32, 1 - 2.0**-24)
    return -jnp.log(-jnp.log1p(-share))


def _reduce(pool, rows, terms):
    return pairwise.reduce(pool.queries, pool.keys, terms, rows=rows, columns=pool.columns, similarity=pool.similarity)


def _positives(positives, batch, total):
    if positives is None:
        return None
    check.arrays(positives=(positives, f"{batch}" if np.ndim(positives) == 1 else f"{batch} P", "int"))
    if not isinstance(positives, jax.core.Tracer) and np.size(positives):
        low, high = np.min(positives), np.max(positives)
        if low < -1 or high >= total:
            raise ValueError(f"positives must be indices of the {total} keys, or -1 for none, got {low if low < -1 else high}")
    return jnp.asarray(positives).astype(jnp.int32).reshape(batch, -1)
