"""The experiment at a tiny size: every arm traces as a population of seeds, rounds buy labels, devices agree, folders of pictures are read."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cljax import data, encoders, memory, samplers

METRICS = {"source", "round 1", "accuracy", "mean", "misread", "of classes", "accuracy over rounds", "misread over rounds"}
ROWS, ROUNDS = 60, 2


def digits(name, **options):
    """Ten classes that are told apart by a bright row (in the larger images a bright stripe)."""
    side = {"mnist_5k": (28, 28, 1), "digits": (8, 8)}[name]
    labels = np.arange(ROWS, dtype=np.int32) % 10
    images = np.random.default_rng(len(name)).uniform(size=(ROWS, *side)).astype(np.float32) * 0.3
    images[np.arange(ROWS), labels * side[0] // 10] += 0.7
    return images, labels


@pytest.fixture
def loaded(monkeypatch):
    monkeypatch.setattr(data, "load", digits)


def tiny(config, **changes):
    sizes = dict(rounds=ROUNDS, ratio=0.1, epochs=2, batch=8, labelled_batch=4, source_epochs=2, width=8, features=4, confident=5)
    return dataclasses.replace(config, **sizes | changes)


def test_every_arm_traces_as_a_population(experiment, loaded):
    for arm in ("random + CE", "lftl", "lftl, logarithms", "lftl, entropy", "lftl, memory of the code", "lftl, mixup"):
        rounds = 2 if arm == "lftl" else 1
        config = tiny(experiment.ARMS[arm], rounds=rounds)
        shapes = jax.eval_shape(jax.vmap(partial(experiment.run, config)), jax.random.split(jax.random.key(0), 3))
        assert set(shapes) == METRICS, arm
        assert shapes["accuracy"].shape == (3,) and shapes["accuracy over rounds"].shape == (3, rounds + 1)


@pytest.mark.parametrize("arm", ["random + CE", "lftl, mixup"])
def test_an_arm_trains_and_asks_for_each_label_once(experiment, loaded, arm):
    asked = []

    def person(index, images, labels):
        asked.append(np.asarray(index))
        return labels[index]

    found = experiment.run(tiny(experiment.ARMS[arm], source_epochs=10), jax.random.key(0), ask=person)
    assert set(found) == METRICS and all(np.isfinite(value).all() for value in found.values())
    assert found["accuracy over rounds"].shape == (ROUNDS + 1,) and float(found["accuracy"]) == found["accuracy over rounds"][-1]
    assert [len(index) for index in asked] == [6, 6] and len(np.unique(np.concatenate(asked))) == 12
    assert np.ptp(found["accuracy over rounds"]) > 0


def test_the_last_round_makes_the_budget_exact(experiment, loaded):
    asked = []
    look = lambda index, images, labels: (asked.append(len(index)), labels[index])[1]  # noqa: E731
    config = tiny(experiment.ARMS["random + CE"], ratio=0.057, rounds=4)  # 3.42 of 60 a round, 13.68 in all
    jax.eval_shape(partial(experiment.run, config, ask=look), jax.random.key(0))
    assert asked == [3, 3, 3, 5]


def test_the_fast_mode_shows_fewer_examples(experiment, loaded):
    steps = []

    def fit(key, state, step, batches, *, steps, **options):
        counted.append((options["name"], steps))
        return state, {}

    counted = steps
    for subset in (False, True):
        jax.eval_shape(partial(experiment.run, tiny(experiment.Config(subset=subset)), fit=fit), jax.random.key(0))
    # 60 - 6 and 60 - 12 examples an epoch in batches of 8; with a budget of 12: 6 x (4 - 1) = 18, 12 x (2 - 1) = 12
    assert counted == [("source", 12), ("round 1", 12), ("round 2", 12), ("source", 12), ("round 1", 4), ("round 2", 2)]


def arrays():
    images, _ = digits("digits")
    labels = memory.labels(ROWS, 4)
    known = labels.update(labels.init(), jnp.array([3, 41, 7]), jnp.array([3, 1, 7]))
    return {"pool": jnp.asarray(images), "known": known, "first": jnp.int32(0), "key": jax.random.key(5)}


def state_of(experiment, config, **changes):
    """A state in a round with three labels, and the model."""
    model = experiment.classifier_of(config, 10)
    encoder = model.modules[0].init(jax.random.key(1), arrays()["pool"][:1])
    variables = encoders.chained(encoder, model.modules[1].init(jax.random.key(2), jnp.zeros((1, 4))))
    bank = memory.bank(ROWS, 4, 0.0, normalise=False).init(jax.random.key(3))
    opt = experiment.optimiser(config, 1.0).init(variables["params"])
    state = {"model": variables, "opt": opt, "bank": bank, "bought": arrays()["known"].index, "t": jnp.int32(0), "total": jnp.float32(10)}
    return model, state | changes


@pytest.mark.parametrize("mixing", [False, True])
def test_four_devices_take_the_step_of_one(experiment, mixing):
    config = tiny(experiment.Config(mixup_weight=1.0), **experiment.CE if mixing else {})
    draw = partial(samplers.pool_batch, labelled=8, unlabelled=0 if mixing else 8)
    batch = jax.jit(draw)(jax.random.key(0), arrays(), 0)
    model, state = state_of(experiment, config, bank=memory.bank(ROWS, 4, 0.0).init(jax.random.key(3)))
    after = []
    for devices in (1, 4):
        mesh = jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        specs = dict(in_specs=(jax.P(), jax.P("data"), jax.P()), out_specs=(jax.P(), jax.P()), check_vma=False)
        take = partial(experiment.step, model, config, mixing)
        after.append(jax.jit(jax.shard_map(take, mesh=mesh, **specs))(state, batch, jax.random.key(2)))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), *after)
    moved = np.flatnonzero((np.asarray(after[0][0]["bank"].keys) != state["bank"].keys).any(axis=1))
    assert moved.tolist() == ([] if mixing else [3, 7, 41]) and int(after[0][0]["t"]) == (not mixing)


def test_the_memory_moves_between_epochs_and_not_after_the_last(experiment):
    config = tiny(experiment.Config())
    model, state = state_of(experiment, config, t=jnp.int32(9))
    hook = partial(experiment.refresh, model, config, arrays()["pool"])
    once = hook(jax.random.key(0), state)[0]["bank"].keys
    features = experiment.predict(model, state["model"], arrays()["pool"])[0]
    np.testing.assert_allclose(once[jnp.array([3, 7, 41])], 0.9 * features[jnp.array([3, 7, 41])], rtol=1e-5)  # the weight of the new is 0.9
    assert not once[jnp.array([0, 59])].any()
    np.testing.assert_array_equal(hook(jax.random.key(0), state | {"t": jnp.int32(10)})[0]["bank"].keys, 0)


@pytest.fixture
def shallow(monkeypatch):
    whole = encoders.ResNet
    monkeypatch.setattr(encoders, "ResNet", lambda stages, **options: whole((1,), **options))


def test_full_trains_on_folders_of_photographs(experiment, shallow, monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    for domain in experiment.FULL.data:
        for name in ("bus", "car", "train"):
            (tmp_path / domain / name).mkdir(parents=True)
            for i in range(6):
                Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(tmp_path / domain / name / f"{i}.png")
    monkeypatch.setenv("CLJAX_DATA", str(tmp_path))
    config = tiny(experiment.FULL, rounds=1, ratio=0.2, epochs=1, mixup_weight=None, source_epochs=1, pixels=16, width=2)
    assert isinstance(experiment.classifier_of(config, 3).modules[1], encoders.WeightNormHead)
    found = experiment.run(config, jax.random.key(0))
    assert set(found) == METRICS and all(np.isfinite(value).all() for value in found.values())
    (tmp_path / experiment.FULL.data[1] / "car").rename(tmp_path / experiment.FULL.data[1] / "cat")
    with pytest.raises(ValueError, match="must have the same classes"):
        experiment.domains(config)


def test_the_residual_network_learns_at_a_tenth_of_the_rate(experiment):
    params = {"modules_0": {"modules_0": jnp.ones(2), "modules_1": jnp.ones(2)}, "modules_1": jnp.ones(2)}
    optimiser = experiment.optimiser(experiment.FULL, 0.5)
    update, _ = optimiser.update(params, optimiser.init(params), params)
    slow, fast = update["modules_0"]["modules_0"], update["modules_0"]["modules_1"]
    np.testing.assert_allclose(fast, -0.5 * 1.9 * 1.001, rtol=1e-5)  # nesterov's first step: 1.9 gradients, with the decay of the weights
    np.testing.assert_allclose(slow, fast / 10, rtol=1e-5)


def test_claims_full_scale_and_figures_read_what_there_is(experiment):
    curve = np.array([0.3, 0.6, 0.7])
    results = {arm: dict.fromkeys(METRICS, 0.5) | {"accuracy over rounds": curve, "misread over rounds": curve} for arm in experiment.ARMS}
    assert all(isinstance(claim.of(results), float) for claim in experiment.CLAIMS)
    entry = {"values": [0.5, 0.6], "mean": 0.55, "interval": (0.5, 0.6)}
    line = {"values": [list(curve)] * 2, "mean": list(curve), "interval": [(0.2, 0.9)] * 3}
    report = {"arms": {arm: {name: line if name.endswith("rounds") else entry for name in METRICS} for arm in experiment.ARMS}, "claims": []}
    assert set(experiment.figures(report)) == {"budget", "variants", "choice"}
    assert (experiment.FULL.rounds, experiment.FULL.confident, experiment.FULL.anchor_weight) == (10, 500, 10.0)
