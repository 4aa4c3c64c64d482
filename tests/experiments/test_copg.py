"""The experiment at a tiny size: every arm traces as a population, policies train on each task, devices agree, comparisons are read from a folder."""

import dataclasses
import json
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import data, encoders

METRICS = {"digits": {"regret", "value", "reward", "KL", "accuracy"}, "text": {"value", "reward", "KL"}}
WORDS = ["returns", "the", "number", "of", "items", "in", "a", "sequence", "raises", "an", "error", "where", "nothing", "is", "left", "over"]
SIZES = dict(prompts=40, held_out=4, width=8, vocabulary=12, lengths=(2, 3), source_steps=3, batch=8, steps=4, logged=4)


def docstrings(*, vocabulary, key):
    words = np.random.default_rng(0).choice(WORDS, 300)
    tokenizer = data.train_tokenizer([" ".join(words)], vocabulary, kind="words")
    ids = np.array(tokenizer.encode(" ".join(words), add_special_tokens=False).ids, np.int32)
    return SimpleNamespace(known=ids[:200], held_out=ids[200:], tokenizer=tokenizer)


@pytest.fixture
def loaded(monkeypatch, few_digits):
    monkeypatch.setattr(data, "docstrings", docstrings)


def tiny(config, **changes):
    return dataclasses.replace(config, **SIZES | changes | ({"logged": 2} if config.task in ("bandit", "tldr") else {}))


def metrics_of(config):
    names = METRICS["digits" if config.task in ("bandit", "digits") else "text"]
    return names | {f"{name} over steps" for name in names}


def check(found, config, calls):
    assert set(found) == metrics_of(config) and all(np.isfinite(value).all() for value in found.values())
    assert found["KL over steps"].shape == (calls,) and found["KL over steps"][-1] == found["KL"] != 0
    np.testing.assert_allclose(found["KL over steps"][0], 0, atol=1e-5)


def test_every_arm_traces_as_a_population(experiment, loaded):
    for arm in ("bandit ipo", "digits value baseline", "text copg"):
        config = experiment.ARMS[arm]
        shapes = jax.eval_shape(jax.vmap(partial(experiment.run, tiny(config))), jax.random.split(jax.random.key(0), 3))
        assert set(shapes) == metrics_of(config), arm
        assert shapes["KL"].shape == (3,) and shapes["reward over steps"].shape == (3, 5)


def test_on_the_bandit_each_loss_goes_to_its_fixed_point(experiment):
    ends = {}
    for loss in ("copg", "no baseline"):
        config = tiny(experiment.ARMS[f"bandit {loss}"], prompts=4000, batch=512, steps=400, learning_rate=0.02)
        ends[loss] = experiment.run(config, jax.random.key(0))
        check(ends[loss], config, 11)
    np.testing.assert_allclose(ends["copg"]["regret"], 0, atol=1e-3)
    np.testing.assert_allclose(ends["copg"]["value"], 2.125200, atol=1e-3)
    np.testing.assert_allclose(ends["copg"]["regret over steps"][0], 2.125200 - 1.833333, atol=1e-5)
    np.testing.assert_allclose(ends["no baseline"]["regret"], 0.637793, atol=0.05)


def nothing(key, state, step, batches, **options):
    """A fit that takes no step: what a world is made of."""
    return state, {}


def test_four_devices_take_the_step_of_one(experiment, loaded):
    config = tiny(experiment.ARMS["text ipo"], noise=1.0)
    world = experiment.docstrings(config, jax.random.key(0), nothing)
    rows = jnp.arange(8)
    batch = {name: jnp.asarray(x)[rows] for name, x in world.known.items()} | {"index": rows}
    state = {"params": world.params, "opt": experiment.optimiser(config).init(world.params), "earned": jnp.float32(0.1)}
    after = []
    for devices in (1, 4):
        mesh = jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        specs = dict(in_specs=(jax.P(), jax.P("data"), jax.P()), out_specs=(jax.P(), jax.P()), check_vma=False)
        after.append(jax.jit(jax.shard_map(partial(experiment.step, world.model, config), mesh=mesh, **specs))(state, batch, jax.random.key(2)))
    one, four = ((state["opt"], seen) for state, seen in after)  # Adam's averages: its first step is the sign of a gradient, also of one that is 0
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6), one, four)
    assert all(np.abs(leaf).max() > 1e-6 for leaf in jax.tree.leaves(one[0][0].mu) if leaf.ndim > 1)


def test_the_better_one_of_a_pair_is_the_one_with_more_reward(experiment):
    own, reference = jnp.array([[-1.0, -2], [-3, -1], [-1, -5]]), jnp.zeros((3, 2))
    rewards = jnp.array([[1.0, 0], [0, 1], [2, 2]])  # the last is a tie
    found = experiment.compare(experiment.ARMS["digits dpo"], own, reference, rewards, 0.0, jnp.full(3, 99.0))
    np.testing.assert_allclose(found, [np.log1p(np.exp(-0.3)), np.log1p(np.exp(-0.6)), 0], rtol=1e-5)


@pytest.fixture
def folder(experiment, monkeypatch, tmp_path):
    """Comparisons and prompts as they lie in full, and a decoder in the place of the weights."""
    (tmp_path / "tldr").mkdir()
    rng = np.random.default_rng(0)
    text = lambda: " ".join(rng.choice(WORDS, rng.integers(1, 4)))  # noqa: E731
    rows = {"comparisons": [{name: text() for name in ("prompt", "chosen", "rejected")} for _ in range(16)], "prompts": [{"prompt": text()}] * 6}
    for name, lines in rows.items():
        (tmp_path / "tldr" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    tokenizer = data.train_tokenizer([" ".join(WORDS)], 20, kind="words", special=("<|endoftext|>",))
    model = encoders.Decoder(tokenizer.get_vocab_size(), 8, layers=1, heads=2, max_length=16)
    asked = []

    def load_pretrained(path):
        asked.append(path)
        return model, jax.jit(model.init)(jax.random.key(0), jnp.ones((1, 2), jnp.int32)), tokenizer

    monkeypatch.setattr(encoders, "load_pretrained", load_pretrained)
    monkeypatch.setenv("CLJAX_DATA", str(tmp_path))
    yield
    assert asked == [tmp_path / "tldr" / "weights"]


@pytest.mark.filterwarnings("ignore:.*were cut")
def test_full_scores_comparisons_by_a_reward_model_and_trains_on_them(experiment, folder):
    config = tiny(experiment.FULL, lengths=(4, 5), learning_rate=1e-2, warm_up=2)
    check(experiment.run(config, jax.random.key(0)), config, 5)


def test_claims_and_figures_read_what_there_is(experiment):
    curve = np.array([0.3, 0.6, 0.7])
    results = {arm: {name: curve if name.endswith("steps") else 0.5 for name in metrics_of(config)} for arm, config in experiment.ARMS.items()}
    assert all(isinstance(float(claim.of(results)), float) for claim in experiment.CLAIMS)
    entry = {"values": [0.5, 0.6], "mean": 0.55, "interval": (0.5, 0.6)}
    line = {"values": [list(curve)] * 2, "mean": list(curve), "interval": [(0.2, 0.9)] * 3}
    report = {"arms": {arm: {name: line if name.endswith("steps") else entry for name in found} for arm, found in results.items()}, "claims": []}
    assert set(experiment.figures(report)) == {name for task in experiment.TASKS for name in (task, f"{task} over KL")}
    assert (experiment.FULL.beta, experiment.FULL.learning_rate, experiment.FULL.batch, experiment.FULL.held_out) == (0.06, 1e-6, 128, 1024)
