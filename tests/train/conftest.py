"""A small problem for the tests of training: a linear map learned from noisy batches, with a step that uses all that `fit` offers."""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from cljax import train

TRACES = []  # grows by one whenever the step is traced
X = np.random.default_rng(0).normal(size=(24, 4)).astype(np.float32)


@pytest.fixture
def toy():
    return sys.modules[__name__]


@train.config
class Config:
    rate: float = 0.1
    width: int = 4


def init(seed=0, width=4):
    params = {"w": jax.random.normal(jax.random.key(seed), (4, width))}
    return {"params": params, "opt": optax.sgd(0.1, 0.9).init(params), "count": 0, "key": jax.random.key(5), "empty": jnp.zeros((0, 2))}


def draw(rows, key, arrays, t):
    index = (t * rows + jnp.arange(rows)) % len(arrays["x"])
    return {"x": arrays["x"][index], "y": arrays["y"][index] + jax.random.uniform(key), "index": index}


def loss(params, batch):
    return lax.pmean(jnp.mean((batch["x"] @ params["w"] - batch["y"]) ** 2), "data")


def step(config, state, batch, key):
    TRACES.append(config.width)
    value, grads = jax.value_and_grad(loss)(state["params"], batch)
    state["params"], state["opt"] = train.descend(optax.sgd(config.rate, 0.9), grads, state["params"], state["opt"], axis_name="data")
    state["count"] += 1
    state["key"] = key
    shift = lax.pmean(jnp.mean(batch["y"] - batch["x"][:, ::-1]), "data")
    return state, {"loss": value, "noise": jax.random.uniform(key), "shift": shift}


def hook(scale, key, state):
    state["count"] = state["count"] + 100
    return state, {"size": scale * jnp.sum(state["params"]["w"] ** 2), "draw": jax.random.uniform(key)}


def data():
    return train.draws({"x": X, "y": X[:, ::-1]}, partial(draw, 8))


def fit(steps=10, *, seed=0, rate=0.1, width=4, every=4, progress=False, **options):
    bound = partial(step, Config(rate, width))
    return train.fit(
        jax.random.key(seed),
        init(),
        bound,
        options.pop("data", data()),
        steps=steps,
        after=((every, partial(hook, 0.5)),),
        progress=progress,
        **options,
    )


def equal(a, b):
    """Whether two results agree bit for bit, in their structure too."""
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False
    return all(np.array_equal(plain(x), plain(y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def plain(x):
    return np.asarray(jax.random.key_data(x) if jnp.issubdtype(jnp.result_type(x), jax.dtypes.prng_key) else x)


def difference(a, b):
    """The largest difference of two trees of numbers."""
    return max(
        float(np.max(np.abs(np.subtract(plain(x), plain(y)).astype(np.float64)), initial=0))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )
