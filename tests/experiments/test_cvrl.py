"""The experiment at a tiny size: the worked loss, devices that agree, arms of each kind, fine-tuning, films, folders of videos."""

import dataclasses
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from cljax import data, encoders, train

KEY = jax.random.key(0)
quiet = partial(train.fit, progress=False)
f32 = np.float32


def tiny(config, **changes):
    sizes = dict(videos=(12, 8), channels=(2, 3), hidden=4, features=3, batch=4, steps=min(config.steps, 2), clips=2)
    return dataclasses.replace(config, **sizes | changes)


@pytest.fixture
def loaded(monkeypatch):
    """Digits of random pixels; films of grey frames, each brighter than the one before."""

    def load(name, key=None, split=None):
        if name == "films":
            film = np.repeat(np.arange(4), [35, 50, 16, 20])
            level = np.linspace(0, 1, len(film), dtype=f32)
            return jnp.asarray(np.broadcast_to(level[:, None, None, None], (len(film), 64, 64, 3))), jnp.asarray(film)
        rng = np.random.default_rng(0)
        return [(jnp.asarray(rng.uniform(size=(count, 8, 8)).astype(f32)), jnp.arange(count, dtype=jnp.int32) % 3) for count in split]

    monkeypatch.setattr(data, "load", load)
    monkeypatch.setattr("cljax.data.films.load", load)


def test_views_shift_and_scale_all_frames_alike_or_each_its_own_way(experiment):
    clips = jnp.asarray(np.random.default_rng(0).uniform(size=(6, 3, 16, 16)).astype(f32))
    still = jnp.broadcast_to(clips[:, :1], clips.shape)
    index = jnp.arange(6)
    together, apart = (experiment.seen(experiment.Config(augmentation=how), still, KEY, index) for how in ("clip", "frame"))
    assert np.abs(np.diff(together, axis=1)).max() == 0 and np.abs(np.diff(apart, axis=1)).reshape(6, -1).max(1).min() > 0.1
    for got, clip in zip(np.asarray(together), np.asarray(still), strict=True):
        (gain, offset), *_ = [np.polyfit(np.sort(clip[0].ravel()), np.sort(got[0].ravel()), 1)]
        assert 0.5 <= gain <= 1.5 and abs(offset) <= 0.3
        shifts = [s for s in np.ndindex(16, 16) if np.allclose(gain * np.roll(clip[0], s, (0, 1)) + offset, got[0], atol=1e-4)]
        assert len(shifts) == 1 and all((s + 4) % 16 <= 8 for s in shifts[0])
    np.testing.assert_array_equal(experiment.seen(experiment.Config(augmentation="none"), clips, KEY, index), clips)
    np.testing.assert_array_equal(experiment.seen(experiment.Config(), clips), clips)


A, B = f32([[1, 0], [0.6, 0.8], [0, 1]]), f32([[0.8, 0.6], [0, 2], [-1, 1]])


def losses_of(experiment, config):
    """The objective where the network says z of both clips of each video, and its gradient, as a function of z."""

    def value(z):
        model = SimpleNamespace(apply=lambda variables, clips, **_: (z, {}))
        batch = {"videos": jnp.zeros((len(z) // 2, 24, 2, 2)), "index": jnp.arange(len(z) // 2)}
        one = jax.vmap(lambda z: experiment.contrast(model, config, {"params": {}}, batch, KEY)[:2], axis_name="data")
        return jax.tree.map(lambda x: x[0], one(z[None]))

    return jax.jit(jax.value_and_grad(value, has_aux=True))


def test_worked_loss_and_its_two_reductions(experiment):
    config, z = experiment.Config(augmentation="none"), np.concatenate([A, B])
    (summed, found), gradient = losses_of(experiment, dataclasses.replace(config, temperature=1.0, summed=True))(z)
    np.testing.assert_allclose([summed, found["contrast accuracy"]], [2.750464, 1 / 3], atol=2e-6)
    p = np.exp(A @ (B / np.linalg.norm(B, axis=1, keepdims=True)).T)
    np.testing.assert_allclose(
        found["contrast entropy"], -np.mean((p / p.sum(1, keepdims=True) * np.log(p / p.sum(1, keepdims=True))).sum(1)), atol=1e-5
    )
    (mean, _), half = losses_of(experiment, dataclasses.replace(config, temperature=1.0))(z)
    np.testing.assert_allclose(mean, 1.375232, atol=2e-6)
    np.testing.assert_allclose(gradient, 2 * half, atol=1e-6)
    loss = losses_of(experiment, dataclasses.replace(config, summed=True))
    for other in (z, z * f32([[2], [0.1], [7], [3], [1], [5]]), np.concatenate([B, A])):  # lengths, and which view is which, are nothing
        np.testing.assert_allclose(loss(other)[0][0], 3.305000, atol=3e-6)
    np.testing.assert_allclose(loss(np.ones_like(z))[0][0], 2 * np.log(5), atol=2e-6)


@pytest.mark.parametrize("objective", ["contrast", "classify"])
def test_four_devices_take_the_step_of_one(experiment, loaded, objective):
    config = tiny(experiment.Config(), batch=8)
    (known, labels), _ = experiment.sets(config, KEY, "digits")["digit"]
    model = experiment.network(config)
    before, after = jax.jit(model.init)(KEY, known[:1, :6]), []
    for devices in (1, 4):
        with jax.set_mesh(jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))):
            batches, how = experiment.batches(config, KEY, known, None, label=labels), dict(optimiser=partial(optax.sgd, 1.0), steps=1, fit=quiet)
            after.append(train.minimise(KEY, partial(getattr(experiment, objective), model, config), before, batches, **how))
    (one, history), (four, others) = after
    np.testing.assert_allclose(history["loss"], others["loss"], atol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), one["batch_stats"], four["batch_stats"])
    gradients = [jax.tree.map(jnp.subtract, before["params"], found["params"]) for found in (one, four)]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-2, atol=1e-4), *gradients)
    assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(gradients[0]) if leaf.ndim > 1)


