"""Locally Typical Sampling (Meister et al., TACL 2023; arXiv 2202.00666).

Likely text is dull and goes in circles, unlikely text rambles: what people write is about as surprising, token by token, as a model expects. So a
token is drawn from those whose surprisal is nearest to the entropy. Shown on a small language model of docstrings: how far entropy and surprisal of
held-out text are apart, and how much of what is written repeats itself, over the whole range of the filter's number, beside the nucleus and the k
likeliest tokens. With a small number those two go in circles; typical sampling does not.

    python experiments/typical_sampling.py --workers
    python experiments/typical_sampling.py --arm "typical 0.2" --set amount=0.05,0.1,0.2 --set lengths=24:40,24:100
    python experiments/typical_sampling.py --full --set method=typical,nucleus --set amount=0.2,0.95 --data-dir DIR

In full DIR holds `wiki40b/en` of TensorFlow Datasets and two folders of weights of GPT-2's family, `gpt2-large`, which is fine-tuned first, and
`gpt2-xl`, under which the perplexity of what is written is taken. (The paper's stories, WritingPrompts, are no set of TensorFlow Datasets.)
"""

import functools
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from cljax import core, data, decoding, encoders, metrics, samplers, study, train


@train.config
class Config:
    method: Literal["typical", "nucleus", "top-k", "temperature", "ancestral", "greedy", "beam", "held-out text"] = "typical"  # the last: people's
    amount: float = 0.95  # the mass that is kept at least, the k, the temperature, or the number of beams
    prompts: int = 48
    lengths: tuple[int, int] = (24, 40)  # tokens of a prompt, and written
    at_once: int = 48  # texts
    data: str = "docstrings"  # or a set of TensorFlow Datasets that has texts
    split: tuple[str, str] = ("train", "test")
    weights: str | None = None  # a folder of pretrained ones
    judge: str | None = None  # another, under which the perplexity is taken; None: the model itself
    vocabulary: int = 1000
    width: int = 64
    layers: int = 2
    window: int = 48  # tokens that the model learns from at once
    batch: int = 16
    steps: int = 450
    learning_rate: float = 1e-3
    warm_up: int = 50


FILTERS = {"typical": decoding.typical, "nucleus": decoding.top_p, "top-k": lambda k: decoding.top_k(int(k)), "temperature": decoding.temperature}
MASSES, COUNTS = (0.2, 0.3, 0.5, 0.7, 0.9, 0.95), (2, 5, 10, 20, 40, 80)
SERIES = {method: {n: f"{method} {n}" for n in (COUNTS if method == "top-k" else MASSES)} for method in ("typical", "nucleus", "top-k")}
ARMS = {arm: Config(method=method, amount=amount) for method, arms in SERIES.items() for amount, arm in arms.items()}
ARMS |= {method: Config(method=method) for method in ("ancestral", "greedy", "held-out text")} | {"beam 4": Config(method="beam", amount=4)}
EDGES = np.linspace(-10, 6, 65)  # of the histogram, in nats


@functools.cache
def corpus(name, split, weights, vocabulary, width, layers):
    """Tokens to learn from, held-out ones, a model, and its parameters where there are any."""
    if name == "docstrings":
        known, held_out, tokenizer = data.docstrings(vocabulary=vocabulary, key=jax.random.key(0))
        return known, held_out, encoders.Decoder(tokenizer.get_vocab_size(), width, layers, heads=4, positions="rotary"), None
    model, params, tokenizer = encoders.load_pretrained(data.pretrained(weights))
    return *data.token_streams(tokenizer, f"tfds:{name}", split=split), model, params


def write(config, key, model, params, prompts):
    if config.method == "beam":
        search = partial(decoding.beam_search, model.apply, params, steps=config.lengths[1], beams=int(config.amount), head=model.head)
        return encoders.in_parts(search, prompts, size=config.at_once)
    filter = FILTERS[config.method](config.amount) if config.method in FILTERS else None
    how = dict(steps=config.lengths[1], filter=filter, greedy=config.method == "greedy", head=model.head)
    draw = partial(decoding.generate, key, model.apply, params, **how)
    return encoders.in_parts(draw, prompts, index=np.arange(len(prompts)), size=config.at_once)


@partial(jax.jit, static_argnums=0)
def logits_of(model, params, texts):
    """What is predicted of each token of a text but the first."""
    return model.apply(params, texts)[1][:, :-1]


def deviation(model, params, texts):
    return metrics.entropy_deviation(logits_of(model, params, texts), texts[:, 1:])


@partial(jax.jit, static_argnums=(0, 1))
def deviations(model, size, params, texts):
    return encoders.in_parts(partial(deviation, model, params), texts, size=size)


@partial(jax.jit, static_argnums=(0, 1))
def perplexity(model, size, params, prompts, tokens):
    log_probs = encoders.in_parts(partial(decoding.continuation_log_probs, model.apply, params), prompts, tokens, size=size)
    return jnp.exp(-jnp.mean(log_probs))


@jax.jit
def kept(filter, logits):
    """How many tokens a filter leaves, and how often the likeliest is not among them."""
    left = filter(logits) > -jnp.inf
    best = jnp.take_along_axis(left, jnp.argmax(logits, axis=-1, keepdims=True), axis=-1)
    return {"tokens kept": jnp.mean(jnp.sum(left, axis=-1)), "likeliest dropped": jnp.mean(~best)}


