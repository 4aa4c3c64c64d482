"""What the samplers share: labels as numbers, the runs of a sorted array, and a keyed permutation whose size may be traced."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cljax.core import check, mixed, vary, varying_axes

_ROUNDS = 32


def numbers(name, values):
    """Integers `[N]`, N at least 1, as an array in which only equal ones are equal: those that don't fit without x64 are numbered in their order."""
    total = check.arrays(**{name: (values, "N", "int")})["N"]
    if total == 0:
        raise ValueError(f"{name} must not be empty, got shape [0]")
    if isinstance(values, np.ndarray) and values.dtype.itemsize > 4 and max(values.max(), -1 - values.min()) >= 2**31:
        return jnp.asarray(np.unique(values, return_inverse=True)[1].astype(np.int32))
    return jnp.asarray(values)


def counted(values):
    """The different labels and how often each stands there, as numpy arrays; None where the labels are traced."""
    return None if isinstance(values, jax.core.Tracer) else np.unique(np.asarray(values), return_counts=True)


def check_members(name, values, members, classes, what):
    """Raises ValueError where the labels are concrete and a class has fewer members than asked for, or where there are too few classes."""
    found = counted(values)
    if found is None:
        return
    few = [f"class {label} has {count}" for label, count in zip(*found, strict=True) if count < members]
    if few:
        named = ", ".join(few[:5]) + f" and {len(few) - 5} more have too few" * (len(few) > 5)
        raise ValueError(f"{name} must hold at least {what} = {members} members of each class, but {named}")
    if len(found[0]) < classes:
        raise ValueError(f"{name} must hold at least {classes} classes, got {len(found[0])}")


def fold(key, numbers):
    """Two random uint32 words for each of `numbers` `[...]`, `[..., 2]`: those of the key with the number folded in."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.ravel(numbers).astype(jnp.uint32))
    return jax.vmap(lambda key: jax.random.bits(key, (2,)))(keys).reshape(*jnp.shape(numbers), 2)


def runs(known):
    """Where the run of equal values to which each entry of a sorted array belongs begins and where it ends, both int32 `[N]`."""
    place = jnp.arange(len(known), dtype=jnp.int32)
    change = known[1:] != known[:-1]
    one = jnp.ones(1, bool)
    start = lax.cummax(jnp.where(jnp.concatenate([one, change]), place, 0))
    return start, lax.cummin(jnp.where(jnp.concatenate([change, one]), place + 1, len(known)), reverse=True)


def shuffled(words, size, position):
    """Entries of a pseudo-random permutation of `range(size)`; unlike `core.permutation` its size may be traced, one for each entry.

    The swap-or-not shuffle (Hoang, Morris & Rogaway, "An Enciphering Scheme Based on a Card Shuffle", CRYPTO 2012): in each round an entry and its
    mirror image about a random centre change places or not.

    Args:
      words: uint32 `[..., 2]`, which permutation it is.
      size: integers above 0 that broadcast to `position`.
      position: integers `[...]` from 0 to size - 1.

    Returns:
      int32 of the shape that all broadcast to.
    """
    size = jnp.asarray(size).astype(jnp.uint32)
    shape = jnp.broadcast_shapes(words.shape[:-1], size.shape, jnp.shape(position))

    def swap(number, place):
        number = number.astype(jnp.uint32)
        mirror = (mixed(words[..., 0] + 2 * number) % size + size - place) % size
        swaps = mixed(jnp.maximum(place, mirror) ^ mixed(words[..., 1] + 2 * number + 1)) & 1
        return jnp.where(swaps == 1, mirror, place)

    start = vary(jnp.broadcast_to(jnp.asarray(position).astype(jnp.uint32), shape), varying_axes(words, size, position))
    return lax.fori_loop(0, _ROUNDS, swap, start).astype(jnp.int32)
