"""What arms share is made once: by the values of arguments, keys among them."""

import jax
import numpy as np
import pytest

from cljax import study


def counted():
    made = []

    @study.shared
    def corpus(size, key):
        """Numbers."""
        made.append(size)
        return jax.random.uniform(key, (size,))

    return corpus, made


def test_equal_arguments_are_made_once_and_others_again():
    corpus, made = counted()
    first = corpus(3, jax.random.key(0))
    assert corpus(3, jax.random.key(0)) is first and corpus(3, jax.random.split(jax.random.key(1))[0]) is not first
    np.testing.assert_array_equal(first, jax.random.uniform(jax.random.key(0), (3,)))
    assert corpus(4, jax.random.key(0)).shape == (4,) and made == [3, 3, 4] and corpus.__doc__ == "Numbers."
    corpus(3, jax.random.PRNGKey(0))  # a key of the older kind is another key
    corpus(3, jax.random.key(0, impl="rbg"))
    assert made == [3, 3, 4, 3, 3] and corpus(3, jax.random.key(0)) is first
    corpus.cache_clear()
    assert corpus(3, jax.random.key(0)) is not first


def test_no_more_than_eight_are_kept():
    corpus, made = counted()
    for size in (*range(9), 8, 0):
        corpus(size, jax.random.key(0))
    assert made == [*range(9), 0]


@pytest.mark.errors
def test_bad_input_is_named():
    corpus, _ = counted()
    with pytest.raises(TypeError, match="function must be a function, got int"):
        study.shared(3)
    with pytest.raises(TypeError, match="no arrays but PRNG keys, got one of dtype float32"):
        corpus(3, jax.numpy.ones(2))
    with pytest.raises(TypeError, match="a key that is known, got one that is traced"):
        jax.vmap(lambda key: corpus(3, key))(jax.random.split(jax.random.key(0)))
