"""The experiment at a tiny size: the worked loss, an arm of each kind, devices that agree, folders of photographs, claims and pictures."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cljax import data, encoders, memory, metrics, samplers, views

SCORES = {"1-shot", "1-shot, 1x", "1-shot, 5x", "5-shot", "5-shot, 1x", "unbalanced", "unbalanced, 1x", "unbalanced, 5x"}
SCORES |= {f"{name} over passes" for name in ("1-shot", "5-shot", "unbalanced")}
PURITY = {"purity", "purity over steps"}
f32 = np.float32


def tiny(config, **changes):
    sizes = dict(batch=4, clusters=2, scale=4, k=min(config.k, 2), epochs=4, memory_start=3, recluster=2, widths=(6,), features=4, episodes=3)
    return dataclasses.replace(config, **sizes | changes)


@pytest.fixture
def digits(monkeypatch):
    """Few rows of each class; the classes are told apart by a bright row."""
    labels = np.concatenate([np.repeat(np.arange(6), 2), np.repeat(np.arange(6, 10), 34)]).astype(np.int32)
    images = np.random.default_rng(0).uniform(size=(len(labels), 8, 8)).astype(f32) * 0.3
    images[np.arange(len(labels)), labels % 8] += 0.7
    monkeypatch.setattr(data, "load", lambda name: (images, labels))


@pytest.fixture
def few_passes(experiment, monkeypatch):
    """Each number of passes is a program of its own, and programs are all the time that a test takes."""
    quick = jax.jit(lambda z, episodes, passes, iterations: jnp.mean(metrics.few_shot_accuracy(z, *episodes)) + 0 * passes)
    monkeypatch.setattr(experiment, "few_shot", quick)


FOUND = {
    "target": f32([[[1, 0], [0, 1]], [[1, 1], [-1, 1]]]),
    "prediction": f32([[[2, 1], [0, 1]], [[1, 0], [0, 3]]]),
    "student": f32([[[1, 0], [0.6, 0.8]], [[0.8, 0.6], [-1, 0]]]),
}


POINTS = jnp.asarray(np.eye(4, 8, dtype=f32)[np.repeat(np.arange(4), 34)])


def loss(experiment, config, found, near=None):
    """As it is inside of a step, where the axis is bound."""
    one = jax.vmap(lambda found, near: experiment.loss_of(config, found, near), axis_name="data")
    return one(*jax.tree.map(lambda x: jnp.asarray(x)[None], (found, near)))[0]


def test_worked_loss(experiment):
    config = experiment.Config(weight=0.1, temperature=2.0)
    np.testing.assert_allclose(loss(experiment, config, FOUND), -0.908055, atol=1e-6)
    np.testing.assert_allclose(loss(experiment, dataclasses.replace(config, weight=0.0), FOUND), -0.913948, atol=1e-6)
    spread = loss(experiment, dataclasses.replace(config, weight=1.0), FOUND) - loss(experiment, dataclasses.replace(config, weight=0.0), FOUND)
    np.testing.assert_allclose(spread, 0.058925, atol=1e-6)
    same = {side: f32([[[1, 0], [2, 0]]] * 2) for side in FOUND}
    np.testing.assert_allclose(loss(experiment, dataclasses.replace(config, weight=1.0), same), -1 + 1 / 2, atol=1e-6)  # aligned, and all alike


def reference(found, pairing, temperature=2.0, weight=0.1):
    """In float64, with all pairs written out; `pairing` lists predictions and targets, `found` the vectors that are spread out, by view."""
    cosine = lambda a, b: float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))  # noqa: E731
    positive = -np.mean([cosine(p, t) for p, t in pairing])
    z, half = np.concatenate(found).astype(float), len(found[0])
    kernel = [np.exp(cosine(z[a], z[b]) / temperature) for a in range(len(z)) for b in range(len(z)) if a != b and abs(a - b) != half]
    return positive + weight * np.log(np.mean(kernel))


def test_neighbours_join_as_pairs_or_as_further_targets(experiment):
    rng = np.random.default_rng(1)
    rows = {side: rng.normal(size=(2, 2, 3, 2)).astype(f32) for side in FOUND}
    joined = {side: [np.concatenate([FOUND[side][v], rows[side][v].reshape(-1, 2)]) for v in (0, 1)] for side in FOUND}
    pairs = [pair for v in (0, 1) for pair in zip(joined["prediction"][v], joined["target"][1 - v], strict=True)]
    further = [
        (FOUND["prediction"][v][i], target) for v in (0, 1) for i in (0, 1) for target in [FOUND["target"][1 - v][i], *rows["target"][1 - v][i]]
    ]
    for pair, pairing in ((True, pairs), (False, further)):
        for negatives, spread in (("SS", ("student", "student")), ("ST", ("student", "target")), ("TT", ("target", "target"))):
            config = experiment.Config(pair=pair, negatives=negatives)
            expected = reference([joined[side][v] for v, side in enumerate(spread)], pairing)
            np.testing.assert_allclose(loss(experiment, config, FOUND, rows), expected, atol=2e-6)


def test_every_kind_of_training_traces_as_a_population(experiment, digits, few_passes):
    for arm, measured in (("no memory", SCORES), ("DyCE predict", SCORES | PURITY), ("whole memory", SCORES | PURITY)):
        shapes = jax.eval_shape(jax.vmap(partial(experiment.run, tiny(experiment.ARMS[arm]))), jax.random.split(jax.random.key(0), 3))
        assert set(shapes) == measured, arm
        assert shapes["1-shot"].shape == (3,) and shapes["1-shot over passes"].shape == (3, 3)


def test_an_arm_trains(experiment, digits, few_passes):
    found = experiment.run(tiny(experiment.ARMS["DyCE pair"], memory_start=0), jax.random.key(0))
    assert set(found) == SCORES | PURITY and all(np.isfinite(value).all() for value in found.values())
    assert 0 <= found["purity"] <= 1 and found["1-shot over passes"].shape == (3,)


def test_stages_of_an_arm_and_tasks_of_images_themselves(experiment, digits, few_passes):
    stages = []

    def fit(key, state, step, batches, **options):
        stages.append((options["name"], options["steps"], [every for every, _ in options["after"]]))
        return state, {}

    for arm, expected in (("no memory", [("alone", 12, [])]), ("DyCE pair", [("alone", 9, [6]), ("with neighbours", 3, [6])])):
        assert set(experiment.run(tiny(experiment.ARMS[arm]), jax.random.key(0), fit)) == SCORES
        assert stages == expected
        stages.clear()
    experiment.run(tiny(experiment.ARMS["whole memory"]), jax.random.key(0), fit)
    assert [after for _, _, after in stages] == [[], []]  # nothing to be grouped anew
    found = experiment.score(tiny(experiment.Config()), jax.random.key(0), POINTS, np.repeat(np.arange(6, 10), 34))
    assert set(found) == SCORES and found["1-shot"] > 0.9


def test_transport_is_measured_on_balanced_and_other_tasks_in_one_program(experiment):
    labels = np.arange(160) % 4
    z = jnp.asarray(2 * np.eye(4, 8)[labels] + np.random.default_rng(0).normal(size=(160, 8)), jnp.float32)
    draw = partial(samplers.few_shot_episodes, jax.random.key(0), labels, ways=4, shots=1, episodes=20)
    balanced, other = (experiment.few_shot(z, draw(queries=queries), passes=1, iterations=200) for queries in (15, experiment.UNBALANCED[4]))
    assert experiment.few_shot._cache_size() == 1 and 0.4 < other < balanced


@pytest.fixture(scope="module")
def shallow():
    whole = encoders.ResNet
    return lambda **options: whole((1,), **options)


def test_four_devices_take_the_step_of_one(experiment):
    config = tiny(experiment.ARMS["DyCE predict"], batch=8, sgd=True)  # Adam would make a step of what rounding leaves of a zero gradient
    network, images = experiment.network_of(config), jax.random.uniform(jax.random.key(1), (24, 8, 8))
    state, labels = experiment.init(config, network, 10, jax.random.key(0), images), jnp.arange(24) % 3
    shape, names = state["memories"].keys.shape, jnp.arange(state["memories"].keys.shape[1], dtype=jnp.int32)
    keys = jax.random.normal(jax.random.key(7), shape)
    clusters = dict(ids=jnp.tile(names % 24, (3, 1)), labels=jnp.tile(names % 2, (3, 1)), centres=keys[:, :2], started=jnp.ones(3, bool))
    filled = state["memories"]._replace(keys=keys, **clusters)
    state, batch, after = state | {"memories": filled}, {"images": images[:8], "index": jnp.arange(8)}, []
    for devices in (1, 4):
        mesh = jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        specs = dict(in_specs=(jax.P(), jax.P("data"), jax.P()), out_specs=(jax.P(), jax.P()), check_vma=False)
        take = partial(experiment.step, config, network, 10, True, labels)
        after.append(jax.jit(jax.shard_map(take, mesh=mesh, **specs))(state, batch, jax.random.key(2)))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(np.float64(x), np.float64(y), rtol=2e-3, atol=2e-4), *after)
    assert after[0][0]["memories"].ids[2, :16].tolist() == np.repeat(np.arange(8), 2).tolist()
    assert int(after[0][0]["teacher"].step) == 1 and 0 <= float(after[0][1]["purity"]) <= 1


@pytest.fixture
def photographs(monkeypatch, tmp_path):
    """Two classes to learn from and five to make tasks of, as files and as CIFAR-FS."""
    rng, found = np.random.default_rng(0), []
    for part, names in (("train", "ab"), ("test", "cdefg")):
        images = rng.integers(0, 256, (3 * len(names), 30, 26, 3), np.uint8)
        for i, image in enumerate(images):
            path = tmp_path / "mini-imagenet" / part / names[i // 3] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
        found.append((images[:, :8, :8] / f32(255), np.arange(len(images), dtype=np.int32) // 3))
    monkeypatch.setenv("CLJAX_DATA", str(tmp_path))
    monkeypatch.setattr(data, "fc100", lambda: found)


@pytest.mark.parametrize(("name", "shape", "dtype"), [("mini-imagenet", (24, 24, 3), np.uint8), ("fc100", (8, 8, 3), f32)])
def test_full_traces_on_photographs(experiment, shallow, photographs, monkeypatch, name, shape, dtype):
    monkeypatch.setattr(encoders, "resnet18", shallow)
    config = tiny(experiment.FULL, data=name, side=24, batch=2, widths=(2,), memory_start=1, epochs=2, k=1, mask=name != "fc100")
    (images, labels), (new, new_labels) = experiment.examples(config)
    assert images.shape == (6, *shape) and images.dtype == dtype and new.shape == (15, *shape)
    assert labels.tolist() == [0, 0, 0, 1, 1, 1] and len(set(new_labels)) == 5
    network = experiment.network_of(config)
    batch = {"images": jnp.asarray(images[:2]), "index": jnp.arange(2)}
    state = experiment.init(config, network, 6, jax.random.key(0), batch["images"])
    seen = jax.eval_shape(partial(experiment.view, config, jax.random.key(0)), views.to_floats(batch["images"]), batch["index"])
    assert seen.shape == (2, 24, 24, 3)
    one = jax.vmap(partial(experiment.step, config, network, 6, True, jnp.asarray(labels)), in_axes=(None, 0, None), axis_name="data")
    after, measured = jax.eval_shape(one, state, jax.tree.map(lambda x: x[None], batch), jax.random.key(1))
    assert set(measured) == {"loss", "purity"} and jax.tree.structure(after) == jax.tree.structure(state)
    z = experiment.embeddings(network, state["variables"], jnp.asarray(new), 24)
    assert z.shape == (15, 2) and np.isfinite(z).all()


def test_claims_full_scale_and_figures_read_what_there_is(experiment):
    curve = [0.7, 0.8, 0.9]
    results = {arm: dict.fromkeys(SCORES | PURITY, 0.5) for arm in experiment.ARMS}
    assert all(isinstance(claim.of(results), float) for claim in experiment.CLAIMS)
    entry, line = {"values": [0.5, 0.6], "mean": 0.55, "interval": (0.5, 0.6)}, {"values": [curve] * 2, "mean": curve, "interval": [(0.2, 0.9)] * 3}
    names = {arm: SCORES | (PURITY if "DyCE" in arm else set()) for arm in experiment.ARMS}
    arms = {arm: {name: line if " over " in name else entry for name in names[arm]} for arm in names}
    assert set(experiment.figures({"arms": arms, "claims": []})) == {"transport", "purity", "episodes"}
    assert set(experiment.figures({"arms": {"pixels": arms["pixels"]}, "claims": []})) == {"transport", "episodes"}
    full = experiment.FULL
    assert memory.cluster_capacity(full.clusters, 2 * full.batch, scale=full.scale) == 8193 and full.k == 5


def test_the_published_rate_is_for_256_rows_and_falls_to_a_millionth(experiment):
    config = dataclasses.replace(experiment.FULL, batch=512)
    optimiser, params = experiment.optimiser(config, 2), {"w": jnp.ones(1)}
    state = optimiser.init(params)
    for rate in (0.6, 0.3, 1e-6):  # twice the rows; a half cosine of two steps
        update, state = optimiser.update({"w": jnp.zeros(1)}, jax.tree.map(lambda x: 0 * x if x.dtype == f32 else x, state), params)
        np.testing.assert_allclose(update["w"], -rate * 1e-4, rtol=2e-3)


@pytest.mark.errors
def test_values_that_are_not_known_are_named(experiment):
    config = dataclasses.replace(experiment.Config(), negatives="TS")
    with pytest.raises(ValueError, match="negatives must be one of 'SS', 'ST', 'TT', got 'TS'"):
        loss(experiment, config, FOUND)
    with pytest.raises(AttributeError, match="no attribute 'resnet34'"):
        experiment.network_of(dataclasses.replace(experiment.FULL, depth=34))
