"""The experiment at a tiny size: arms that differ in code train, the slow encoder moves before it makes keys, claims read what `run` returns."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tensorflow_datasets as tfds

from cljax import data, encoders, memory, train
from cljax.data import search

pytestmark = pytest.mark.filterwarnings("ignore:.* texts .* were cut")
QUALITY = {"R@1", "R@10", "nDCG@10", "MRR"}
METRICS = QUALITY | {"std", "mean_cosine", "effective_rank", "R@1 between crops"}
CURVES = {f"{name} over steps" for name in ("R@1", "std", "mean_cosine", "effective_rank")}
WORDS = np.array([first + second + third for first in "bdfgk" for second in "aeiou" for third in "lmnrst"])


def texts(rng, count, size):
    return np.array([" ".join(rng.choice(WORDS, size)) for _ in range(count)], object)


@pytest.fixture(autouse=True)
def shipped(experiment, monkeypatch):
    """Forty short definitions in the place of the standard library, and a second corpus."""
    rng = np.random.default_rng(0)
    code = texts(rng, 40, 20)
    docstrings = np.array([" ".join(text.split()[::3]) for text in code], object)
    docstrings[1] = docstrings[0]
    names = np.array([f"name_{row}" for row in range(40)])
    monkeypatch.setattr(search, "documented_code", lambda folder: data.DocumentedCode(names, names, docstrings, code))
    old = texts(rng, 60, 6)
    monkeypatch.setattr(search, "load", lambda name, **how: {"verses": (old, np.array([text[4:] for text in old], object))}[name])
    experiment.documented.cache_clear()


def tiny(config, **changes):
    sizes = dict(split=(28, 12), length=16, vocabulary=90, features=8, batch=8, steps=min(config.steps, 6), queue=min(config.queue, 12))
    tuning = dict(labels=min(config.labels, 10), mined=3, tuning_batch=4, tuning_steps=2)
    return dataclasses.replace(config, **sizes | tuning | changes)


def check_results(results, curves=True, calls=7):
    assert METRICS | (CURVES if curves else set()) <= set(results)
    assert all(np.all(np.isfinite(value)) for value in results.values())
    assert all(0 <= results[name] <= 1 for name in QUALITY)
    if curves:
        assert all(results[name].shape == (calls,) for name in CURVES)
        assert np.ptp(results["std over steps"]) > 0


@pytest.mark.parametrize("arm", ["crop, in batch", "crop + replace + queue 2048"])
def test_an_arm_trains(experiment, arm):
    results = experiment.run(tiny(experiment.ARMS[arm]), jax.random.key(0))
    check_results(results)
    assert set(results) == METRICS | CURVES and results["R@1"] == results["R@1 over steps"][-1]


def test_fine_tuning_begins_with_what_was_learnt(experiment):
    results = experiment.run(tiny(experiment.ARMS["fine-tuned"]), jax.random.key(0))
    check_results(results)
    assert results["R@1 before"] == results["R@1 over steps"][-1]
    nothing = experiment.run(tiny(experiment.ARMS["fine-tuned from nothing"]), jax.random.key(0))
    check_results(nothing, curves=False)
    assert nothing["R@1 before"] == results["R@1 over steps"][0] and {"MRR random negatives", "MRR before"} <= set(nothing)


def test_bars_without_training(experiment):
    untrained = experiment.run(tiny(experiment.ARMS["untrained"]), jax.random.key(0))
    assert set(untrained) == METRICS
    for arm in ("BM25", "tf-idf"):
        results = experiment.run(tiny(experiment.ARMS[arm]), jax.random.key(0))
        assert set(results) == QUALITY and results["R@1"] > 0.5  # every third word of the code is the query


def test_a_second_corpus_is_mixed_in_and_tested(experiment):
    config = tiny(experiment.ARMS["untrained"], corpora=("documented_code", "verses"))
    assert {f"{name} of verses" for name in QUALITY | {"R@1 between crops"}} <= set(experiment.run(config, jax.random.key(0)))
    *_, batches, _, _ = experiment.prepare(config, jax.random.key(0))
    assert batches.arrays["sizes"].tolist() == [28, (54 * 6 - 15) // 16]  # chunks of running text
    arrays = {"ids": jnp.arange(12)[:, None], "mask": jnp.ones((12, 1), bool), "sizes": jnp.array([9, 3]), "exponent": jnp.float32(0)}
    batch = experiment.mixed(4000, jax.random.key(0), arrays, 0)
    counts = np.bincount(batch["index"], minlength=12)
    assert abs(counts[9:].sum() / 4000 - 0.5) < 0.04 and np.all(counts > 0)  # each corpus as often as the other, whatever its size
    assert np.array_equal(batch["ids"][:, 0], batch["index"])


def learnt(experiment, config, model, variables, batch, devices, objective="contrast", frame=None, rate=1.0):
    """The variables after one step of plain descent on the gradient, on so many devices."""
    objective = getattr(experiment, objective)
    objective = partial(objective, model, config, frame) if objective is experiment.contrast else partial(objective, model, config.temperature)
    with jax.set_mesh(jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))):
        how = dict(optimiser=partial(optax.sgd, rate), steps=1, fit=partial(train.fit, progress=False))
        return train.minimise(jax.random.key(2), objective, variables, iter([batch]), **how)[0]


def memories(config, params, features=8):
    return {"slow": memory.ema(config.momentum).init(params), "queue": memory.queue(config.queue, features).init(jax.random.key(1))}


def test_the_slow_encoder_moves_before_it_makes_the_keys(experiment, monkeypatch):
    config = tiny(experiment.ARMS["crop + queue 2048"], momentum=0.5)
    model = encoders.BagOfTokens(95, 8, normalise=True)
    params = model.init(jax.random.key(0), jnp.zeros((1, 4), int))
    batch, before = batch_of(8), {"params": params} | memories(config, params)
    before["slow"] = memory.ema(0.5).init(jax.tree.map(lambda leaf: leaf + 1, params))
    pair = experiment.two_views(config, 95, batch, jax.random.key(7))
    monkeypatch.setattr(experiment, "two_views", lambda *inputs: pair)
    after = learnt(experiment, config, model, before, batch, 1)
    half = jax.tree.map(lambda leaf: leaf + 0.5, params)
    np.testing.assert_allclose(after["queue"].keys[:8], model.apply(half, *pair[1]), atol=1e-5)
    np.testing.assert_array_equal(after["queue"].keys[8:], before["queue"].keys[8:])
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), after["slow"].params, half)

    def value(params):  # keys and queue have no gradient, and the queue is what it was before the step
        logits = jnp.concatenate([jnp.sum(q(params) * k, axis=1, keepdims=True), q(params) @ before["queue"].keys.T], axis=1) / config.temperature
        return -jnp.mean(jax.nn.log_softmax(logits)[:, 0])

    q, k = lambda params: model.apply(params, *pair[0]), model.apply(half, *pair[1])
    expected = jax.tree.map(jnp.subtract, params, jax.grad(value)(params))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), after["params"], expected)


def test_pairs_are_two_crops_or_a_span_and_the_rest(experiment):
    batch = batch_of(64)
    length = np.asarray(batch["mask"].sum(axis=1))
    crops = experiment.two_views(tiny(experiment.ARMS["crop, in batch"]), 95, batch, jax.random.key(0))
    for ids, mask in crops:
        assert ids.shape == (64, 8) and np.all(mask.sum(axis=1) >= 4) and np.all(mask.sum(axis=1) <= np.maximum(4, length // 2))
    assert not np.array_equal(crops[0][0], crops[1][0])
    (_, span), (_, rest) = experiment.two_views(tiny(experiment.ARMS["ICT + queue 2048"]), 95, batch, jax.random.key(0))
    np.testing.assert_array_equal(span.sum(axis=1) + rest.sum(axis=1), length)
    deleted = experiment.two_views(tiny(experiment.ARMS["crop + delete + queue 2048"], rate=0.9), 95, batch, jax.random.key(0))
    assert deleted[0][1].sum() < crops[0][1].sum() and np.all(deleted[0][1].sum(axis=1) >= 1)
    replaced = experiment.two_views(tiny(experiment.ARMS["crop + replace + queue 2048"], rate=0.5), 95, batch, jax.random.key(0))
    changed = np.asarray(replaced[0][0] != crops[0][0])[np.asarray(crops[0][1])]
    assert 0.35 < changed.mean() < 0.65 and np.array_equal(replaced[0][1], crops[0][1])


def test_hard_negatives_come_with_their_probability(experiment):
    sides = [(jnp.arange(size)[:, None], jnp.ones((size, 1), bool)) for size in (50, 1000)]
    arrays = {"task": data.SearchTask(*sides, jnp.arange(50), jnp.arange(1000)), "key": jax.random.key(1), "mined": jnp.full((50, 3), 999)}
    other = jnp.stack([experiment.labelled_batch(50, 0.1, jax.random.key(t), arrays, t)["other"][0][:, 0] for t in range(40)])
    assert abs(np.mean(other == 999) - 0.1) < 0.03
    batch = experiment.labelled_batch(50, 1.0, jax.random.key(0), arrays | {"mined": jnp.full((50, 3), -1)}, 0)
    assert np.all(batch["other"][0] >= 0) and len(np.unique(batch["index"])) == 50  # without a hard one a random one
    assert np.array_equal(batch["own"][0], batch["query"][0])


def batch_of(rows):
    length = jax.random.randint(jax.random.key(4), (rows, 1), 8, 17)
    mask = jnp.arange(16) < length
    return {"ids": jnp.where(mask, jax.random.randint(jax.random.key(3), (rows, 16), 5, 95), 0), "mask": mask, "index": jnp.arange(rows)}


@pytest.mark.parametrize("transformer", [False, True])
def test_four_devices_take_the_step_of_one(experiment, transformer):
    config = tiny(experiment.ARMS["crop + delete + queue 2048"])
    model = encoders.BagOfTokens(95, 8, normalise=True)
    if transformer:  # with dropout
        model = encoders.TextTransformer(95, 8, layers=1, heads=2, max_length=18, dropout=0.1)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 4), int))
    before = {"params": params} | memories(config, params)
    one, four = (learnt(experiment, config, model, before, batch_of(8), n, frame=(2, 3) if transformer else None) for n in (1, 4))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=2e-5), one, four)  # with the gradients, as the rate is 1
    assert one["queue"].pointer == 8 and not np.array_equal(one["queue"].keys[:8], before["queue"].keys[:8])


def test_four_devices_fine_tune_as_one(experiment):
    config, model = tiny(experiment.ARMS["fine-tuned"]), encoders.BagOfTokens(95, 8, normalise=True)
    params, (ids, mask, index) = model.init(jax.random.key(0), jnp.zeros((1, 4), int)), batch_of(8).values()
    batch = {name: (jnp.roll(ids, turn, axis=0), jnp.roll(mask, turn, axis=0)) for turn, name in enumerate(("query", "own", "other"))}
    batch |= {"ids": index // 2, "other ids": 7 - index, "index": index}
    one, four = (learnt(experiment, config, model, {"params": params}, batch, n, "supervised") for n in (1, 4))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), one, four)
    assert not np.allclose(jax.tree.leaves(one)[0], jax.tree.leaves(params)[0])


class Prepared(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes articles as the builder of Wikipedia does."""

    url_infos, VERSION = None, tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="20190301.en")]
    name = "wikipedia"

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"title": tfds.features.Text(), "text": tfds.features.Text()}))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for row, text in enumerate(texts(np.random.default_rng(1), 30, 24)):
            yield row, {"title": f"title {row}", "text": text}


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    Prepared(config="20190301.en", data_dir=tmp_path, file_format="array_record").download_and_prepare()
    monkeypatch.setenv("CLJAX_DATA", str(tmp_path))
    passages = texts(np.random.default_rng(2), 20, 12)
    rows = [{"query": " ".join(text.split()[:4]), "passage": row} for row, text in enumerate(passages)]
    lines = {"passages": [{"text": text} for text in passages], "test": rows[:5] + rows[3:6], "train": rows[6:]}
    (tmp_path / "scifact").mkdir()
    for name, entries in lines.items():
        (tmp_path / "scifact" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, entries)))
    return tmp_path


