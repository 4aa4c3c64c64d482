"""The experiment at a tiny size: every arm traces as a population of seeds, an arm trains, the claims read what it returns."""

import dataclasses
import importlib.util
import pathlib

import jax
import numpy as np
import pytest

PATH = pathlib.Path(__file__).parents[2] / "experiments" / "contrastive_behaviour.py"


@pytest.fixture(scope="module")
def experiment():
    spec = importlib.util.spec_from_file_location("contrastive_behaviour", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tiny(config):
    return dataclasses.replace(config, train_rows=64, test_rows=48, widths=(16,), features=8, batch=32, steps=16, warm_up=min(config.warm_up, 4))


METRICS = {"uniformity", "tolerance", "knn", "linear", "positive", "gap"}


def test_every_arm_traces_as_a_population(experiment):
    for kind in ("contrastive 0.3", "hard 0.3", "simple", "hard simple", "bank 0.3", "bank simple", "bank hard simple"):
        config = dataclasses.replace(tiny(experiment.ARMS[kind]), hardest=4 if experiment.ARMS[kind].hardest else None)
        shapes = jax.eval_shape(jax.vmap(lambda key, config=config: experiment.run(config, key)), jax.random.split(jax.random.key(0), 3))
        assert set(shapes) == METRICS | {f"{name} over steps" for name in METRICS}
        assert shapes["knn"].shape == (3,) and shapes["knn over steps"].shape == (3, 4)


def test_an_arm_trains(experiment):
    results = experiment.run(tiny(experiment.ARMS["contrastive 0.3"]), jax.random.key(0))
    assert all(np.all(np.isfinite(value)) for value in results.values())
    for name in METRICS:
        curve = results[f"{name} over steps"]
        assert curve.shape == (4,) and results[name] == curve[-1] and np.ptp(curve) > 0


def test_claims_and_full_scale_name_what_exists(experiment):
    results = {arm: dict.fromkeys(METRICS, 0.0) | {"uniformity": float(n)} for n, arm in enumerate(experiment.ARMS)}
    assert all(isinstance(claim.of(results), float) for claim in experiment.CLAIMS)
    assert experiment.FULL.data == "tfds:cifar10" and experiment.FULL.hardest == 4095
