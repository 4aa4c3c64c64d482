"""The experiment at a tiny size: the loss's worked numbers, every arm, the full scale from a folder, and one step on four devices."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import data, encoders, losses, train

LABELS = (12, 24)
quiet = partial(train.fit, progress=False)


def tiny(config, **changes):
    sizes = dict(windows=(24, 24, 12), labels=LABELS, channels=(4, 6), widths=(5, 3), batch=8, steps=2, label_batch=8, label_steps=2)
    return dataclasses.replace(config, **sizes | changes)


@pytest.fixture(scope="module")
def model_and_batch():
    """`made(config)`: a model, its first parameters and a batch of eight."""
    windows = jax.random.normal(jax.random.key(1), (8, 3, 16, 3))

    def made(config):
        model = encoders.ConvNet1D(config.channels, config.widths, dropout=config.dropout)
        return model, jax.jit(model.init)(jax.random.key(0), windows[:1, 0]), {"windows": windows, "index": jnp.arange(8) + 5}

    return made


def test_worked_numbers_of_the_loss():
    anchors, positives = np.eye(2, dtype=np.float32), np.float32([[[0.8, 0.6]], [[0.6, 0.8]]])
    negatives = np.float32([[[0, 1], [-1, 0]], [[1, 0], [0.6, 0.8]]])

    @jax.jit
    def found(weights):
        loss = lambda anchors, w, **more: losses.mean(losses.grouped_info_nce(anchors, positives, negatives, negative_weights=w, **more))  # noqa: E731
        warm, cold, coldest = (loss(anchors, weights, temperature=t) for t in (1.0, 0.5, 0.05))
        scaled = loss(7 * anchors, 3 * weights, temperature=0.5, positive_weights=jnp.array([3.0]))
        return (
            warm,
            cold,
            coldest,
            loss(anchors, None, temperature=0.5),
            loss(-anchors, weights, temperature=0.5),
            scaled,
            loss(anchors, 1e-12 * weights, temperature=1.0),
        )

    expected = [0.779333, 0.496356, 0.202733, 0.497850, 2.904246, 0.496356, 0]
    np.testing.assert_allclose(found(np.float32([2, 0.5])), expected, atol=1.1e-6)


def test_negatives_of_all_other_moments_of_the_positive_device_make_one_direction_of_info_nce():
    a, b = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    others = np.stack([np.delete(b, i, axis=0) for i in range(4)])
    grouped = losses.grouped_info_nce(a, b[:, None], others, temperature=0.3)
    np.testing.assert_allclose(grouped, losses.info_nce(a, b, temperature=0.3, similarity="cosine"), rtol=1e-5)


@pytest.mark.parametrize("moments", [{}, dict(synchronous=True), dict(asynchronous=True)])
def test_positives_and_negatives_are_of_the_moments_that_are_asked_for(experiment, moments, monkeypatch):
    monkeypatch.setattr(losses, "grouped_info_nce", lambda anchors, positives, negatives, **_: (positives, negatives))
    z = jnp.broadcast_to(jnp.arange(8)[:, None, None], (8, 3, 1)).astype(jnp.float32)  # an embedding is the number of its moment
    met = partial(experiment.collaborative, experiment.Config(draws=2, **moments), distances=jnp.array([1.0, 2.0]), key=jax.random.key(0))
    positives, negatives = (np.asarray(part)[0, ..., 0] for part in jax.vmap(met, axis_name="data")(z[None]))
    assert positives.shape == (8, 2) and negatives.shape == (8, 6)
    same = np.arange(8)[:, None]
    assert np.all(positives != same if "asynchronous" in moments else positives == same) and np.all(positives[:, 0] == positives[:, 1])
    assert np.all(negatives == same if "synchronous" in moments else negatives != same)
    assert all(sorted(column) == list(range(8)) for column in np.concatenate([positives, negatives], axis=1).T)


def test_every_arm_and_option_takes_a_step(experiment, model_and_batch):
    changes = [config for config in experiment.ARMS.values() if config.method in ("collossl", "simclr")]
    changes += [experiment.Config(negatives="next", distance="axes", draws=2), experiment.Config(negatives="positive", dropout=0.5, decay=10)]
    changes += [experiment.Config(asynchronous=True)]
    programs = {dataclasses.replace(tiny(config), steps=2, sign=1.0, data="movements") for config in changes}
    assert len(programs) == 10
    for config in programs:
        model, params, batch = model_and_batch(config)
        mapped = jax.vmap(partial(experiment.objective, model, config, jnp.array([0.5, 0.2])), (None, 0, None), axis_name="data")
        loss, seen = jax.eval_shape(mapped, params, jax.tree.map(lambda x: x[None], batch), jax.random.key(0))
        assert loss.shape == (1,) and set(seen) == (set() if config.method == "simclr" else {"closest"})
        experiment.optimiser(config).init(params)


def test_an_anchor_must_be_a_device_that_there_is(experiment):
    for anchor in (5, -1):
        with pytest.raises(ValueError, match=f"anchor must be at least 0 and at most 4, got {anchor}"):
            experiment.run(tiny(experiment.ARMS["collossl"], anchor=anchor), jax.random.key(0))


def test_an_arm_trains_and_scores(experiment):
    results = experiment.run(tiny(experiment.ARMS["a priori"]), jax.random.key(0))
    names = {"f1 12", "f1 24", "f1 over labels", "matrix", "batches with that positive", *(f"distance {i}" for i in (1, 2, 3, 4))}
    assert set(results) == names and results["matrix"].shape == (25,)
    assert all(0 <= results[f"f1 {n}"] <= 1 for n in LABELS) and 0 <= results["batches with that positive"] <= 1
    matrix = np.reshape(results["matrix"], (5, 5))
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-4)
    assert np.all(np.diag(matrix) == np.float32(1e-4))


def test_the_recording_gives_distances_of_three_positions(experiment, monkeypatch):
    signal = np.random.default_rng(0).normal(size=(4500, 3, 3)).astype(np.float32) * np.array([1, 1.1, 2], np.float32)[:, None]
    monkeypatch.setattr(data, "load", lambda name: (jnp.array(signal), np.zeros(4500)))
    results = experiment.run(experiment.ARMS["recording"], jax.random.key(0))
    assert results["distance of ankle and leg"] < results["distance of leg and trunk"] < results["distance of ankle and trunk"]
    assert results["matrix"].shape == (9,)


def test_full_trains_on_recordings_of_a_folder(experiment, monkeypatch, tmp_path):
    rng, folder = np.random.default_rng(0), tmp_path / "realworld_har"
    folder.mkdir()
    for person in range(3):
        labels = np.repeat([0, 1], 150 * 6)
        signals = rng.normal(size=(len(labels), 3, 6)).astype(np.float32) * (1 + labels)[:, None, None]
        np.savez(folder / f"{person}.npz", signals=signals, labels=labels)
    monkeypatch.setenv("CLJAX_DATA", str(tmp_path))
    config = tiny(experiment.FULL, anchor=1, labels=(1.0,), batch=4, head=(8,), label_steps=4)
    unlabelled, labelled, test = experiment.split(config, jax.random.key(3))
    assert len(set(np.asarray(test["people"]))) == 1 and not set(np.asarray(test["people"])) & set(np.asarray(labelled["people"]))
    stored = np.load(folder / f"{unlabelled['people'][0]}.npz")["signals"]
    np.testing.assert_allclose(unlabelled["windows"][0], np.moveaxis(stored[:150], 1, 0)[[1, 2, 0]] / 30, rtol=1e-6)
    results = experiment.run(config, jax.random.key(0))
    assert 0 <= results["f1 1"] <= 1 and results["matrix"].shape == (9,)


def test_convolutions_that_are_held_stay_as_they_are(experiment, model_and_batch):
    config = tiny(experiment.FULL, dropout=0.0, fine_tune=1, head=())
    model, params, batch = model_and_batch(config)
    known = {"windows": jnp.tile(batch["windows"][:, 0], (2, 1, 1)), "labels": jnp.arange(16) % 2, "classes": 2}
    calls = []

    def fit(key, first, step, draws, *, steps, after, name):
        (every, hook), held_out = after[0], after[0][1].args[0].args[1]
        calls.append((every, len(draws.arrays["labels"]), len(held_out["labels"])))
        part = draws.arrays | {"index": jnp.arange(13)}
        moved, _ = jax.vmap(step, (None, 0, None), axis_name="data")(first, jax.tree.map(lambda x: x[None], part), key)
        return hook(key, jax.tree.map(lambda leaf: leaf[0], moved))

    _, found = experiment.trained_classifier(config, jax.random.key(0), model, params, known, fit, "labels")
    before, after = params["params"], found["params"]["modules_0"]
    np.testing.assert_array_equal(after["Conv_0"]["kernel"], before["Conv_0"]["kernel"])
    assert np.abs(after["Conv_1"]["kernel"] - before["Conv_1"]["kernel"]).max() > 1e-5 and calls == [(1, 13, 3)]


@pytest.mark.parametrize("options", [dict(dropout=0.5), dict(positive="random", dynamic=False, draws=2)])
def test_four_devices_take_the_step_of_one(experiment, model_and_batch, options):
    config = tiny(experiment.Config(**options))
    model, params, batch = model_and_batch(config)
    after = []
    for devices in (1, 4):
        with jax.set_mesh(jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))):
            how = dict(optimiser=partial(experiment.optimiser, config), steps=1, fit=quiet)
            objective = partial(experiment.objective, model, config, jnp.array([0.5, 0.2]))
            after.append(train.minimise(jax.random.key(2), objective, params, train.draws(batch, whole), **how))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=2e-5), *after)
    moved = jax.tree.map(lambda new, old: not np.allclose(new, old), after[0][0], params)
    assert all(jax.tree.leaves(moved))


def whole(key, arrays, t):
    return arrays


def test_claims_and_figures_read_what_run_returns(experiment):
    one = {f"f1 {n}": 0.5 for n in experiment.Config().labels} | {f"distance {i}": float(i) for i in (1, 2, 3, 4)}
    results = {arm: dict(one) for arm in experiment.ARMS}
    assert [claim.of(results) for claim in experiment.CLAIMS] == [0, 0, 0, 0, 1, 0, 0, 0, 0]
    entry = lambda values: {"mean": list(values), "interval": None, "values": [list(values)]}  # noqa: E731
    arms = {arm: {"f1 over labels": entry([0.1, 0.2, 0.3, 0.4]), "matrix": entry(np.arange(25.0))} for arm in ("collossl", "simclr")}
    report = {"arms": arms | {"recording": {"matrix": entry(np.arange(9.0))}}}
    drawn = experiment.figures(report)
    assert set(drawn) == {"labels", "distances"} and len(drawn["distances"].axes[1].texts) == 9
    assert len(experiment.figures({"arms": arms})["distances"].axes) == 1
