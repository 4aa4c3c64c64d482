"""The nearest keys in a collection that need not fit into memory."""

from collections.abc import Iterable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float, Int, Integer

from cljax.core import check
from cljax.core.progress import progress_bar
from cljax.pairwise import topk
from cljax.pairwise.similarity import SIMILARITIES, accumulator

_BLOCK = 2**25  # numbers of a block: 128 MiB in float32


def search(
    queries: Float[ArrayLike, "B D"],
    blocks: Float[ArrayLike, "N D"] | Iterable[Float[ArrayLike, "_ D"]],
    k: int,
    *,
    similarity: Literal["dot", "cosine", "sqeuclidean"] = "dot",
    exclude: Integer[ArrayLike, " B"] | None = None,
    block_size: int | None = None,
    progress: bool = True,
) -> tuple[Float[np.ndarray, "B k"], Int[np.ndarray, "B k"]]:
    """The k keys with the largest similarity to each query, of keys that are read once, block by block: `pairwise.top_k` for any number of them.

    >>> import numpy as np
    >>> from cljax import retrieval
    >>> keys = np.random.default_rng(0).normal(size=(1000, 8)).astype(np.float32)
    >>> scores, indices = retrieval.search(keys[:3], keys, 5, similarity="cosine", progress=False)
    >>> indices[:, 0].tolist()
    [0, 1, 2]
    >>> shards = (keys[start : start + 300] for start in range(0, 1000, 300))  # or (np.load(file, mmap_mode="r") for file in files)
    >>> bool((retrieval.search(keys[:3], shards, 5, similarity="cosine", progress=False)[1] == indices).all())
    True

    Not for compiled code, and without gradient. While one block is searched the next one is read: these two are held, and beside them and the
    results no more than what `top_k` needs.

    Args:
      queries: floats `[B, D]`.
      blocks: floats `[N, D]`, which may be memory-mapped (`np.load(file, mmap_mode="r")`), or an iterable of such arrays with any numbers of rows:
        several files, or what a generator makes. Keys are numbered in the order in which they come.
      k: how many, at least 1 and at most N.
      similarity: as in `pairwise.reduce`.
      exclude: integers `[B]`, the number of a key that each query may not have (itself, where queries are among the keys); negative for none.
      block_size: rows that are searched at a time, at most (but at least k), however `blocks` is cut; or None for about 128 MiB.
      progress: whether to show a progress bar.

    Returns:
      `(scores [B, k], indices [B, k])`, numpy arrays in falling order, float32 (float64 where JAX computes in it) and int64. Of equal scores the
      lowest index comes first, and NaN counts as the largest. Where a query has fewer than k keys, as a generator may make too few, the scores are
      -inf and the indices -1.

    Raises:
      TypeError: an argument of the wrong kind or dtype; a block that is not an array of floats, or of another dtype than the first.
      ValueError: ranks or sizes that disagree, also of one block, which is named (those of a generator as they come); no keys; `k` outside [1, N]; an
        unknown name.
    """
    width = check.arrays(queries=(queries, "B D"), exclude=(exclude, "B?", "int"))["D"]
    check.integer("k", k, at_least=1)
    check.choice("similarity", similarity, SIMILARITIES)
    if block_size is not None:
        check.integer("block_size", block_size, at_least=1)
    parts, total = _parts(blocks, width)
    if total is not None:
        check.integer("k", k, at_least=1, at_most=total)
    if any(isinstance(array, jax.core.Tracer) for array in (queries, exclude, *(parts if total else ()))):
        raise TypeError("queries, blocks and exclude must be concrete arrays, got traced ones: search is not for compiled code (pairwise.top_k is)")
    size = max(k, block_size or _BLOCK // max(1, width))
    if total is not None:
        size = max(k, -(-total // -(-total // size)))  # blocks of nearly one size
    exclude = None if exclude is None else np.asarray(exclude).astype(np.int64)
    with progress_bar(total=total, unit="key", unit_scale=True, desc="search", disable=not progress) as bar:
        return _merged(jnp.asarray(queries), _chunks(parts, size, k), k, similarity, exclude, bar)


def _parts(blocks, width):
    """The arrays, and the number of their rows where it is known; those of a generator are checked as they come."""
    if isinstance(blocks, (jax.Array, np.ndarray)):
        return [blocks], check.arrays(blocks=(blocks, f"N {width}"))["N"]
    if isinstance(blocks, (str, bytes, dict)) or not isinstance(blocks, Iterable):
        raise TypeError(f"blocks must be an array [N, {width}] or an iterable of such, got {type(blocks).__name__}")
    parts = _checked(blocks, width)
    if not isinstance(blocks, (list, tuple)):
        return parts, None
    parts = list(parts)
    return parts, sum(len(part) for part in parts)


def _checked(blocks, width):
    first = None
    for number, part in enumerate(blocks):
        check.arrays(**{f"blocks[{number}]": (part, f"n {width}")})
        first = first or part.dtype
        if part.dtype != first:
            raise TypeError(f"blocks[{number}] must have dtype {first} as blocks[0], got {part.dtype}")
        yield part
    if first is None:
        raise ValueError("blocks must hold at least one array, got an empty iterable")


def _chunks(parts, size, k):
    """The rows of all parts, `size` at a time, as (array, how many of its last rows count); a chunk lasts until the next but one is asked for.

    All have `size` rows, but for one that is alone: one shape, and so one program. They are copied into two arrays in turns: that reads a file while
    the block before is searched, lets a generator fill its own array again, and spares JAX a slower copy into new memory.
    """
    buffers, number, filled = [], 0, 0
    for part in parts:
        part, start = np.asarray(part), 0
        while start < len(part):
            if len(buffers) <= number % 2:
                buffers.append(_aligned((size, part.shape[1]), part.dtype))
            rows = part[start : start + size - filled]
            buffers[number % 2][filled : filled + len(rows)] = rows
            start, filled = start + len(rows), filled + len(rows)
            if filled == size:
                yield buffers[number % 2], size
                number, filled = number + 1, 0
    if filled:
        last = buffers[number % 2][: size if number else max(filled, k)]
        last[len(last) - filled :] = last[:filled]
        last[: len(last) - filled] = 0
        yield last, filled


def _aligned(shape, dtype):
    """An array that starts where JAX can use it without a copy on a CPU."""
    size = int(np.prod(shape)) * dtype.itemsize
    held = np.empty(size + 63, np.uint8)
    start = -held.ctypes.data % 64
    return held[start : start + size].view(dtype).reshape(shape)


def _merged(queries, chunks, k, similarity, exclude, bar):
    scores, indices, first, running = None, np.full((len(queries), k), -1, np.int64), 0, None

    def finish(found, first, count):
        """Waits for a block."""
        nonlocal indices
        found = np.asarray(found).astype(np.int64)
        old = np.take_along_axis(indices, np.maximum(-1 - found, 0), axis=1)
        indices = np.where(found < 0, old, found + first)
        bar.update(count)

    for chunk, count in chunks:
        if scores is None:
            scores = jnp.full((len(queries), k), -jnp.inf, accumulator(queries, chunk))
        padding = len(chunk) - count
        own = None if exclude is None else np.where((exclude >= first) & (exclude < first + count), exclude - first + padding, -1).astype(np.int32)
        scores, found = _step(scores, queries, chunk, own, padding, similarity=similarity)
        if running is not None:
            finish(*running)
        running = found, first - padding, count
        first += count
    if running is None:
        raise ValueError("blocks must hold at least one key, got none")
    finish(*running)
    return np.array(scores), indices


@partial(jax.jit, static_argnames="similarity")
def _step(best, queries, keys, own, padding, *, similarity):
    """The best scores with those of a block; the indices of those of the block, and -1 - place of those that stood in `best` before."""
    places = jnp.broadcast_to(-1 - jnp.arange(best.shape[1], dtype=jnp.int32), best.shape)
    how = {} if own is None else dict(rows=own, columns=jnp.arange(len(keys), dtype=jnp.int32), where=lambda own, place: place != own)
    return topk.join((best, places), queries, keys, new=padding, similarity=similarity, **how)
