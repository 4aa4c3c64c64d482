"""The auto-encoder: two perceptrons, one the other's mirror image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import encoders

KEY = jax.random.key(0)
MODEL = encoders.Autoencoder((7, 5), 3)
X = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def variables():
    return jax.jit(MODEL.init)(KEY, X)


def test_it_is_an_mlp_and_its_mirror_image(variables):
    widths = {part: [layer["kernel"].shape for _, layer in sorted(layers.items())] for part, layers in variables["params"].items()}
    assert widths == {"encoder": [(6, 7), (7, 5), (5, 3)], "decoder": [(3, 5), (5, 7), (7, 6)]}
    z, back = MODEL.apply(variables, X, reconstruct=True)
    alone = encoders.MLP((7, 5), 3).apply({"params": variables["params"]["encoder"]}, X)
    mirrored = encoders.MLP((5, 7), 6).apply({"params": variables["params"]["decoder"]}, z)
    np.testing.assert_allclose(z, alone, rtol=1e-6)
    np.testing.assert_allclose(back, np.reshape(mirrored, X.shape), rtol=1e-6)
    np.testing.assert_allclose(MODEL.apply(variables, X), z, rtol=1e-6)


def test_embeddings_do_not_hang_on_the_decoder(variables):
    gradients = jax.jit(jax.grad(lambda v: jnp.sum(MODEL.apply(v, X)[:, 0])))(variables)["params"]
    assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(gradients["decoder"]))
    assert any(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(gradients["encoder"]))


def test_bfloat16_is_computed_in_but_not_given_out(variables):
    narrow = MODEL.clone(dtype=jnp.bfloat16)
    assert [part.dtype for part in narrow.apply(variables, X, reconstruct=True)] == [jnp.float32] * 2
    assert {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(narrow.init, KEY, X))} == {jnp.dtype(jnp.float32)}


@pytest.mark.errors
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="features must be at least 1, got 0"):
        encoders.Autoencoder((4,), 0)
    with pytest.raises(TypeError, match="widths must be a sequence of integers"):
        encoders.Autoencoder(4, 2)
    with pytest.raises(ValueError, match=r"inputs must have shape \[B, ...\]"):
        MODEL.init(KEY, X[0, 0])
