"""What feeds a run and what it trains: loaders of other libraries, and encoders in bfloat16 with a learned temperature."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cljax import encoders, losses, train


class Tensor:
    """Stands for a tensor of another library, which turns into an array only by `numpy()`."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def numpy(self):
        return self.values


class ArrayLike(Tensor):
    """... or by the protocol as well."""

    def __array__(self, dtype=None, copy=None):
        return self.values.astype(dtype or self.values.dtype)

    def numpy(self):
        raise AssertionError("the protocol comes first")


class Loader:
    """Stands for a loader: it can be gone through again and again, and is no iterator."""

    def __init__(self, kind):
        self.kind = kind

    def __iter__(self):
        return (({"x": self.kind(np.full((4, 2), float(i)))}, self.kind(np.arange(4))) for i in range(3))


def seen(state, batch, key):
    inputs, labels = batch
    return {"total": state["total"] + jnp.sum(inputs["x"])}, {"labels": jnp.sum(labels)}


@pytest.mark.parametrize("kind", [Tensor, ArrayLike, np.asarray])
def test_a_loader_feeds_its_tensors_epoch_after_epoch(kind):
    batches = itertools.chain.from_iterable(itertools.repeat(Loader(kind)))
    state, history = train.fit(jax.random.key(0), {"total": 0.0}, seen, batches, steps=7, progress=False)
    assert float(state["total"]) == 2 * 8 * (0 + 1 + 2) and history["labels"].tolist() == [6] * 7


@pytest.mark.errors
def test_what_a_loader_must_not_give_is_named():
    def run(data, steps=4):
        return train.fit(jax.random.key(0), {"total": 0.0}, seen, data, steps=steps, progress=False)

    with pytest.raises(TypeError, match=r"iterator of batches, got Loader; make it one with iter\(...\)"):
        run(Loader(Tensor))
    with pytest.raises(ValueError, match=r"data ended after 3 steps: .*itertools.chain.from_iterable\(itertools.repeat\(loader\)\)"):
        run(iter(Loader(Tensor)))
    with pytest.raises(TypeError, match=r"batch\[0\]\['x'\]\[0\] must be an array of numbers, got str"):
        run(iter([({"x": ["a text"]}, np.ones(1))]))
    with pytest.raises(TypeError, match=r"batch\[1\] must be an array of numbers, got dtype object"):
        run(iter([({"x": np.ones((4, 2))}, np.array(["a", None]))]))


MODEL = encoders.MLP((16,), 8, dtype=jnp.bfloat16)
ROWS = np.random.default_rng(0).normal(size=(24, 6)).astype(np.float32)
ADAM = optax.adam(3e-2)


def encode(params, chunk, key):
    keys = jax.vmap(partial(jax.random.fold_in, key))(chunk["index"])
    noise = 0.2 * jax.vmap(lambda key: jax.random.normal(key, (2, 6)))(keys)
    return tuple(MODEL.apply(params["model"], chunk["x"] + noise[:, view]) for view in (0, 1))


def objective(params, embeddings):
    temperature = losses.bounded_temperature(params["log_scale"], cap=8)
    values = losses.info_nce(*embeddings, temperature=temperature, similarity="cosine", axis_name="data")
    return losses.mean(values, axis_name="data"), temperature


def step(chunk, state, batch, key):
    value_and_grad = train.cached_value_and_grad(encode, objective, chunk, has_aux=True, fold=False)
    (value, temperature), grads = value_and_grad(state["params"], batch, key)
    params, opt = train.descend(ADAM, grads, state["params"], state["opt"], axis_name="data")
    return {"params": params, "opt": opt}, {"loss": value, "temperature": temperature}


def fit(steps=40, chunk=5, **options):
    params = {"model": MODEL.init(jax.random.key(1), ROWS[:1]), "log_scale": jnp.log(4.0)}
    state = {"params": params, "opt": ADAM.init(params)}
    return train.fit(jax.random.key(0), state, partial(step, chunk), train.draws({"x": ROWS}, 12), steps=steps, progress=False, **options)


def test_a_bfloat16_encoder_with_a_bounded_temperature_trains_and_resumes(toy, tmp_path):
    state, history = fit()
    assert jax.tree.leaves(state["params"]["model"])[0].dtype == jnp.float32
    assert np.mean(history["loss"][-5:]) < 0.5 * np.mean(history["loss"][:5])
    assert history["temperature"][0] == 0.25 and history["temperature"].min() == 0.125  # it learned, up to the cap
    fit(15, folder=tmp_path)
    assert toy.equal(fit(folder=tmp_path), (state, history))


def test_the_cache_on_four_devices_equals_one():
    one = fit(4)[1]["loss"]
    with jax.set_mesh(jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))):
        four = fit(4, chunk=2)[1]["loss"]  # three rows a device
    np.testing.assert_allclose(one, four, rtol=2e-3)  # bfloat16
