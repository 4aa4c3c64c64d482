"""The state of a text's last token, padded on either side."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import encoders


def test_it_is_that_of_the_last_real_token():
    hidden = jax.random.normal(jax.random.key(0), (4, 3, 2))
    mask = jnp.array([[True, True, False], [False, True, True], [True, False, False], [False, False, False]])
    np.testing.assert_array_equal(encoders.last_state(hidden, mask), [hidden[0, 1], hidden[1, 2], hidden[2, 0], [0, 0]])


def test_padding_changes_neither_it_nor_its_gradient():
    hidden, mask = jnp.arange(6.0).reshape(1, 3, 2), jnp.array([[True, True, False]])
    spoiled = hidden.at[0, 2].set(jnp.nan)
    grads = jax.jit(jax.grad(lambda x: encoders.last_state(x, mask).sum()))(spoiled)
    np.testing.assert_array_equal(grads, [[[0, 0], [1, 1], [0, 0]]])
    narrow = encoders.last_state(hidden.astype(jnp.bfloat16), mask)
    assert narrow.dtype == jnp.bfloat16 and narrow.tolist() == [[2, 3]]


@pytest.mark.errors
def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"mask must have shape"):
        encoders.last_state(jnp.ones((1, 3, 2)), jnp.ones((1, 4), bool))
    with pytest.raises(TypeError, match="mask must have dtype bool"):
        encoders.last_state(jnp.ones((1, 3, 2)), jnp.ones((1, 3)))
