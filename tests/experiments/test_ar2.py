"""The experiment at a tiny size: arms that differ in code train, the two models move apart from each other, the claims read what `run` returns."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import data
from cljax.data import search

METRICS = {"R@1", "R@10", "MRR", "entropy"}
RANKER = {"R@1 re-ranked", "MRR re-ranked"}
WORDS = np.array([first + second + third for first in "bdfgk" for second in "aeiou" for third in "lmnrst"])

pytestmark = pytest.mark.filterwarnings("ignore:.* texts .* were cut")


@pytest.fixture(autouse=True)
def shipped(experiment, monkeypatch):
    """Forty short definitions in the place of the standard library."""
    rng = np.random.default_rng(0)
    code = np.array([" ".join(rng.choice(WORDS, 12)) for _ in range(40)], object)
    docstrings = np.array([" ".join(text.split()[::3]) for text in code], object)
    docstrings[1] = docstrings[0]
    names = np.array([f"name_{row}" for row in range(40)])
    monkeypatch.setattr(search, "documented_code", lambda folder: data.DocumentedCode(names, names, docstrings, code))
    experiment.texts_of.cache_clear()


def tiny(config, **changes):
    sizes = dict(split=(28, 12), lengths=(4, 12), vocabulary=90, features=8, candidates=6, negatives=2, reranked=5, batch=4, warm_batch=8)
    steps = dict(cycles=min(config.cycles, 2), ranker_steps=2, retriever_steps=3, warm_steps=3, warm_ranker_steps=2)
    return dataclasses.replace(config, **sizes | steps | changes)


def check_results(results, curves=True):
    assert set(results) == METRICS | RANKER | ({f"{name} over cycles" for name in METRICS} if curves else set())
    assert all(np.all(np.isfinite(value)) for value in results.values())
    if curves:
        assert all(results[f"{name} over cycles"].shape == (3,) and results[f"{name} over cycles"][-1] == results[name] for name in METRICS)
        assert np.ptp(results["entropy over cycles"]) > 0


@pytest.mark.parametrize("arm", ["in batch", "ANCE-like", "code form"])
def test_an_arm_trains(experiment, arm):
    check_results(experiment.run(tiny(experiment.ARMS[arm]), jax.random.key(0)))


def test_all_arms_begin_with_the_same_models(experiment):
    warm, trained = (experiment.run(tiny(experiment.ARMS[arm]), jax.random.key(0)) for arm in ("warm-up", "AR2"))
    check_results(warm, curves=False)
    check_results(trained)
    for name in METRICS:
        np.testing.assert_allclose(warm[name], trained[f"{name} over cycles"][0], rtol=1e-5)


@pytest.fixture(scope="module")
def small(experiment):
    """A model of each kind with a state, passages, and a batch."""
    config = tiny(experiment.ARMS["AR2"])
    models = experiment.models_of(config, 95)
    retriever = experiment.init(config, models, jax.random.key(0))
    ranker = experiment.init_ranker(config, models, jax.random.key(1), retriever)
    ranker = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(2), leaf.shape), ranker)
    table = (jnp.arange(8)[:, None] + jnp.arange(1, 7)) % 20
    state = {"retriever": retriever, "ranker": ranker, "candidates": table.at[3, 1:].set(-1)}
    state["opt"] = {who: experiment.optimiser(config, who).init(state[who]) for who in ("retriever", "ranker")}
    passages = jax.random.randint(jax.random.key(3), (20, 12), 5, 95), jnp.arange(12) < jnp.arange(20)[:, None] % 8 + 5
    query = data.Tokens(jax.random.randint(jax.random.key(4), (8, 4), 5, 95), jnp.ones((8, 4), bool))
    return config, models, state, passages, {"query": query, "own": jnp.arange(8), "ids": jnp.arange(8), "index": jnp.arange(8)}


def stepped(function, state, batch, devices=1):
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = dict(in_specs=(jax.P(), jax.P("data"), jax.P()), out_specs=jax.P(), check_vma=False)
    return jax.jit(jax.shard_map(function, mesh=mesh, **specs))(state, batch, jax.random.key(5))[0]


@pytest.mark.parametrize("who", ["retriever", "ranker"])
def test_four_devices_take_the_step_of_one_and_the_other_model_stays(experiment, small, who):
    config, models, state, passages, batch = small
    config = dataclasses.replace(config, form="code", batch_sum=True)  # its sum is over the whole batch
    step = partial(experiment.step, who, models, config, passages)
    one, four = (stepped(step, state, batch, devices) for devices in (1, 4))
    other = "ranker" if who == "retriever" else "retriever"
    for tree in (one, four):
        jax.tree.map(np.testing.assert_array_equal, {k: tree[k] for k in (other, "candidates")}, {k: state[k] for k in (other, "candidates")})
        jax.tree.map(np.testing.assert_array_equal, tree["opt"][other], state["opt"][other])
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6), one["opt"][who][0].mu, four["opt"][who][0].mu)  # the gradients
    moved = jax.tree.map(lambda new, old: not np.allclose(new, old), one[who], state[who])
    assert all(jax.tree.leaves(moved))


def test_the_retrievers_loss_is_the_papers_or_the_codes(experiment):
    scores, ranked = jnp.array([[2.0, 1.0, 0.0], [0.5, 1.5, -1.0]]), jnp.array([[3.0, 1.0, -1.0], [0.0, 2.0, 1.0]])
    config, exists = experiment.ARMS["AR2"], jnp.ones((2, 3), bool)

    def value(config):
        return jnp.mean(experiment.retriever_loss(config, scores, ranked, exists))

    assert np.isclose(value(config), (-1.081439 + 0.815030) / 2, atol=1e-5)
    assert np.isclose(value(experiment.ARMS["code form"]), 1.911738, atol=1e-5)
    summed = jax.vmap(lambda _: value(dataclasses.replace(experiment.ARMS["code form"], batch_sum=True)), axis_name="data")(jnp.zeros(1))
    assert np.isclose(summed[0], 3.415960, atol=1e-5)
    assert np.isclose(value(experiment.ARMS["distillation alone"]), 0.815030, atol=1e-5)
    assert np.isclose(value(experiment.ARMS["adversarial alone"]), -1.081439, atol=1e-5)
    assert np.isclose(jnp.mean(experiment.listwise(ranked, exists)), 1.275269, atol=1e-5)


def test_one_negative_teaches_by_distillation_alone_in_the_papers_form(experiment):
    scores, ranked, exists = jnp.array([[2.0, 1.0]]), jnp.array([[1.0, 1.5]]), jnp.ones((1, 2), bool)

    def gradient(config):
        return jax.grad(lambda scores: jnp.sum(experiment.retriever_loss(config, scores, ranked, exists)))(scores)

    assert np.all(gradient(experiment.ARMS["adversarial alone"]) == 0)
    assert np.any(gradient(dataclasses.replace(experiment.ARMS["code form"], share=1.0)) != 0)
    assert np.any(gradient(experiment.ARMS["AR2"]) != 0)


def test_the_ranker_begins_as_the_retriever(experiment, small):
    config, models, state, passages, batch = small
    query, documents = batch["query"], [side[None, :5].repeat(8, axis=0) for side in passages]
    ranker = experiment.init_ranker(config, models, jax.random.key(0), state["retriever"])
    scores = experiment.ranker_scores(models, 20.0, ranker, query, documents)
    np.testing.assert_allclose(scores, experiment.retriever_scores(models, 20.0, state["retriever"], query, documents), rtol=1e-6)


def test_kernels_see_the_first_tokens_and_the_gates_of_the_query(experiment, small, monkeypatch):
    config, models, state, passages, batch = small
    query, documents = batch["query"], [side[None, :5].repeat(8, axis=0) for side in passages]
    params = jax.tree.map(lambda leaf: leaf, state["ranker"]["encoder"])
    found = experiment.kernels(models[1], params, query, documents)
    assert found.shape == (8, 5, experiment.FEATURES) and np.ptp(found[..., 0]) > 0
    monkeypatch.setattr(experiment, "READ", (2, 3))
    cut = experiment.kernels(models[1], params, [side[:, :2] for side in query], [side[..., :3] for side in documents])
    np.testing.assert_allclose(experiment.kernels(models[1], params, query, documents), cut, rtol=1e-6)
    closed = {"params": params["params"] | {"gates": jnp.full(95, -100.0).at[batch["query"].ids[0, 0]].set(0.0)}}
    monkeypatch.setattr(experiment, "READ", (1, 48))  # the one token whose gate is open
    one = experiment.kernels(models[1], params, query, documents)[0]
    monkeypatch.setattr(experiment, "READ", (20, 48))
    np.testing.assert_allclose(experiment.kernels(models[1], closed, query, documents)[0], one, rtol=1e-4, atol=1e-5)


def test_candidates_are_neither_the_answer_nor_of_the_same_question(experiment):
    config = tiny(experiment.ARMS["AR2"], candidates=20)
    known, _, vocabulary = experiment.texts_of(None, config.split, config.lengths, config.vocabulary, jax.random.key(0))
    models = experiment.models_of(config, vocabulary)
    table = np.asarray(experiment.look_up(models, 20, experiment.init(config, models, jax.random.key(0)), known))
    ids = np.asarray(known.ids)
    assert table.shape == (28, 20) and np.all(table < 28)
    assert not any(ids[row] in ids[line[line >= 0]] for row, line in enumerate(table))
    batch = {"own": known.answers, "index": jnp.arange(28)}
    (tokens, _), exists = experiment.drawn(config, known.passages, jnp.asarray(table).at[4].set(-1), batch, jax.random.key(1))
    np.testing.assert_array_equal(tokens[:, 0], known.passages.ids)
    assert exists[4].tolist() == [True, False, False] and bool(exists[5].all())


def test_full_trains_transformers_from_a_folder(experiment, tmp_path, monkeypatch):
    rng = np.random.default_rng(2)
    passages = [" ".join(rng.choice(WORDS, 9)) for _ in range(24)]
    rows = [{"query": " ".join(text.split()[:3]), "passage": row} for row, text in enumerate(passages)]
    lines = {"passages": [{"text": text} for text in passages], "train": rows[:16] + rows[2:4], "test": rows[16:]}
    (tmp_path / "msmarco").mkdir()
    for name, entries in lines.items():
        (tmp_path / "msmarco" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, entries)))
    monkeypatch.setenv("CLJAX_DATA", str(tmp_path))
    assert experiment.FULL.folder == "msmarco" and experiment.FULL.negatives == 15 and experiment.FULL.retriever_steps == 1500
    config = tiny(experiment.FULL, vocabulary=60, layers=(1, 1), widths=(8, 8), lengths=(6, 12), cycles=0)
    results = experiment.run(config, jax.random.key(0))
    assert set(results) >= METRICS | RANKER and all(np.all(np.isfinite(value)) for value in results.values())


def test_each_rate_fades_over_the_steps_of_its_own_model(experiment):
    config = tiny(experiment.FULL, cycles=5, ranker_rate=0.1)  # 10 steps of the ranker, of which the first one rises
    optimiser, weight = experiment.optimiser(config, "ranker"), jnp.zeros(1)
    state, rates = optimiser.init(weight), []
    for _ in range(10):
        update, state = optimiser.update(jnp.ones(1), state, weight)
        rates.append(float(-update[0]))
    assert np.allclose(rates, [0.1, *(0.1 * (9 - t) / 9 for t in range(9))], atol=1e-4)


def test_claims_and_figures_read_what_run_returns(experiment):
    assert all(isinstance(claim.of(dict.fromkeys(experiment.ARMS, dict.fromkeys(METRICS | RANKER, 0.25))), float) for claim in experiment.CLAIMS)
    number, curve = {"mean": 0.5, "interval": None, "values": [0.5]}, {"mean": [0.5] * 4, "interval": None, "values": [[0.5] * 4]}
    arm = dict.fromkeys(METRICS | RANKER, number) | dict.fromkeys([f"{name} over cycles" for name in METRICS], curve)
    arm["entropy over cycles"] = {"mean": [0.5] * 3, "interval": None, "values": [[0.5] * 3]}  # of other arms there may be more cycles
    assert set(experiment.figures({"arms": {"warm-up": dict.fromkeys(METRICS | RANKER, number), "AR2": arm}, "claims": []})) == {"arms", "cycles"}
