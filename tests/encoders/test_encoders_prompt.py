"""A learnt prompt in front of every text: what it is equal to, how it decodes, and that it alone need be trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import decoding, encoders

MODEL = encoders.Decoder(11, 8, layers=2, heads=2, max_length=16)
IDS = np.random.default_rng(0).integers(0, 11, (3, 4))
MASK = np.arange(4) < np.array([4, 2, 3])[:, None]
VARIABLES = jax.jit(MODEL.init)(jax.random.key(0), IDS)
PROMPT = jax.random.normal(jax.random.key(1), (3, 8))
PARAMS = {"prompt": PROMPT, "model": VARIABLES}
PREFIX = jnp.broadcast_to(PROMPT, (3, 3, 8))
APPLY = encoders.prompted(MODEL)


def test_equal_models_have_one_function():
    assert encoders.prompted(MODEL.clone()) is APPLY and encoders.prompted(MODEL.clone(layers=1)) is not APPLY


def test_it_stands_in_front_of_every_text():
    found, expected = APPLY(PARAMS, IDS, MASK), MODEL.apply(VARIABLES, IDS, MASK, prefix=PREFIX)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    bare = MODEL.apply(VARIABLES, IDS, MASK)[1]
    assert not np.allclose(found[1], bare, atol=1e-2)


def test_texts_are_written_and_scored_behind_it():
    how = dict(steps=5, mask=MASK, stop=3)
    found = decoding.generate(jax.random.key(2), APPLY, PARAMS, IDS, **how)
    expected = decoding.generate(jax.random.key(2), MODEL.apply, VARIABLES, IDS, prefix=PREFIX, **how)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_allclose(found.log_probs, expected.log_probs, atol=1e-5)
    scored = decoding.continuation_log_probs(APPLY, PARAMS, IDS, found.tokens, mask=MASK, token_mask=found.mask)
    np.testing.assert_allclose(scored, found.log_probs, atol=1e-5)


def test_it_is_trained_alone():
    def loss(prompt):
        return APPLY({"prompt": prompt, "model": VARIABLES}, IDS, MASK)[1][:, -1].sum()

    grads = jax.jit(jax.grad(loss))(PROMPT)
    assert grads.shape == (3, 8) and np.isfinite(grads).all() and (np.abs(grads).max(axis=1) > 0).all()


@pytest.mark.errors
def test_bad_input_is_named():
    with pytest.raises(TypeError, match="model must be a Decoder, got MLP"):
        encoders.prompted(encoders.MLP((), 3))
    with pytest.raises(ValueError, match=r"prompt must have shape \[P, 8\], got \[3, 7\]"):
        APPLY({"prompt": PROMPT[:, 1:], "model": VARIABLES}, IDS)
