"""What the arms of a seed have in common, made once."""

import functools
from collections.abc import Callable

import jax
import numpy as np


def shared(function: Callable) -> Callable:
    """Keeps what a function gave, as `functools.lru_cache` does, and knows PRNG keys by their values: the corpus that all arms of a seed learn from.

    Of all arguments the last eight are kept. What it gives is handed out again, not copied: nobody may change it.

    Args:
      function: of positional arguments that can be hashed, and PRNG keys among them.

    Returns:
      The same function; its `cache_clear()` forgets.

    Raises:
      TypeError: `function` is none; when it is called, an argument that can't be hashed, or a key that is traced.

    >>> @shared
    ... def corpus(size, key):
    ...     print("made")
    ...     return jax.random.uniform(key, (size,))
    >>> corpus(3, jax.random.key(0)) is corpus(3, jax.random.key(0))
    made
    True
    """
    if not callable(function):
        raise TypeError(f"function must be a function, got {type(function).__name__}")

    @functools.lru_cache(maxsize=8)
    def kept(*arguments):
        return function(*(argument.key() if isinstance(argument, _Key) else argument for argument in arguments))

    @functools.wraps(function)
    def given(*arguments):
        return kept(*(_Key(argument) if isinstance(argument, jax.Array) else argument for argument in arguments))

    given.cache_clear = kept.cache_clear
    return given


class _Key:
    """A PRNG key, of either kind, that can be hashed."""

    def __init__(self, key):
        if isinstance(key, jax.core.Tracer):
            raise TypeError("a shared function must be called with a key that is known, got one that is traced")
        self._typed = jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)
        if not self._typed and key.dtype != np.uint32:
            raise TypeError(f"a shared function takes no arrays but PRNG keys, got one of dtype {key.dtype}")
        data = np.asarray(jax.random.key_data(key) if self._typed else key)
        self._value = (str(jax.random.key_impl(key)) if self._typed else None, data.shape, data.tobytes())
        self._key = key

    def key(self):
        return self._key

    def __eq__(self, other):
        return isinstance(other, _Key) and self._value == other._value

    def __hash__(self):
        return hash(self._value)