TRAINED = {"contrast accuracy", "contrast accuracy over steps", "contrast entropy", "contrast entropy over steps"}


def test_an_arm_is_probed_for_both_labels_and_fine_tuned_on_shares_of_them(experiment, loaded):
    found = experiment.run(tiny(experiment.ARMS["half, increasing"], tuned=(0.25,), tune_steps=2), KEY)
    assert set(found) == TRAINED | {"direction", "digit", "direction tuned on 0.25", "digit tuned on 0.25"}
    assert all(np.isfinite(value).all() for value in found.values()) and all(0 <= found[name] <= 1 for name in set(found) - TRAINED)
    assert set(experiment.run(tiny(experiment.ARMS["untrained"]), KEY)) == {"direction", "digit"}


def test_the_direction_is_read_from_the_first_frames_and_the_digit_from_all(experiment, loaded, monkeypatch):
    config, read = tiny(experiment.Config(steps=0), clips=3), []
    monkeypatch.setattr(experiment, "represent", lambda config, model, variables, clips: clips.mean(axis=(3, 4)))  # [videos, clips, frames]
    monkeypatch.setattr(experiment.metrics, "linear_probe", lambda z, label, fitted, known: read.append((z, fitted)) or 0.5)
    asked = experiment.sets(config, KEY, "digits")
    assert list(asked) == ["direction", "digit"]
    experiment.evaluate(config, KEY, None, None, None, asked)
    level = np.asarray(asked["digit"][1][0]).mean((2, 3))
    np.testing.assert_allclose(read[0][0], level[:, :6], rtol=1e-6)
    np.testing.assert_allclose(read[1][0], (level[:, :6] + level[:, 9:15] + level[:, 18:]) / 3, rtol=1e-5)
    assert read[0][1].shape == read[1][1].shape == (12, 6)


def test_every_other_film_video_is_held_out(experiment, loaded):
    (known, _), (test, _) = experiment.sets(experiment.Config(), KEY, "films")["found"]
    assert known.shape == test.shape == (3, 16, 32, 32, 3)  # 2 + 3 + 1 whole videos
    start = np.concatenate([known, test])[[0, 3, 1, 4, 2, 5], 0, 0, 0, 0] * 120
    np.testing.assert_allclose(start, [0, 16, 35, 51, 67, 101], atol=1e-3)
    found = experiment.run(tiny(experiment.Config(data="films", steps=0)), KEY)
    assert set(found) == {"found"} and 0 <= found["found"] <= 1


def test_fine_tuning_begins_with_the_encoder_and_learns_its_labels(experiment, monkeypatch):
    """Videos of which each is all of one grey: what grey it is, is learned from three of a class, and the frozen encoder goes in."""
    config, taken = tiny(experiment.Config(), augmentation="none", tune_steps=60, tune_rate=0.03, batch=6), []
    level = np.arange(12) % 2
    known = jnp.broadcast_to(level[:, None, None, None], (12, 8, 4, 4)) + jnp.zeros(()), level
    model = experiment.network(config)
    variables = jax.jit(model.init)(KEY, known[0][:1, :6])
    encoder = {kind: tree["modules_0"] for kind, tree in variables.items()}
    minimise = train.minimise

    def watched(key, objective, variables, batches, *, name, **options):
        taken.append((variables, batches.arrays["label"], name))
        return minimise(key, objective, variables, batches, name=name, **options)

    monkeypatch.setattr(train, "minimise", watched)
    accuracy = experiment.fine_tuned(config, KEY, quiet, model.modules[0], encoder, known, known, 0.5, "digit tuned on 0.5")
    ((begun, labels, name),) = taken
    assert accuracy == 1.0 and sorted(labels.tolist()) == [0, 0, 0, 1, 1, 1] and name == "digit tuned on 0.5"
    jax.tree.map(np.testing.assert_array_equal, begun["params"]["modules_0"], encoder["params"])
    assert begun["params"]["modules_1"]["Dense_0"]["kernel"].shape == (3, 2)


