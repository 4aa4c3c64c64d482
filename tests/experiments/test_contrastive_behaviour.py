"""The experiment at a tiny size: every arm traces as a population of seeds, an arm trains on each kind of data, the claims read what it returns."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import data, encoders

METRICS = {"uniformity", "tolerance", "knn", "linear", "positive", "gap"}


@pytest.fixture
def shallow(monkeypatch):
    """A residual network of two blocks in the place of the paper's eight: the same code, compiled in a quarter of the time."""
    monkeypatch.setattr(encoders, "resnet18", partial(encoders.ResNet, (1, 1)))


def tiny(config, **changes):
    sizes = dict(split=(64, 48), widths=(16,), features=8, batch=32, steps=16, warm_up=min(config.warm_up, 4))
    return dataclasses.replace(config, **sizes | changes)


def check_results(results, calls):
    assert set(results) == METRICS | {f"{name} over steps" for name in METRICS}
    assert all(np.all(np.isfinite(value)) for value in results.values())
    for name in METRICS:
        curve = results[f"{name} over steps"]
        assert curve.shape == (calls,) and results[name] == curve[-1]
    assert np.ptp(results["uniformity over steps"]) > 0


def test_every_arm_traces_as_a_population(experiment):
    for kind in ("contrastive 0.3", "hard 0.3", "simple", "hard simple", "bank 0.3", "bank simple", "bank hard simple"):
        config = tiny(experiment.ARMS[kind], hardest=4 if experiment.ARMS[kind].hardest else None)
        shapes = jax.eval_shape(jax.vmap(lambda key, config=config: experiment.run(config, key)), jax.random.split(jax.random.key(0), 3))
        assert set(shapes) == METRICS | {f"{name} over steps" for name in METRICS}
        assert shapes["knn"].shape == (3,) and shapes["knn over steps"].shape == (3, 4)


def test_no_steps_are_refused_and_not_taken_for_those_of_the_data(experiment):
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        experiment.run(dataclasses.replace(experiment.Config(), split=(64, 48), steps=0), jax.random.key(0))


def test_an_arm_trains(experiment):
    check_results(experiment.run(tiny(experiment.ARMS["contrastive 0.3"]), jax.random.key(0)), calls=4)


def test_an_arm_trains_on_larger_digits(experiment, monkeypatch):
    def load(name, *, split, key):
        assert (name, split) == ("mnist_5k", (4000, 1000)) and key is not None  # the file is ordered by class
        labels = np.arange(112) % 10
        images = np.random.default_rng(0).uniform(size=(112, 28, 28, 1)).astype(np.float32) * 0.3 + labels[:, None, None, None] / 15
        return (images[:64], labels[:64]), (images[64:], labels[64:])

    monkeypatch.setattr(data, "load", load)
    config = tiny(experiment.ARMS["hard simple"], data="mnist_5k", split=None, widths=(4, 8), hardest=8, steps=4, warm_up=1)
    check_results(experiment.run(config, jax.random.key(0)), calls=4)


def test_full_trains_on_photographs(experiment, shallow, monkeypatch, tmp_path, imported):
    prepared = imported("tests/data/test_data_full_size.py")
    monkeypatch.setattr(prepared, "ROWS", {"train": 11, "test": 11})
    prepared.Prepared("cifar10", tmp_path).download_and_prepare()
    monkeypatch.setenv("CLJAX_DATA", str(tmp_path))
    config = tiny(experiment.FULL, split=None, widths=(2,), hardest=4, batch=4, epochs=2)
    check_results(experiment.run(config, jax.random.key(0)), calls=4)  # 2 epochs of 2 steps, whatever `steps` says


def test_the_papers_optimiser_decays_weights_and_drops_the_rate_twice(experiment):
    optimiser = experiment.optimiser(dataclasses.replace(experiment.FULL, steps=20))
    weight, state = jnp.ones(1), optimiser.init(jnp.ones(1))
    for t in range(20):
        update, state = optimiser.update(jnp.zeros(1), state, weight)
        momentum = sum(5e-4 * 0.9**i for i in range(t + 1))  # weights that stay 1, of which only the decay is left
        assert np.allclose(update, -0.03 * momentum * (1 if t < 16 else 0.1 if t < 19 else 0.01), rtol=1e-5)


def test_four_devices_take_the_step_of_one(experiment, shallow):
    config = tiny(experiment.FULL, widths=(2,), hardest=3, batch=8, steps=2)
    model = experiment.encoder(config)
    images = jax.random.uniform(jax.random.key(1), (8, 8, 8, 3))
    state, batch = experiment.init(config, model, jax.random.key(0), images), {"images": images, "index": jnp.arange(8)}
    after = []
    for devices in (1, 4):
        mesh = jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        specs = dict(in_specs=(jax.P(), jax.P("data"), jax.P()), out_specs=(jax.P(), jax.P()), check_vma=False)
        after.append(jax.jit(jax.shard_map(partial(experiment.step, model, config), mesh=mesh, **specs))(state, batch, jax.random.key(2)))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), *after)
    assert not np.allclose(after[0][0]["bank"].keys, state["bank"].keys)
    moved = jax.tree.map(lambda new, old: not np.allclose(new, old), after[0][0]["averages"], state["averages"])
    assert all(jax.tree.leaves(moved)) and jax.tree.leaves(moved)


def test_claims_and_full_scale_name_what_exists(experiment):
    results = {arm: dict.fromkeys(METRICS, 0.0) | {"uniformity": float(n)} for n, arm in enumerate(experiment.ARMS)}
    assert all(isinstance(claim.of(results), float) for claim in experiment.CLAIMS)
    assert experiment.FULL.data == "tfds:cifar10" and experiment.FULL.hardest == 4095
    assert experiment.encoder(experiment.FULL).modules[0].features == 512
