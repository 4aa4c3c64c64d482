"""The experiment at a tiny size: each method writes, kept sets are nested and keep ties, held-out text is measured, articles and weights are read."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds

from cljax import data, decoding, encoders, train

WRITTEN = {"rep-4", "diversity", "Zipf", "perplexity"}
FILTERED = WRITTEN | {"tokens kept", "likeliest dropped"}
HELD_OUT = {"rep-4", "diversity", "Zipf", "mean deviation", "median deviation", "sd of deviation", "density"}
MODEL = encoders.Decoder(12, 8, layers=1, heads=4, positions="rotary")  # what the tests share: nothing is compiled twice


pytestmark = pytest.mark.usefixtures("few_docstrings")


def tiny(config, **changes):
    sizes = dict(prompts=4, lengths=(4, 8), at_once=4, vocabulary=12, width=8, layers=1, window=8, batch=8, steps=40, learning_rate=0.02, warm_up=4)
    return dataclasses.replace(config, **sizes | changes)


@pytest.mark.parametrize("arm", ["typical 0.2", "top-k 2", "greedy", "beam 4"])
def test_each_method_writes(experiment, kept_fit, arm):
    found = experiment.run(tiny(experiment.ARMS[arm]), jax.random.key(0), kept_fit)
    assert set(found) == (WRITTEN if arm in ("greedy", "beam 4") else FILTERED)
    assert all(np.isfinite(value) for value in found.values()) and 0 <= found["rep-4"] <= 1 and 1 < found["perplexity"] < 40
    if arm == "top-k 2":
        assert abs(found["tokens kept"] - 2) < 1e-5 and found["likeliest dropped"] == 0
    if arm == "typical 0.2":
        assert 1 <= found["tokens kept"] < 6 and found["likeliest dropped"] > 0


def test_a_model_that_has_learnt_nothing_writes_and_no_prompts_are_refused(experiment, kept_fit):
    found = experiment.run(tiny(experiment.ARMS["ancestral"], steps=0), jax.random.key(0), kept_fit)
    assert set(found) == WRITTEN
    for prompts in (0, -1):
        with pytest.raises(ValueError, match=f"prompts must be at least 1, got {prompts}"):
            experiment.run(tiny(experiment.ARMS["ancestral"], prompts=prompts), jax.random.key(0), kept_fit)


def test_the_arms_are_the_whole_ranges(experiment):
    arms = {"typical 0.2", "nucleus 0.95", "top-k 80", "ancestral", "greedy", "beam 4", "held-out text"}
    assert len(experiment.ARMS) == 22 and arms <= set(experiment.ARMS)


def test_held_out_text_is_measured_by_the_model(experiment, kept_fit):
    config = tiny(experiment.ARMS["held-out text"])
    found = experiment.run(config, jax.random.key(0), kept_fit)
    assert set(found) == HELD_OUT and found["density"].shape == (64,)
    np.testing.assert_allclose(found["density"].sum() * 0.25, 1, rtol=1e-5)
    middles = (experiment.EDGES[1:] + experiment.EDGES[:-1]) / 2
    np.testing.assert_allclose(found["mean deviation"], (found["density"] * middles).sum() * 0.25, atol=0.1)
    assert abs(found["mean deviation"]) < 1


def test_sets_are_nested_keep_ties_and_may_drop_the_likeliest(experiment):
    logits = jax.random.normal(jax.random.key(0), (50, 12)) * jnp.linspace(0, 3, 50)[:, None]
    logits = logits.at[:, 3].set(logits[:, 4])
    sets = np.stack([decoding.typical(mass)(logits) > -np.inf for mass in experiment.MASSES])
    assert not np.any(sets[:-1] & ~sets[1:]) and np.array_equal(sets[..., 3], sets[..., 4])
    assert np.all(sets[:, 0])  # equally likely tokens
    mass = np.sum(jnp.where(sets, jax.nn.softmax(logits), 0), axis=-1)
    assert np.all(mass >= np.array(experiment.MASSES)[:, None] - 1e-6)
    found = [experiment.kept(decoding.typical(mass), logits) for mass in experiment.MASSES]
    np.testing.assert_allclose([row["tokens kept"] for row in found], sets.sum(axis=-1).mean(axis=-1), rtol=1e-6)
    assert found[0]["likeliest dropped"] > 0.3 > found[-1]["likeliest dropped"]


def test_texts_do_not_depend_on_how_many_are_written_at_once(experiment):
    params = jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))
    prompts = jax.random.randint(jax.random.key(1), (4, 4), 0, 12)
    whole, parts = (experiment.write(tiny(experiment.ARMS["typical 0.95"], at_once=n), jax.random.key(2), MODEL, params, prompts) for n in (4, 2))
    np.testing.assert_array_equal(whole.tokens, parts.tokens)
    assert len(np.unique(whole.tokens, axis=0)) == 4


def test_claims_say_what_the_paper_does(experiment):
    arms = {arm: {"rep-4": 0.05} for arm in experiment.ARMS}
    arms["nucleus 0.2"]["rep-4"], arms["top-k 2"]["rep-4"], arms["typical 0.3"]["rep-4"] = 0.6, 0.4, 0.02
    arms["held-out text"] |= {"rep-4": 0.05, "mean deviation": 0.1, "median deviation": 0.7}
    values = [claim.of(arms) for claim in experiment.CLAIMS]
    np.testing.assert_allclose(values, [0.1, 0.6, 0.52, 0.32, 0.55, 0.35, 0.52 / 6, 0.32 / 6], atol=1e-9)


def test_figures_show_the_level_of_held_out_text(experiment):
    number = {"mean": 0.5, "interval": None, "values": [0.5]}
    arms = dict.fromkeys(["typical 0.2", "nucleus 0.2", "top-k 2"], dict.fromkeys(FILTERED, number))
    arms |= {"held-out text": dict.fromkeys(HELD_OUT, number) | {"density": {"mean": [0.1] * 64, "interval": None, "values": [[0.1] * 64]}}}
    drawn = experiment.figures({"arms": arms, "claims": []})
    assert set(drawn) == {"mass", "kept", "k", "motive"}
    assert [text.get_text() for panel in drawn["k"].axes for text in panel.texts] == ["held-out text"] * 2
    assert set(experiment.figures({"arms": {"greedy": dict.fromkeys(WRITTEN, number)}, "claims": []})) == {"scores"}


class Prepared(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes articles as the builder of Wiki-40B does."""

    url_infos, VERSION = None, tfds.core.Version("1.3.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="en")]
    name = "wiki40b"

    def _info(self):
        names = ("wikidata_id", "text", "version_id")
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(dict.fromkeys(names, tfds.features.Text())))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(6000), "test": self._generate_examples(600)}

    def _generate_examples(self, rows):
        for row in range(rows):
            yield row, {"wikidata_id": f"Q{row}", "text": "to be or not", "version_id": "0"}


