"""What the samplers share: labels as numbers, random words, and the runs of a sorted array."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cljax.core import check


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
    return jax.vmap(lambda key: jax.random.bits(key, (2,), jnp.uint32))(keys).reshape(*jnp.shape(numbers), 2)


def runs(known):
    """Where the run of equal values to which each entry of a sorted array belongs begins and where it ends, both int32 `[N]`."""
    place = jnp.arange(len(known), dtype=jnp.int32)
    change = known[1:] != known[:-1]
    one = jnp.ones(1, bool)
    start = lax.cummax(jnp.where(jnp.concatenate([one, change]), place, 0))
    return start, lax.cummin(jnp.where(jnp.concatenate([change, one]), place + 1, len(known)), reverse=True)