def test_full_trains_a_transformer_on_articles(experiment, prepared):
    assert experiment.FULL.queue == 131072 and experiment.FULL.momentum == 0.9995 and experiment.FULL.corpora == ("wikipedia/20190301.en",)
    config = tiny(experiment.FULL, layers=1, vocabulary=60, length=12, warm_up=1, steps=2, queue=16)
    check_results(experiment.run(config, jax.random.key(0)), calls=3)
    *_, frame, _, labelled, tests = experiment.prepare(dataclasses.replace(config, labels=8), jax.random.key(0))
    assert frame == (2, 3) and labelled.answers.tolist() == list(range(6, 20)) and len(labelled.ids) == 20
    assert tests[""].answers.tolist() == [0, 1, 2, 3, 4, 3, 4, 5] and np.all(tests[""].queries.ids[:, 0] == 2)


def test_full_begins_with_pretrained_weights(experiment, prepared):
    tokenizer = data.train_tokenizer(list(WORDS), 200)
    model = encoders.TextTransformer(tokenizer.get_vocab_size(), 8, layers=1, heads=2, max_length=14, types=2)
    params = jax.jit(model.init)(jax.random.key(5), jnp.zeros((1, 4), int))
    encoders.save_pretrained(prepared / "bert", model, params, tokenizer)
    config = tiny(experiment.FULL, weights="bert", length=12)
    model, found, frame, batches, *_ = experiment.prepare(config, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, found, params)
    assert model.dtype == jnp.bfloat16 and frame == (2, 3)
    seen = np.concatenate([next(batches)["ids"] for _ in range(8)])
    assert len(np.unique(seen, axis=0)) > 50  # of 30 articles of 24 words, longer than a text may be, which are not cut