def test_full_goes_on_from_weights_on_articles(experiment, monkeypatch, tmp_path):
    tokenizer = data.train_tokenizer(["to be or not to be"], 4, kind="words", special=("<|endoftext|>",))
    asked = []

    def load_pretrained(path):
        asked.append(path)
        return MODEL, jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros((1, 2), jnp.int32)), tokenizer

    monkeypatch.setattr(encoders, "load_pretrained", load_pretrained)
    monkeypatch.setenv("CLJAX_DATA", str(tmp_path))
    for name in ("gpt2-large", "gpt2-xl"):
        (tmp_path / name).mkdir()
    Prepared(config="en", data_dir=tmp_path, file_format="array_record").download_and_prepare()
    full = experiment.FULL
    found = experiment.run(tiny(full), jax.random.key(0), partial(train.fit, progress=False))
    assert set(found) == FILTERED and (full.amount, full.lengths, full.prompts) == (0.2, (40, 200), 1000)
    assert asked == [tmp_path / "gpt2-large", tmp_path / "gpt2-xl"]
    known, held_out, *_ = experiment.corpus("wiki40b/en", full.split, "gpt2-large", 12, 8, 1)
    assert (len(known), len(held_out)) == (600, 300) and tokenizer.id_to_token(int(known[4])) == "<|endoftext|>"