def test_the_direction_is_learned_from_the_first_frames(experiment, loaded):
    config, index = tiny(experiment.Config(stride=2)), jnp.arange(40)
    asked = experiment.sets(config, KEY, "digits")
    (first, direction), (whole, digit) = asked["direction"][0], asked["digit"][0]
    np.testing.assert_array_equal(first, whole[:, :11])
    assert np.all(experiment.one(config, KEY, first.shape[1], index)["clip"] == np.arange(0, 12, 2)) and direction.max() > 2 >= digit.max()
    places = np.asarray(experiment.one(config, KEY, 24, index)["clip"])
    assert np.all(np.diff(places) == 2) and set(places[:, 0]) == set(range(14))


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """Two sets of videos, as pictures of their frames."""
    rng = np.random.default_rng(0)
    for where in ("kinetics-400/train", "kinetics-400/validate", "ucf101/train", "ucf101/validate"):
        for name in ("jump/a", "jump/b", "run/a", "run/b"):
            (tmp_path / where / name).mkdir(parents=True)
            for t in range(7):
                Image.fromarray(rng.integers(0, 256, (10, 14, 3), np.uint8)).save(tmp_path / where / name / f"{t:04}.png")
    monkeypatch.setenv("CLJAX_DATA", str(tmp_path))
    return tmp_path / "kinetics-400"


def test_full_trains_on_a_folder_of_videos_and_is_evaluated_on_another(experiment, folder, monkeypatch):
    whole = encoders.ResNet3D
    monkeypatch.setattr(encoders, "resnet3d50", lambda **options: whole((1,), temporal_kernels=(3,), small_stem=True, **options))
    small = dict(pixels=(8, 10), size=6, frames=3, clip=4, hidden=4, features=3, channels=(2,), layers=2, warm_up=1, tune_steps=1)
    config = tiny(experiment.FULL, **small, targets=("ucf101",))
    found = experiment.run(dataclasses.replace(config, tuned=(0.1,)), KEY)
    assert experiment.FULL.tuned == (0.01, 0.1)
    measured = {"accuracy", "accuracy tuned on 0.1", "ucf101 accuracy", "ucf101 accuracy tuned on 1"}
    assert set(found) == measured | TRAINED and all(0 <= found[name] <= 1 for name in measured)
    (folder / "validate/run").rename(folder / "validate/walk")
    with pytest.raises(ValueError, match="must have the same classes in train and validate"):
        experiment.run(config, KEY)


def test_weights_decay_in_kernels_alone_and_the_rate_rises_and_falls(experiment):
    config = dataclasses.replace(experiment.FULL, weight_decay=0.5, learning_rate=0.1, warm_up=2, steps=4)
    params = {"layer": {"kernel": jnp.ones(2), "bias": jnp.ones(2)}}
    optimiser, sizes = experiment.optimiser(config), []
    state, still = optimiser.init(params), jax.tree.map(jnp.zeros_like, params)
    for _ in range(5):
        update, state = optimiser.update(still, state, params)
        assert not update["layer"]["bias"].any()
        sizes.append(-float(update["layer"]["kernel"][0]))
    trace = np.cumsum(0.9 ** np.arange(5)) * 0.5
    np.testing.assert_allclose(sizes, 0.1 * trace * [0, 0.5, 1, 0.5, 0], atol=1e-6)


def test_claims_full_scale_and_figures_read_what_there_is(experiment):
    curve = np.array([0.1, 0.2])
    results = {arm: {"direction": 0.5, "digit": 0.4} for arm in experiment.ARMS}
    assert [claim.of(results) for claim in experiment.CLAIMS] == [0.0] * 7
    entry = {"values": [0.5, 0.6], "mean": 0.55, "interval": (0.5, 0.6)}
    line = {"values": [list(curve)] * 2, "mean": list(curve), "interval": [(0.0, 0.9)] * 2}
    arms = {arm: {"direction": entry, "digit": entry} | {name: line for name in TRAINED if "steps" in name} for arm in experiment.ARMS}
    assert set(experiment.figures({"arms": arms, "claims": []})) == {"intervals", "arms", "training"}
    assert set(experiment.figures({"arms": {"cvrl": {"found": entry}}, "claims": []})) == {"intervals", "arms"}
    network = experiment.network(experiment.FULL)
    assert network.modules[0].features == 2048 and (network.modules[1].layers, network.features) == (4, 128)
    assert experiment.FULL.summed and experiment.Config().frames == experiment.Config().clip
