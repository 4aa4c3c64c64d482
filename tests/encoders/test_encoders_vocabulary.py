"""Added tokens begin in the midst of the others, and change nothing for texts without them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import encoders


@pytest.fixture(scope="module")
def small():
    model = encoders.TextTransformer(9, 8, layers=1, heads=2, max_length=4)
    return model, jax.jit(model.init)(jax.random.key(0), jnp.ones((1, 4), jnp.int32))


def test_added_tokens_are_the_mean_and_old_texts_keep_their_embeddings(small):
    model, params = small
    table = np.array(params["params"]["tokens"])
    larger, grown = encoders.add_tokens(model, params, 3)
    assert larger.vocab_size == 12 and grown["params"]["tokens"].shape == (12, 8)
    np.testing.assert_allclose(grown["params"]["tokens"][9:], np.broadcast_to(table.mean(axis=0), (3, 8)), atol=1e-6)
    np.testing.assert_array_equal(params["params"]["tokens"], table)  # the former ones are left as they are
    ids = jnp.array([[1, 8, 3, 2], [4, 4, 0, 7]])
    np.testing.assert_array_equal(larger.apply(grown, ids), model.apply(params, ids))
    assert np.all(np.isfinite(larger.apply(grown, ids.at[0, 0].set(11)))) and np.any(np.isnan(model.apply(params, ids.at[0, 0].set(11))))
    same, kept = encoders.add_tokens(model, params, 0)
    assert same == model and np.array_equal(kept["params"]["tokens"], table)


@pytest.mark.errors
def test_bad_input_is_named(small):
    model, params = small
    for arguments, error, message in (
        ((model, params, -1), ValueError, "count must be at least 0, got -1"),
        ((model, params, 1.5), TypeError, "count must be an integer"),
        ((model.clone(vocab_size=8), params, 1), ValueError, r"a table tokens of vocab_size=8 rows, got \[9, 8\]"),
        ((model, {"params": {}}, 1), ValueError, "a table tokens of vocab_size=9 rows, got none"),
    ):
        with pytest.raises(error, match=message):
            encoders.add_tokens(*arguments)
