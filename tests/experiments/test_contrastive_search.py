"""The experiment at a tiny size: decoders write, alpha 0 is greedy, models are measured, trained with a penalty and judged by another."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import data, decoding, encoders, losses, metrics, train

WRITTEN = {"diversity", "coherence", "a text"}
MODEL = encoders.Decoder(12, 8, layers=1, heads=4, positions="rotary")
SIZES = dict(prompts=4, lengths=(4, 8), at_once=4, vocabulary=12, width=8, layers=1, window=8, batch=8, steps=40, learning_rate=0.02, warm_up=4)


pytestmark = pytest.mark.usefixtures("few_docstrings")


def tiny(config, **changes):
    return dataclasses.replace(config, **SIZES | changes)


@pytest.mark.parametrize("arm", ["MLE contrastive 5 0.0", "MLE contrastive 5 0.6", "MLE nucleus 0.95", "MLE beam 4", "SimCTG held-out text"])
def test_each_decoder_writes(experiment, kept_fit, arm):
    found = experiment.run(tiny(experiment.ARMS[arm]), jax.random.key(0), kept_fit)
    extra = {"MLE contrastive 5 0.0": {"as greedy"}, "SimCTG held-out text": {"isotropy", "perplexity"}}.get(arm, set())
    assert set(found) == WRITTEN | extra and all(np.all(np.isfinite(value)) for value in found.values())
    assert 0 <= found["diversity"] <= 1 and -4 < found["coherence"] < 0 and found["a text"].shape == (12,)
    assert found.get("as greedy", 1) == 1
    if "perplexity" in found:
        assert 1 < found["perplexity"] < 11 and 0 < found["isotropy"] < 1.1


def test_no_prompts_are_refused(experiment):
    with pytest.raises(ValueError, match="prompts must be at least 1, got 0"):
        experiment.run(dataclasses.replace(experiment.Config(), prompts=0), jax.random.key(0))


def test_what_is_held_out_is_compared_with_itself(experiment):
    texts = jnp.arange(48).reshape(4, 12) % 12
    np.testing.assert_array_equal(experiment.write(tiny(experiment.ARMS["MLE held-out text"]), None, None, None, texts), texts[:, 4:])


def test_contrastive_search_may_go_on_from_drawn_tokens(experiment):
    params = jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))
    texts, arms = np.arange(48).reshape(4, 12) % 12, experiment.ARMS
    both, nucleus = (
        experiment.write(tiny(arms[arm], drawn=3), jax.random.key(2), MODEL, params, texts) for arm in ("MLE contrastive 5 0.6", "MLE nucleus 0.95")
    )
    assert both.shape == (4, 8)
    np.testing.assert_array_equal(both[:, :3], nucleus[:, :3])
    begun = np.concatenate([texts[:, :4], both[:, :3]], axis=1)
    np.testing.assert_array_equal(both[:, 3:], decoding.contrastive_search(MODEL.apply, params, begun, steps=5, k=5, alpha=0.6).tokens)


def test_the_penalty_moves_states_apart_and_models_are_shared(experiment, kept_fit):
    known, _, _, model, params = experiment.corpus("docstrings", ("train", "test"), None, 12, 8, 1)
    assert model == MODEL and params is None
    found = {}
    for simctg in (False, True):
        (writer, learnt), (_, judge) = experiment.models(tiny(experiment.Config(simctg=simctg)), jax.random.key(3), model, None, known, kept_fit)
        found[simctg] = experiment.quality(writer, 16, learnt, known[:270].reshape(30, 9))
        assert not np.array_equal(*(jax.tree.leaves(p)[0] for p in (learnt, judge)))
    assert found[True]["isotropy"] > found[False]["isotropy"] + 0.05
    stages = [path.name.rpartition("-")[0] for path in (kept_fit.keywords["folder"] / "shared").iterdir()]
    assert stages.count("judge") < stages.count("language model")  # one for both trainings


def test_quality_is_that_of_all_texts_together(experiment):
    params = jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))
    texts = jax.random.randint(jax.random.key(1), (20, 9), 0, 12)
    found = experiment.quality(MODEL, 16, params, texts)
    hidden, logits = jax.jit(MODEL.apply)(params, texts[:, :-1])
    np.testing.assert_allclose(found["isotropy"], metrics.isotropy(hidden), atol=1e-5)
    np.testing.assert_allclose(jnp.log(found["perplexity"]), losses.mean(losses.token_cross_entropy(logits, texts[:, 1:])), rtol=1e-5)


def test_claims_say_what_the_paper_does(experiment):
    arms = {arm: {"diversity": 0.1, "coherence": -4.0} for arm in experiment.ARMS}
    for training, more in (("MLE", 0.1), ("SimCTG", 0.4)):
        arms[f"{training} greedy"]["diversity"] = 0.0
        arms[f"{training} contrastive 5 0.6"] = {"diversity": 0.1 + more, "coherence": -2.0}
        arms[f"{training} contrastive 10 0.6"]["diversity"] = 0.3 + more
        arms[f"{training} contrastive 5 0.0"]["as greedy"] = 1.0
        arms[f"{training} held-out text"] |= {"isotropy": 0.5 + more, "perplexity": 50 - 10 * more}
    values = [claim.of(arms) for claim in experiment.CLAIMS]
    np.testing.assert_allclose(values, [0.2, 0.5, 0.1, 0.4, 0.2, 0.2, 2, 2, 1, 0.3, 46 / 49 - 1, 0.3], atol=1e-9)
    assert len(experiment.ARMS) == 22


def test_figures_show_the_plane_and_texts(experiment):
    number, text = {"mean": 0.5, "interval": None, "values": [0.5]}, [float(n % 12) for n in range(64)]
    arm = {"diversity": number, "coherence": number, "a text": {"mean": text, "interval": None, "values": [text]}}
    drawn = experiment.figures({"arms": dict.fromkeys(["MLE greedy", "MLE contrastive 5 0.6", "SimCTG greedy"], arm), "claims": []})
    assert set(drawn) == {"arms", "plane MLE", "plane SimCTG", "texts"}
    drawn["texts"].draw_without_rendering()  # a dollar begins no formula
    shown = [entry.get_text() for entry in drawn["texts"].axes[0].texts]
    assert shown[0].startswith("0 1 2") and "MLE greedy" in shown and len(shown) == 7


def test_full_goes_on_from_weights_on_articles(experiment, monkeypatch, tmp_path):
    tokenizer = data.train_tokenizer(["to be or not to be"], 4, kind="words", special=("<|endoftext|>",))
    asked = []

    def load(name, *, split, features, folder):
        asked.append((name, split, features))
        return [(np.array(["to be or not"] * count, object),) for count in (120, 60)]

    def load_pretrained(path):
        asked.append(path)
        return MODEL, jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros((1, 2), jnp.int32)), tokenizer

    monkeypatch.setattr("cljax.data.streams.load", load)
    monkeypatch.setattr(encoders, "load_pretrained", load_pretrained)
    monkeypatch.setenv("CLJAX_DATA", str(tmp_path))
    for name in ("gpt2", "gpt2-xl"):
        (tmp_path / name).mkdir()
    full = experiment.FULL
    found = experiment.run(tiny(full, steps=3, warm_up=1), jax.random.key(0), partial(train.fit, progress=False))
    assert set(found) == WRITTEN and (full.k, full.alpha, full.window, full.batch, full.steps, full.clip) == (5, 0.6, 256, 128, 40_000, 1.0)
    assert asked == [tmp_path / "gpt2", ("tfds:wiki40b/en", ("train[:5%]", "test[:10%]"), ("text",)), tmp_path / "gpt2-xl"]
    text = {"mean": None, "interval": None, "values": [[5.0] * 240]}
    number = {"mean": 0.5, "interval": None, "values": [0.5]}
    drawn = experiment.figures({"arms": {"full[k=5]": {"diversity": number, "coherence": number, "a text": text}}, "claims": []})
    assert set(drawn) == {"arms", "texts"} and "full[k=5]" in [entry.get_text() for entry in drawn["texts"].axes[0].texts]
