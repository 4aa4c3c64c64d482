"""Which examples make a batch: epochs without replacement, evaluated where they are asked for."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Int32, Integer

from cljax.core import check, permutation, shuffled
from cljax.core.check import KeyLike


def steps_per_epoch(size: int, batch: int) -> int:
    r"""How many whole batches there are in an epoch, $\lfloor N / B \rfloor$, and one of fewer examples than a batch.

    Args:
      size: N, the number of examples.
      batch: B.

    Raises:
      TypeError, ValueError: one of them is not an integer above 0.

    >>> steps_per_epoch(1000, 64), steps_per_epoch(50, 64)
    (15, 1)
    """
    check.integer("size", size, at_least=1)
    check.integer("batch", batch, at_least=1)
    return max(1, int(size) // int(batch))


def shuffled_batch(key: KeyLike, size: int, batch: int, step: Integer[ArrayLike, ""]) -> Int32[Array, " batch"]:
    r"""The batch of one step of training, from an endless stream of shuffled epochs.

    The stream is $\pi_0, \pi_1, \pi_2, \ldots$, where $\pi_e$ = `core.permutation(fold_in(key, e), size, range(size))`; step t takes the positions
    $tB, \ldots, tB + B - 1$. It costs O(B) whatever `size` and `step` are: nothing is sorted or stored, a run resumes at any step, and each device
    may take its part. Each example comes once an epoch. Where B does not divide `size` a batch may begin in one epoch and end in the next: it then
    can hold an example twice, which a loss takes for its own negative unless it is given `ids`.

    Args:
      key: a PRNG key, the same at every step.
      size: the number of examples.
      batch: B, at most `size`.
      step: t, from 0 on; may be traced.

    Returns:
      int32 `[B]`, indices of examples.

    Raises:
      TypeError, ValueError: `key` is no PRNG key; `size` or `batch` is not an integer above 0, `batch` is larger than `size`; `step` is not an
        integer, or is below 0 where it is concrete.

    >>> import jax
    >>> sorted(int(i) for step in range(3) for i in shuffled_batch(jax.random.key(0), 6, 2, step))
    [0, 1, 2, 3, 4, 5]
    """
    _check(key, size, batch, step=step)
    return _shuffled_batch(key, size, batch, jnp.asarray(step).astype(jnp.uint32))


def shuffled_batches(key: KeyLike, size: int, batch: int, epoch: Integer[ArrayLike, ""]) -> Int32[Array, "batches batch"]:
    """All full batches of one epoch: no example comes twice, and the `size % batch` last ones of the epoch's order are left out.

    Row i is `core.permutation(fold_in(key, epoch), size, ...)` at the positions `i * batch, ..., i * batch + batch - 1`; where `batch` divides `size`
    it is `shuffled_batch` of step `epoch * (size // batch) + i`.

    Args:
      key: a PRNG key, the same in every epoch.
      size: the number of examples.
      batch: B, at most `size`.
      epoch: from 0 on; may be traced.

    Returns:
      int32 `[size // B, B]`, indices of examples.

    Raises:
      TypeError, ValueError: as `shuffled_batch`, of `epoch` instead of `step`.

    >>> import jax
    >>> shuffled_batches(jax.random.key(0), 7, 3, epoch=4).shape
    (2, 3)
    """
    _check(key, size, batch, epoch=epoch)
    return _shuffled_batches(key, size, batch, jnp.asarray(epoch).astype(jnp.uint32))


@partial(jax.jit, static_argnames=("size", "batch"))
def _shuffled_batches(key, size, batch, epoch):
    positions = jnp.arange(size // batch * batch, dtype=jnp.int32).reshape(-1, batch)
    return permutation(jax.random.fold_in(key, epoch), size, positions)


@partial(jax.jit, static_argnames=("size", "batch"))  # called step by step it is one compiled call
def _shuffled_batch(key, size, batch, step):
    return shuffled(key, size, batch, step)


def _check(key, size, batch, **number):
    check.key("key", key)
    check.integer("size", size, at_least=1, at_most=2**31 - 1)
    check.integer("batch", batch, at_least=1, at_most=size)
    for name, value in number.items():
        check.arrays(**{name: (value, "", "int")})
        check.number(name, value, at_least=0)
