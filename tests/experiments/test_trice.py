"""The experiment at a tiny size: arms trace as a population, rationales are checked and kept, devices agree, questions are read from a folder."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import processors

from cljax import data, encoders, memory, samplers

MODEL = encoders.Decoder(14, 8, layers=2, heads=4, max_length=15)
SIZES = dict(batch=8, steps=40, questions=16, worked=32, worked_steps=2, width=8)
NAMES = {"digits": ("log-likelihood", "accuracy", "error"), "sums": ("accuracy", "known"), "gsm8k": ("accuracy", "known")}


def tiny(config, **changes):
    return dataclasses.replace(config, **SIZES | changes | ({"subsample": 4} if config.subsample else {}))


def metrics_of(config):
    names = NAMES[config.task]
    return {*names, "mean accuracy"} | {f"{name} over steps" for name in names}


def check(found, config):
    assert set(found) == metrics_of(config) and all(np.isfinite(value).all() for value in found.values())
    assert found["accuracy over steps"].shape == (21,) and found["accuracy over steps"][-1] == found["accuracy"]


def test_every_arm_traces_as_a_population(experiment, few_digits):
    for arm in ("digits rejection", "sums subsampled", "sums STaR"):
        config = tiny(experiment.ARMS[arm])
        shapes = jax.eval_shape(jax.vmap(partial(experiment.run, config)), jax.random.split(jax.random.key(0), 3))
        assert set(shapes) == metrics_of(config), arm
        assert shapes["accuracy"].shape == (3,) and shapes["accuracy over steps"].shape == (3, 21)


def test_digits_are_learnt_by_the_exact_gradient_and_nearly_so_by_trice(experiment, few_digits):
    ends = {arm: experiment.run(tiny(experiment.ARMS[f"digits {arm}"]), jax.random.key(0)) for arm in ("exact", "TRICE")}
    for arm, found in ends.items():
        check(found, experiment.ARMS[f"digits {arm}"])
        assert found["log-likelihood"] > found["log-likelihood over steps"][0] + 0.1
    assert ends["exact"]["error"] == 0 < ends["TRICE"]["error"] < ends["TRICE"]["error over steps"][0] * 1.5


def test_without_a_step_it_is_what_it_was(experiment, few_digits):
    found = experiment.run(tiny(experiment.ARMS["digits TRICE"], steps=0), jax.random.key(0))
    assert found["mean accuracy"] == found["accuracy"] and found["accuracy over steps"].shape == (1,)


LETTERS = data.SUM_TOKENS


def test_rationales_of_sums_are_checked(experiment):
    rows = data.worked_sums(jnp.array([[3, 7, 5, 9], [0, 0, 9, 9]]))[0]._asdict()
    task = experiment.Task(MODEL, length=5)
    tokens = lambda text: jnp.array([[LETTERS.index(c) for c in text]] * 2)  # noqa: E731
    for text, expected in {"05:4.": [1, 0], ":8.99": [0, 1], "05:43": [0, 0], "00004": [0, 0], "0000:": [0, 0], "111:4": [0, 0]}.items():
        assert experiment.correct(task, rows, tokens(text)).tolist() == expected, text


def test_what_stands_behind_the_end_has_no_probability(experiment):
    rows = data.worked_sums(jnp.array([[3, 7, 5, 9], [0, 0, 9, 9]]))[0]._asdict()
    task = experiment.Task(MODEL, length=5)
    params = jax.jit(task.model.init)(jax.random.key(0), rows["questions"])
    one, other = jnp.array([[12, 4, 13, 0, 0]] * 2), jnp.array([[12, 4, 13, 7, 13]] * 2)
    score = jax.jit(partial(experiment.log_prob, task))
    np.testing.assert_allclose(score(params, rows, one), score(params, rows, other), rtol=1e-6)
    hinted = score(params, rows | {"real": rows["hinted"]}, one)
    assert not np.allclose(hinted, score(params, rows, one))
    changed = rows | {"questions": rows["questions"].at[:, 0].set(9)}  # the hint, which is not to be seen
    np.testing.assert_allclose(score(params, changed, one), score(params, rows, one), rtol=1e-6)


def nothing(key, state, step, batches, **options):
    """A fit that takes no step: what a world is made of."""
    return state, {}


@pytest.mark.parametrize("arm", ["digits TRICE", "sums no control variate"])
def test_four_devices_take_the_step_of_one_and_write_the_same_memory(experiment, few_digits, monkeypatch, arm):
    monkeypatch.setattr(experiment, "correct", lambda task, rows, tokens: tokens[:, 0] % 2 == 0)  # what untrained models get right too
    config = tiny(experiment.ARMS[arm], adam=False, learning_rate=0.1)
    make = {"digits": experiment.digits, "sums": experiment.sums}[config.task]
    task, params, known, _, first = make(config, jax.random.key(0), nothing)
    rows = jnp.arange(8)
    batch = {name: jnp.asarray(x)[rows] for name, x in known.items()} | {"index": rows}
    correct = experiment.correct(task, known, first)
    past = memory.RationalesState(first.astype(jnp.int32), correct)
    state = {"params": params, "opt": experiment.optimiser(config).init(params), "memory": past}
    after = []
    for devices in (1, 4):
        mesh = jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        specs = dict(in_specs=(jax.P(), jax.P("data"), jax.P()), out_specs=(jax.P(), jax.P()), check_vma=False)
        seen = jax.jit(jax.shard_map(partial(experiment.step, task, config), mesh=mesh, **specs))(state, batch, jax.random.key(2))
        after.append((seen[0], {name: value for name, value in seen[1].items() if name == "error"}))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6), *after)
    new = after[0][0]["memory"]
    assert (new.tokens[8:] == past.tokens[8:]).all() and (new.correct[:8] >= correct[:8]).all() and (new.tokens != past.tokens).any()


def test_each_method_weighs_what_it_learns_from(experiment):
    """Two questions of digits: proposals of which the first is right, memories of which both are."""
    model = encoders.MLP((), 10)
    params = {"params": {"Dense_0": {"kernel": jnp.zeros((1, 10)), "bias": jnp.zeros(10).at[4].set(99.0)}}}
    rows = {"questions": jnp.zeros((2, 1)), "answers": jnp.array([[0], [1]]), "index": jnp.arange(2)}
    old = samplers.Chain(jnp.array([[2], [7]]), jnp.array([True, True]))

    def weigh(old):
        def one(method, subsample=None):
            config = experiment.Config(method=method, subsample=subsample)
            return experiment.weigh(experiment.Task(model), config, params, samplers.Chain(*old), rows, jax.random.key(0))

        found = {method: one(method) for method in ("rejection", "policy gradient", "STaR", "no control variate", "TRICE")}
        config = experiment.Config(method="rejection", draws=2)
        found["two draws"] = experiment.weigh(experiment.Task(model), config, params, samplers.Chain(*old), rows, jax.random.key(0))
        return found | {"subsampled": one("TRICE", 4)}

    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    every = jax.jit(jax.shard_map(weigh, mesh=mesh, in_specs=jax.P(), out_specs=jax.P(), check_vma=False))(tuple(old))

    def found(method):
        tokens, whose, weights, kept = every[method]
        return list(zip(tokens[:, 0].tolist(), whose.tolist(), weights.tolist(), strict=True)), kept.state[:, 0].tolist()

    assert found("rejection") == ([(4, 0, 2.0), (4, 1, 0.0)], [2, 7])
    assert found("two draws") == ([(4, 0, 2.0), (4, 1, 0.0)] * 2, [2, 7])  # each question's twice: their mean is over four
    assert found("policy gradient") == ([(4, 0, 1.0), (4, 1, 0.0)], [2, 7])
    assert found("STaR") == ([(2, 0, 1.0), (7, 1, 1.0)], [2, 7])
    assert found("no control variate") == ([(4, 0, 1.0), (7, 1, 1.0)], [4, 7])
    # beta is 0 for the first, as the other proposal is wrong, and 1 for the second; halves of these are the mean over two
    assert found("TRICE") == ([(4, 0, 2.0), (7, 1, 2.0), (4, 0, 0.0), (4, 1, -2.0)], [4, 7])
    assert {abs(weight) for _, _, weight in found("subsampled")[0]} == {1.5}


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """Questions and answers as they are released, worked examples, and a decoder in the place of the weights."""
    (tmp_path / "gsm8k").mkdir()
    lines = [{"question": f"{a} and {b} apples ?", "answer": f"there are {a + b} . #### {a + b}"} for a in range(4) for b in range(4)]
    for part, rows in {"train": lines, "test": lines[:6]}.items():
        (tmp_path / "gsm8k" / f"{part}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "gsm8k" / "prompt.txt").write_text("1 and 1 apples ? there are 2 .")
    words = "question answer the is and apples there are 0 1 2 3 4 5 6"
    tokenizer = data.train_tokenizer([words], 30, kind="words", special=("####", "\n"))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    model = encoders.Decoder(tokenizer.get_vocab_size(), 8, layers=1, heads=2, max_length=64)
    asked = []

    def load_pretrained(path):
        asked.append(path)
        return model, jax.jit(model.init)(jax.random.key(0), jnp.ones((1, 2), jnp.int32)), tokenizer

    monkeypatch.setattr(encoders, "load_pretrained", load_pretrained)
    monkeypatch.setenv("CLJAX_DATA", str(tmp_path))
    yield tokenizer
    assert asked == [tmp_path / "gsm8k" / "weights"]


@pytest.mark.filterwarnings("ignore:.*were cut")
def test_full_tunes_a_prompt_on_questions_of_a_folder(experiment, folder):
    config = tiny(experiment.FULL, lengths=(2, 8, 6), steps=20, votes=3)
    found = experiment.run(config, jax.random.key(0))
    assert 0 <= found.pop("voted") <= 1 and experiment.FULL.votes == 40
    check(found, config)


def test_full_is_asked_with_and_without_a_hint(experiment, folder, monkeypatch):
    monkeypatch.setattr(experiment, "write", lambda task, params, questions, real, key: real)
    task, params, known, _, first = experiment.folder(tiny(experiment.FULL, lengths=(2, 8, 6)), jax.random.key(0), nothing)
    assert params.shape == (7, 8) and task.frozen is not None and (first == known["hinted"]).all()
    assert folder.id_to_token(task.thus) == "####" and folder.id_to_token(task.end) == "\n"
    assert [folder.id_to_token(i) for i in known["answers"][5].tolist()] == ["2", "\n"]
    real, hinted = known["real"], known["hinted"]
    assert not (real & ~hinted).any() and (hinted.sum(1) > real.sum(1)).all()


def test_claims_and_figures_read_what_there_is(experiment):
    curve = np.array([0.3, 0.6, 0.7])
    results = {arm: {name: curve if name.endswith("steps") else 0.5 for name in metrics_of(config)} for arm, config in experiment.ARMS.items()}
    assert all(isinstance(float(claim.of(results)), float) for claim in experiment.CLAIMS)
    entry = {"values": [0.5, 0.6], "mean": 0.55, "interval": (0.5, 0.6)}
    line = {"values": [list(curve)] * 2, "mean": list(curve), "interval": [(0.2, 0.9)] * 3}
    report = {"arms": {arm: {name: line if name.endswith("steps") else entry for name in found} for arm, found in results.items()}, "claims": []}
    assert set(experiment.figures(report)) == {"digits", "sums"}
    assert (experiment.FULL.steps, experiment.FULL.batch, experiment.FULL.subsample, experiment.FULL.learning_rate) == (100, 64, 64, 1.0)