def test_the_rate_rises_and_falls(experiment):
    optimiser, weight = experiment.optimiser(0.1, 2, 6), jnp.ones(1)
    state, rates = optimiser.init(weight), []
    for _ in range(6):
        update, state = optimiser.update(jnp.ones(1), state, weight)
        rates.append(float(-update[0] / 1.01))  # Adam's step for one and the same gradient is 1, the decay 0.01
    assert np.allclose(rates, [0.05, 0.1, 0.1, 0.075, 0.05, 0.025], atol=1e-4)


def test_claims_and_figures_read_what_run_returns(experiment):
    scores = dict.fromkeys(QUALITY, 0.25) | {"MRR random negatives": 0.5}
    assert all(isinstance(claim.of(dict.fromkeys(experiment.ARMS, scores)), float) for claim in experiment.CLAIMS)
    number, curve = {"mean": 0.5, "interval": None, "values": [0.5]}, {"mean": [0.5] * 8, "interval": None, "values": [[0.5] * 8]}  # of 16 steps
    arm = dict.fromkeys(METRICS, number) | dict.fromkeys(CURVES, curve)
    report = {"arms": {"crop + queue 2048": arm, "BM25": dict.fromkeys(QUALITY, number)}, "claims": []}
    assert set(experiment.figures(report)) == {"arms", "training"}
