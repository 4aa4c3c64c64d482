"""The reconstruction of DebCSE at a tiny size: its data, its scorer and its draws, every arm, four devices, real text, the paper's scale."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds

from cljax import core, data, encoders
from cljax.data import sentences as module

METRICS = {"Spearman", "length bias", "uniformity", "surface of positives"}
CURVES = {"Spearman over steps", "length bias over steps", "uniformity over steps"}
WORDS = np.array([first + second + third for first in "bdfgk" for second in "aeiou" for third in "lmnrst"])


@pytest.fixture(scope="module")
def experiment(experiment):
    experiment.PAIRS = 200
    return experiment


def tiny(config, **changes):
    sizes = dict(split=(80, 40), neighbours=6, pool=8, features=8, batch=16, steps=min(config.steps, 4))
    return dataclasses.replace(config, **sizes | changes)


@pytest.fixture(scope="module")
def results(experiment):
    return {arm: experiment.run(tiny(config), jax.random.key(0)) for arm, config in experiment.ARMS.items()}


def sentence(draw, count):
    return " ".join(draw.choice(WORDS, count))


# The sentences, what they look like, and the scorer.


def test_sentences_hide_what_they_mean_behind_length_and_filler_words(experiment):
    found = experiment.concepts((3000, 1000), np.random.default_rng(0))
    text = found["text"]
    ids, mask = text["ids"], text["mask"]
    chosen, fillers = (ids[:, :3] - 1) // 4, np.where(mask, ids, 0)[:, 3:]
    assert ids.shape == (3000, 12) and (text["length"] == mask.sum(axis=1)).all() and ids.max() < found["size"] == 281
    assert set(text["length"]) == set(range(3, 13)) and set(chosen.ravel()) == set(range(60)) and set(((ids[:, :3] - 1) % 4).ravel()) == set(range(4))
    one_topic = (chosen // 5 == chosen[:, :1] // 5).all(axis=1)
    assert abs((~one_topic).mean() - 0.2 * 11 / 12) < 0.025 and (chosen[:, 0] != chosen[:, 1]).all()
    counts = np.bincount(fillers[fillers > 0] - 241, minlength=40)
    assert abs(counts[0] / counts[1] - 2) < 0.3 and counts.min() > 0
    test = found["test"]
    for first, second, gold in zip(test["first"]["ids"], test["second"]["ids"], test["gold"], strict=True):
        a, b = ({(word - 1) // 4 for word in row[:3]} for row in (first, second))
        np.testing.assert_allclose(gold, len(a & b) / len(a | b), rtol=1e-6)
    assert (test["gold"] > 0).any() and (test["gold"] == 0).any()


def test_the_overlap_is_that_of_sets(experiment):
    rows = np.array([[1, 2, 3, 0, 0], [2, 3, 4, 5, 0], [2, 2, 9, 3, 3]])
    text = experiment.as_text(rows, rows > 0, special=[9])
    pair = lambda i, j: float(experiment.overlap(experiment.take(text, i), experiment.take(text, j)))  # noqa: E731
    np.testing.assert_allclose([pair(0, 1), pair(0, 2), pair(2, 2)], [0.4, 2 / 3, 1])  # {a, b, c} and {b, c, d, e}: 0.4
    assert text["mask"][2].tolist() == [True, True, False, True, True] and text["length"].tolist() == [3, 4, 5]


# The draws.


@pytest.fixture(scope="module")
def drawn(experiment):
    """Batches of many steps, positives and negatives by propensity."""
    config = tiny(experiment.ARMS["IPW both"], mixing=0.3)
    found = experiment.corpus(tiny(experiment.Config()), jax.random.key(1))
    weights = experiment.log_weights(config, found["similarity"], found["surface"])
    arrays = {name: found[name] for name in ("text", "neighbours", "scored")} | {"order": jax.random.key(5), "log_weights": weights}
    arrays["weights"] = 2 * jnp.ones_like(weights)
    # What a sentence is told by: its row number, in the place of its length.
    arrays["text"] = arrays["text"] | {"length": jnp.arange(80)}
    keys, steps = jax.random.split(jax.random.key(0), 100), jnp.arange(100)
    return arrays, jax.device_get(jax.jit(jax.vmap(partial(experiment.draw, config), (0, None, 0)))(keys, arrays, steps))


def test_candidates_never_hold_the_anchor_and_are_as_near_as_can_be(drawn):
    arrays, _ = drawn
    unit, neighbours = np.asarray(arrays["scored"], np.float64), np.asarray(arrays["neighbours"])
    cosines = unit @ unit.T - 9 * np.eye(80)
    assert not (neighbours == np.arange(80)[:, None]).any()
    chosen = np.take_along_axis(cosines, neighbours, axis=1)
    np.testing.assert_allclose(chosen, -np.sort(-cosines, axis=1)[:, :6], atol=1e-5)


def roles(batches):
    return batches["texts"]["length"].reshape(1600, 3).T


def test_positives_are_neighbours_or_the_anchor_itself_as_often_as_asked(drawn):
    arrays, both = drawn
    anchor, positive, _ = roles(both)
    assert (anchor == both["index"].ravel()).all() and all(np.bincount(anchor[start : start + 80]).max() == 1 for start in range(0, 1600, 80))
    own = anchor == positive
    assert abs(own.mean() - 0.3) < 4 * np.sqrt(0.21 / 1600)
    assert (np.asarray(arrays["neighbours"])[anchor] == positive[:, None]).any(axis=1)[~own].all()
    assert (both["weight"].ravel() == np.where(own, 1, 2)).all()


def test_negatives_are_others_that_are_not_too_near(drawn):
    arrays, both = drawn
    unit, (anchor, _, negative) = np.asarray(arrays["scored"]), roles(both)
    assert (anchor != negative).all()
    assert ((unit[anchor] * unit[negative]).sum(axis=1) < 0.3).mean() > 0.99  # a pool of eight may hold no other


# The arms.


def test_every_arm_runs_and_returns_what_the_claims_read(experiment, results):
    for arm, found in results.items():
        assert set(found) == METRICS | (CURVES if experiment.ARMS[arm].steps else set())
        assert all(np.all(np.isfinite(value)) for value in found.values())
        if experiment.ARMS[arm].steps:
            assert found["Spearman over steps"].shape == (5,) and found["Spearman over steps"][-1] == found["Spearman"]
            assert np.ptp(found["uniformity over steps"]) > 0
    assert len({float(found["Spearman"]) for found in results.values()}) == len(results)
    assert results["SimCSE"]["surface of positives"] == 1
    assert results["IPW positives"]["surface of positives"] < results["semantic"]["surface of positives"]
    assert all(np.isfinite(float(claim.of(results))) for claim in experiment.CLAIMS)
    assert all("reconstruction" in claim.name for claim in experiment.CLAIMS) and "RECONSTRUCTION" in experiment.__doc__


def test_figures_draw(experiment, results):
    def entry(value):
        value = np.asarray(value, np.float64).tolist()
        return {"values": [value, value], "mean": value, "interval": [[v, v] for v in value] if isinstance(value, list) else [value, value]}

    arms = {arm: {name: entry(value) for name, value in found.items()} for arm, found in results.items()}
    figures = experiment.figures({"arms": arms, "claims": []})
    assert set(figures) == {"arms", "training"} and len(figures["arms"].axes) == 4


def test_four_devices_take_the_step_of_one(experiment):
    found = experiment.corpus(tiny(experiment.Config()), jax.random.key(1))
    text, index = found["text"], jnp.array([3, 9, 60, 1, 8, 4, 7, 2])
    texts = experiment.take(text, (index[:, None] + jnp.arange(3)) % 80)
    batch = {"texts": texts, "index": index, "weight": jnp.linspace(0.5, 2, 8)}
    config = tiny(experiment.Config())
    state = {"params": found["params"], "opt": experiment.optax.adam(config.learning_rate).init(found["params"])}
    after = []
    for devices in (1, 4):
        mesh = jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        specs = dict(in_specs=(jax.P(), jax.P("data"), jax.P()), out_specs=(jax.P(), jax.P()), check_vma=False)
        after.append(jax.jit(jax.shard_map(partial(experiment.step, None, config), mesh=mesh, **specs))(state, batch, jax.random.key(2)))
    # Adam's first step has the size of the rate where the gradient is not zero, whatever it is: the moments say more.
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), after[0][0]["opt"], after[1][0]["opt"])
    np.testing.assert_allclose(after[0][1]["loss"], after[1][1]["loss"], rtol=1e-5)
    assert not np.allclose(after[0][0]["params"]["lengths"], state["params"]["lengths"])


# Real text.


@pytest.fixture
def model(tmp_path):
    """The folder of a tiny pretrained encoder."""
    tokenizer = data.train_tokenizer(list(WORDS), 200)
    module = encoders.TextTransformer(tokenizer.get_vocab_size(), 8, layers=1, heads=2, max_length=66, types=2)
    encoders.save_pretrained(tmp_path / "scorer", module, jax.jit(module.init)(jax.random.key(3), jnp.zeros((1, 4), jnp.int32)), tokenizer)
    return tmp_path / "scorer"


def test_verses_look_for_their_other_wording_with_a_pretrained_scorer(experiment, model, monkeypatch):
    draw = np.random.default_rng(0)
    texts = [sentence(draw, count) for count in draw.integers(4, 14, 160)]
    rows = [(text, " ".join(reversed(text.split())), "Gen") for text in texts] + [
        ("not this one of the other book", "nor this one of it", "Matt")
    ] * 3
    columns = dict(zip(("web", "kjv", "book"), (np.array(column, object) for column in zip(*rows, strict=True)), strict=True))
    monkeypatch.setattr(module, "load", lambda name, features, folder: tuple(columns[feature] for feature in features))
    monkeypatch.setenv("CLJAX_DATA", str(model.parent))
    config = tiny(experiment.Config(), data="verses", scorer="scorer", known=90, split=(60, 20), vocabulary=140, length=12, steps=0)
    found = experiment.corpus(config, jax.random.key(2))
    assert found["text"]["ids"].shape == (60, 12) and found["known"]["ids"].shape == (90, 12) and found["scored"].shape == (60, 8)
    assert found["text"]["length"].min() >= 6 and found["test"]["second"]["length"].max() <= 12
    np.testing.assert_allclose(np.linalg.norm(found["params"]["words"][2:], axis=1).round(5), 1, atol=1e-4)
    results = experiment.run(config, jax.random.key(0))
    assert results["R@1"] == 1 and set(results) == {"R@1", "length bias", "uniformity", "surface of positives"}


@pytest.mark.errors
def test_sentences_of_numbers_have_no_pretrained_scorer(experiment):
    with pytest.raises(ValueError, match="scorer='all-minilm-l6-v2' reads text, and the sentences of data='concepts' are made of numbers"):
        experiment.run(tiny(experiment.Config(), scorer="all-minilm-l6-v2"), jax.random.key(0))


# The paper's scale.


class Prepared(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes articles as the builder of Wikipedia does, and scored pairs as that of GLUE's STS-B."""

    url_infos, VERSION = None, tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in ("20190301.en", "stsb")]

    def __init__(self, name, config, folder):
        self.name = name
        super().__init__(config=config, data_dir=folder, file_format="array_record")

    def _info(self):
        features = {"title": tfds.features.Text(), "text": tfds.features.Text()}
        if self.name == "glue":
            features = {"sentence1": tfds.features.Text(), "sentence2": tfds.features.Text(), "label": np.float32, "idx": np.int32}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"validation" if self.name == "glue" else "train": self._generate_examples()}

    def _generate_examples(self):
        draw = np.random.default_rng(0)
        for row in range(12):
            text = ". ".join(sentence(draw, count) for count in (8, 3, 9, 7))
            pair = {"sentence1": sentence(draw, 7), "sentence2": sentence(draw, 5), "label": row / 2 % 5, "idx": row}
            yield row, pair if self.name == "glue" else {"title": "a title", "text": text}


