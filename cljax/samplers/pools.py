"""Batches of a pool of which a part has labels, for learning from both parts at once."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, Integer, PyTree

from cljax.core import check
from cljax.core.check import KeyLike
from cljax.samplers.active import shuffled_rows


def pool_batch(
    key: KeyLike,
    arrays: Mapping[str, PyTree],
    step: Integer[ArrayLike, ""],
    *,
    labelled: int,
    unlabelled: int = 0,
    replace: bool = False,
) -> dict[str, Any]:
    """A batch of examples with a label and one of examples without, each in shuffled epochs of its own: the `draw` of `train.draws`.

    The shorter part is shown as often as the other needs it. Sizes are bound by `functools.partial`; how many have a label may be traced.

    Args:
      key: the PRNG key of the step, for draws with replacement.
      arrays: `pool`, a tree of arrays `[N, ...]`; `known`, the state of `memory.labels`: which of them have which labels; `key`, the PRNG key of the
        epochs; and `first`, an integer, the number of the first step, where these steps go on with the epochs of others.
      step: t, an integer; may be traced.
      labelled: rows with a label.
      unlabelled: rows without; 0: none.
      replace: whether those without are drawn with replacement instead of in epochs.

    Returns:
      `{"known": rows, "labels": labels, "place": place}` and, where `unlabelled` is not 0, `{"free": rows}`. Rows are `{"pool": the arrays at these
      rows, "index": their int32 row numbers}`; `place` are their int32 places in the stream of epochs, which tell repetitions of a row apart.

    Raises:
      TypeError, ValueError: an argument of another kind or range, or an array that is missing.

    >>> from cljax import memory
    >>> init, update = memory.labels(5, 2)
    >>> known = update(init(), jnp.array([3, 1]), jnp.array([7, 8]))
    >>> arrays = {"pool": jnp.arange(5.0), "known": known, "key": jax.random.key(0), "first": 0}
    >>> batch = pool_batch(jax.random.key(1), arrays, 0, labelled=2, unlabelled=3)
    >>> sorted(batch["known"]["index"].tolist()), sorted(batch["labels"].tolist()), sorted(batch["free"]["pool"].tolist())
    ([1, 3], [7, 8], [0.0, 2.0, 4.0])
    """
    check.integer("labelled", labelled, at_least=1)
    check.integer("unlabelled", unlabelled, at_least=0)
    for name in ("pool", "known", "key", "first"):
        if name not in arrays:
            raise ValueError(f"arrays must hold pool, known, key and first, got {', '.join(arrays) or 'none'}")
    pool, known, epochs, step = arrays["pool"], arrays["known"], arrays["key"], step + arrays["first"]
    place = step * labelled + jnp.arange(labelled)
    row = shuffled_rows(epochs, known.count, place)
    batch = {"known": _rows(pool, known.index[row]), "labels": known.labels[row], "place": place}
    if unlabelled:
        rest = len(known.order) - known.count
        if replace:
            row = jax.random.randint(key, (unlabelled,), 0, rest)
        else:
            row = shuffled_rows(jax.random.fold_in(epochs, 1), rest, step * unlabelled + jnp.arange(unlabelled))
        batch["free"] = _rows(pool, known.order[row])
    return batch


def _rows(pool, index):
    return {"pool": jax.tree.map(lambda rows: rows[index], pool), "index": index}