def repetition(tokens):
    return {"rep-4": metrics.rep_n(tokens, 4), "diversity": metrics.diversity(tokens), "Zipf": metrics.zipf(tokens)}


def motive(config, model, params, held_out):
    """How far entropy and surprisal of held-out text are apart."""
    found = np.asarray(deviations(model, config.at_once, params, samplers.chunk_stream(held_out, config.window + 1))).ravel()
    density = np.histogram(found, EDGES, density=True)[0]
    return {"mean deviation": found.mean(), "median deviation": np.median(found), "sd of deviation": found.std(), "density": density}


def run(config, key, fit=train.fit):
    k_model, k_prompts, k_text = jax.random.split(key, 3)
    known, held_out, model, params = corpus(config.data, config.split, config.weights, config.vocabulary, config.width, config.layers)
    core.check.integer("prompts", config.prompts, at_least=1)
    if config.steps or params is None:
        how = dict(batch=config.batch, length=config.window, learning_rate=config.learning_rate, warm_up=config.warm_up)
        params, _ = train.language_model(k_model, model, known, steps=config.steps, params=params, fit=fit, **how)
    if config.method == "held-out text":
        return repetition(samplers.chunk_stream(held_out, config.lengths[1])) | motive(config, model, params, held_out)
    texts = jax.random.permutation(k_prompts, samplers.chunk_stream(held_out, sum(config.lengths)))[: config.prompts]
    prompts = texts[:, : config.lengths[0]]
    found = write(config, k_text, model, params, prompts)
    judge, known_by = encoders.load_pretrained(data.pretrained(config.judge))[:2] if config.judge else (model, params)
    results = repetition(found.tokens) | {"perplexity": perplexity(judge, config.at_once, known_by, prompts, found.tokens)}
    if config.method in FILTERS:
        results |= kept(FILTERS[config.method](config.amount), logits_of(model, params, texts[: config.at_once]))
    return results


def spread(metric, method, results):
    """The range of a metric over all that the method's number may be."""
    values = [results[arm][metric] for arm in SERIES[method].values()]
    return max(values) - min(values)


def steadier(than, results):
    return spread("rep-4", than, results) - spread("rep-4", "typical", results)


def nearer(than, results):
    """By how much typical sampling is nearer to the repetition of held-out text, on average over its range."""
    human = results["held-out text"]["rep-4"]
    away = {method: np.mean([abs(results[arm]["rep-4"] - human) for arm in SERIES[method].values()]) for method in ("typical", than)}
    return away[than] - away["typical"]


def skew(results):
    return results["held-out text"]["median deviation"] - results["held-out text"]["mean deviation"]


CLAIMS = [
    study.Claim("held-out text is as surprising as is expected", study.value("mean deviation", "held-out text"), -0.5, 0.5),
    study.Claim("most tokens are less so, a few much more", skew),
    study.Claim("repetition depends on the mass less than the nucleus does", partial(steadier, "nucleus"), expected=0.08),
    study.Claim("repetition depends on the mass less than top-k does on k", partial(steadier, "top-k")),
    study.Claim("a small nucleus goes in circles, a small mass does not", study.gain("rep-4", "nucleus 0.2", than="typical 0.2")),
    study.Claim("a small k goes in circles, a small mass does not", study.gain("rep-4", "top-k 2", than="typical 0.2")),
    study.Claim("paper: over its range it repeats as people do, more than the nucleus", partial(nearer, "nucleus")),
    study.Claim("paper: and more than top-k", partial(nearer, "top-k")),
]

PAPER = dict(data="wiki40b/en", split=("train[:2%]", "test[:10%]"), weights="gpt2-large", judge="gpt2-xl", window=512, batch=8, steps=5000)
FULL = Config(amount=0.2, prompts=1000, lengths=(40, 200), at_once=20, learning_rate=2e-5, warm_up=500, **PAPER)


def with_held_out(figure, report):
    """Draws the level of held-out text into each panel."""
    for panel in figure.axes if "held-out text" in report["arms"] else ():
        level = report["arms"]["held-out text"][panel.get_title()]["mean"]
        panel.axhline(level, color="0.4", linestyle=":")
        panel.annotate("held-out text", (1, level), (0, 2), ("axes fraction", "data"), "offset points", ha="right", fontsize=7)
    return figure


def figures(report):
    series = {method: {amount: arm for amount, arm in arms.items() if arm in report["arms"]} for method, arms in SERIES.items()}
    over_mass, over_k, drawn = {method: series[method] for method in ("typical", "nucleus")}, {"top-k": series["top-k"]}, {}
    if any(over_mass.values()):
        drawn["mass"] = with_held_out(study.trends(report, ["rep-4", "diversity"], over_mass, xlabel="mass that is kept"), report)
        drawn["kept"] = study.trends(report, ["tokens kept", "likeliest dropped"], over_mass, xlabel="mass that is kept")
    if any(over_k.values()):
        drawn["k"] = with_held_out(study.trends(report, ["rep-4", "diversity"], over_k, xlabel="k", log=True), report)
    if "held-out text" in report["arms"]:
        drawn["motive"] = study.curves(report, ["density"], ["held-out text"], x=EDGES[1:], xlabel="entropy minus surprisal, nats")
        drawn["motive"].axes[0].lines[0].set_drawstyle("steps-pre")
    return drawn or study.default_figures(report)


if __name__ == "__main__":
    study.main(run, ARMS, CLAIMS, full=FULL, figures=figures)