@pytest.fixture
def full(experiment, model, monkeypatch):
    """The paper's scale, smaller."""
    for name, config in (("wikipedia", "20190301.en"), ("glue", "stsb")):
        Prepared(name, config, model.parent).download_and_prepare()
    monkeypatch.setenv("CLJAX_DATA", str(model.parent))
    return tiny(experiment.FULL, split=(30, 0), scorer="scorer", weights="scorer", length=16, batch=8, steps=3, evaluations=3, learning_rate=0.03)


def test_full_trains_pretrained_weights_on_articles(experiment, full):
    found = experiment.corpus(full, jax.random.key(3))
    lengths = found["text"]["length"]
    assert len(lengths) == 30 and lengths.min() >= 8 and not found["text"]["set"][:, 0].any()  # [CLS] is encoded, and is no word
    assert found["text"]["mask"][:, 0].all() and found["model"].features == 8


def test_full_keeps_the_parameters_that_are_best_on_the_development_set(experiment, full, model):
    results = experiment.run(full, jax.random.key(0))
    assert set(results) == METRICS | CURVES and all(np.all(np.isfinite(value)) for value in results.values())
    watched = results["Spearman over steps"]  # before, and after each of the three steps
    assert watched.shape == (4,) and np.ptp(watched) > 0 and results["Spearman"] == watched[1:].max()
    draw = np.random.default_rng(5)
    rows = [{"sentence1": sentence(draw, 6), "sentence2": sentence(draw, 6), "label": float(row)} for row in range(9)]
    (model.parent / "sts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    other = experiment.run(dataclasses.replace(full, evaluation="sts.jsonl"), jax.random.key(0))
    np.testing.assert_array_equal(other["Spearman over steps"], watched)  # it chooses by the same pairs, and reports on others
    assert other["Spearman"] != results["Spearman"]


def test_full_scale_names_what_exists(experiment):
    full = experiment.FULL
    assert (full.data, full.evaluation, full.negatives, full.steps) == ("wikipedia/20190301.en", "glue/stsb", "ipw", 1_000_000 // 64)
    assert full.selection == "glue/stsb" and full.steps // full.evaluations == 125
    assert core.safe_normalize is experiment.core.safe_normalize and "all-minilm-l6-v2" in data.MODELS
