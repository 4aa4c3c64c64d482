"""An encoder from anywhere trains: all that losses and `train.fit` want is a function of parameters and inputs."""

from functools import partial

import jax
import numpy as np
import optax
from flax import nnx

from cljax import losses, train

IMAGES = np.random.default_rng(0).uniform(size=(32, 4, 4)).astype(np.float32)
OPTIMISER = optax.adam(1e-2)


class Net(nnx.Module):
    def __init__(self, rngs):
        self.hidden, self.out = nnx.Linear(16, 24, rngs=rngs), nnx.Linear(24, 8, rngs=rngs)

    def __call__(self, images):
        return self.out(nnx.relu(self.hidden(images.reshape(len(images), -1))))


GRAPH, NNX_PARAMS = nnx.split(Net(nnx.Rngs(0)))


def embed_nnx(params, images):
    return nnx.merge(GRAPH, params)(images)


def embed_arrays(params, images):
    return jax.nn.relu(images.reshape(len(images), -1) @ params["hidden"]) @ params["out"]


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) / 4 for name, shape in {"hidden": (16, 24), "out": (24, 8)}.items()}


def objective(params, embed, batch, key):
    a, b = (embed(params, batch["images"] + 0.1 * jax.random.normal(k, batch["images"].shape)) for k in jax.random.split(key))
    return losses.mean(losses.nt_xent(a, b, temperature=0.5, axis_name="data"), axis_name="data")


def step(embed, state, batch, key):
    value, grads = jax.value_and_grad(objective)(state["params"], embed, batch, key)
    params, opt = train.descend(OPTIMISER, grads, state["params"], state["opt"], axis_name="data")
    return {"params": params, "opt": opt}, {"loss": value}


def fit(embed, params, folder=None):
    state, data = {"params": params, "opt": OPTIMISER.init(params)}, train.draws({"images": IMAGES}, 16)
    after, history = train.fit(jax.random.key(0), state, partial(step, embed), data, steps=30, progress=False, folder=folder)
    assert history["loss"][-5:].mean() < history["loss"][:5].mean() - 0.02
    assert jax.tree.structure(after["params"]) == jax.tree.structure(params)
    return after["params"]


def test_a_dict_of_arrays_trains():
    assert embed_arrays(fit(embed_arrays, arrays()), IMAGES[:3]).shape == (3, 8)


def test_the_state_of_an_nnx_module_trains_is_saved_and_read(tmp_path):
    trained = fit(embed_nnx, NNX_PARAMS, tmp_path)
    assert embed_nnx(trained, IMAGES[:3]).shape == nnx.merge(GRAPH, trained)(IMAGES[:3]).shape == (3, 8)
    jax.tree.map(np.testing.assert_array_equal, fit(embed_nnx, NNX_PARAMS, tmp_path), trained)  # a finished run is read


def test_nnx_and_arrays_with_the_same_values_give_the_same_embeddings():
    params = arrays(1)
    leaves = [np.zeros(24, np.float32), params["hidden"], np.zeros(8, np.float32), params["out"]]  # a bias before its kernel
    np.testing.assert_allclose(embed_nnx(jax.tree.unflatten(jax.tree.structure(NNX_PARAMS), leaves), IMAGES), embed_arrays(params, IMAGES), atol=1e-5)
