"""Few-shot tasks: a handful of classes, a handful of examples of each."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Int32, Integer

from cljax.core import check, permuted
from cljax.core.check import KeyLike
from cljax.samplers import _runs


class Episodes(NamedTuple):
    """Few-shot tasks, as `metrics.few_shot_accuracy` takes them.

    Attributes:
      support: int32 `[E, W, S]`, indices of the labelled examples of each way.
      queries: int32 `[E, Q]`, indices of the examples to be classified.
      ways: int32 `[Q]`, the way to which each query belongs, the same in all episodes.
    """

    support: Int32[Array, "E W S"]
    queries: Int32[Array, "E Q"]
    ways: Int32[Array, " Q"]


def few_shot_episodes(
    key: KeyLike, labels: Integer[ArrayLike, " N"], *, ways: int, shots: int, queries: int | Sequence[int] = 15, episodes: int = 600
) -> Episodes:
    """Random tasks of telling W classes apart from S examples of each; no example is in a task twice.

    Episode e is drawn with e folded into the key: more of them keep the first ones. It works under jit with traced labels, of which nothing can be
      said:
    a class with too few examples is left out there, and with fewer classes than ways the entries that can't be filled are -1.

    Args:
      key: a PRNG key.
      labels: integers `[N]`, any values.
      ways: W, the classes of a task.
      shots: S, the labelled examples of a class.
      queries: the examples of a class to be classified, or W numbers, one a way, for tasks that are not balanced.
      episodes: E, the number of tasks.

    Returns:
      `Episodes`.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range; no labels; where they are concrete, a class with fewer examples than a
        task takes of one, or fewer classes than ways.

    Reference:
      Vinyals et al., "Matching Networks for One Shot Learning", NIPS 2016, section 4.1.

    >>> import jax
    >>> labels = jnp.array([4, 4, 4, 8, 8, 8, 9, 9, 9])
    >>> support, queries, ways = few_shot_episodes(jax.random.key(0), labels, ways=2, shots=1, queries=2, episodes=5)
    >>> support.shape, queries.shape, ways.tolist(), bool((labels[support[:, ways, 0]] == labels[queries]).all())
    ((5, 2, 1), (5, 4), [0, 0, 1, 1], True)
    """
    check.key("key", key)
    numbers = _runs.numbers("labels", labels)
    for name, value in (("ways", ways), ("shots", shots), ("episodes", episodes)):
        check.integer(name, value, at_least=1)
    each = queries if isinstance(queries, Sequence) else (queries,) * ways
    for number in each:
        check.integer("queries", number, at_least=1)
    if len(each) != ways:
        raise ValueError(f"queries must be an integer or one for each of the {ways} ways, got {len(each)}")
    _runs.check_members("labels", labels, shots + max(each), ways, "shots + queries")
    return _episodes(key, numbers, ways, shots, tuple(map(int, each)), episodes)


@partial(jax.jit, static_argnames=("ways", "shots", "each", "episodes"))
def _episodes(key, labels, ways, shots, each, episodes):
    total, place = len(labels), jnp.arange(len(labels), dtype=jnp.int32)
    way = jnp.arange(ways, dtype=jnp.int32)
    known, index = lax.sort((labels, place), num_keys=1)
    start, end = _runs.runs(known)
    whole = (place == start) & (end - start >= shots + max(each))
    _, start, members = (jnp.resize(x, max(total, ways)) for x in lax.sort((~whole, start, end - start), num_keys=1))
    classes = jnp.sum(whole)
    query_way = np.repeat(np.arange(ways), each).astype(np.int32)
    query_place = np.concatenate([shots + np.arange(number) for number in each])

    def episode(number):
        k_class, k_member = jax.random.split(jax.random.fold_in(key, number))
        words = jax.random.bits(k_class, (2,), jnp.uint32)
        chosen = permuted(words, jnp.maximum(classes, ways), way)  # beyond the classes that there are where these are too few
        words = _runs.fold(k_member, way)

        def example(way, place):
            found = index[start[chosen[way]] + permuted(words[way], members[chosen[way]], place)]
            return jnp.where(chosen[way] < classes, found, -1)

        return example(way[:, None], jnp.arange(shots)), example(query_way, query_place)

    support, queries = lax.map(episode, jnp.arange(episodes), batch_size=64)
    return Episodes(support, queries, jnp.asarray(query_way))
