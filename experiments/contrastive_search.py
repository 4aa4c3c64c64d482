"""Contrastive Search Is What You Need For Neural Text Generation (Su & Collier, TMLR 2023; arXiv 2210.14140).

The likeliest tokens go in circles, drawn ones ramble. Contrastive search takes, among the k likeliest tokens, one that is likely and whose state is
unlike those of all tokens before it; nothing is drawn. It needs states that do not all point the same way (isotropy). Where they do, a penalty in
training, SimCTG, moves them apart. Shown on small language models of docstrings, trained with and without it: how little they repeat themselves, over
how likely another model finds what they write.

    python experiments/contrastive_search.py --workers
    python experiments/contrastive_search.py --arm "SimCTG contrastive 5 0.6" --set alpha=0.2,0.4,0.8 --set k=3,5,10,20
    python experiments/contrastive_search.py --full --set simctg=true,false --set decoder=contrastive,greedy,nucleus --data-dir DIR

In full DIR holds `wiki40b/en` of TensorFlow Datasets and two folders of weights of GPT-2's family, `gpt2`, which is fine-tuned, and `gpt2-xl`, the
other model (the paper's, of OPT's family, has another vocabulary). The picture `texts` shows what each decoder makes of one prompt.
"""

import dataclasses
import functools
import textwrap
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from cljax import core, data, decoding, encoders, losses, metrics, samplers, study, train


@train.config
class Config:
    simctg: bool = False  # whether the model is trained with the penalty
    decoder: Literal["contrastive", "greedy", "beam", "nucleus", "top-k", "ancestral", "held-out text"] = "contrastive"  # the last: what people wrote
    k: int = 5  # candidates, of contrastive search and top-k; beams
    alpha: float = 0.6
    mass: float = 0.95  # of the nucleus
    drawn: int = 0  # so many tokens come from the nucleus before contrastive search goes on from there: it draws nothing itself
    margin: float = 0.5
    prompts: int = 32
    lengths: tuple[int, int] = (24, 40)  # tokens of a prompt, and written
    at_once: int = 32  # texts
    data: str = "docstrings"  # or a set of TensorFlow Datasets that has texts
    split: tuple[str, str] = ("train", "test")
    weights: str | None = None  # a folder of pretrained ones
    judge: str | None = None  # another; None: a model that is trained with another key
    vocabulary: int = 1000
    width: int = 64
    layers: int = 2
    window: int = 48  # tokens that the model learns from at once
    batch: int = 16
    steps: int = 450
    learning_rate: float = 1e-3
    warm_up: int = 50
    decay: bool = False
    clip: float | None = None


def decoders(training):
    """The arms of a way to train."""
    simctg = training == "SimCTG"
    arms = {f"{training} contrastive {k} {alpha}": Config(simctg, k=k, alpha=alpha) for k, alpha in ((5, 0.0), (5, 0.3), (5, 0.6), (10, 0.6))}
    arms |= {f"{training} nucleus {mass}": Config(simctg, "nucleus", mass=mass) for mass in (0.5, 0.95)}
    arms |= {f"{training} {name}": Config(simctg, name) for name in ("greedy", "ancestral", "held-out text")}
    return arms | {f"{training} top-k 40": Config(simctg, "top-k", k=40), f"{training} beam 4": Config(simctg, "beam", k=4)}


ARMS = decoders("MLE") | decoders("SimCTG")


@functools.cache
def corpus(name, split, weights, vocabulary, width, layers):
    """Tokens to learn from, held-out ones, a tokenizer, a model, and its parameters where there are any."""
    if name == "docstrings":
        known, held_out, tokenizer = data.docstrings(vocabulary=vocabulary, key=jax.random.key(0))
        return known, held_out, tokenizer, encoders.Decoder(tokenizer.get_vocab_size(), width, layers, heads=4, positions="rotary"), None
    model, params, tokenizer = encoders.load_pretrained(data.pretrained(weights))
    return *data.token_streams(tokenizer, f"tfds:{name}", split=split), tokenizer, model, params


def models(config, key, model, params, known, fit):
    """The model that writes and the one that judges, each a network and its parameters."""
    how = dict(batch=config.batch, length=config.window, learning_rate=config.learning_rate, warm_up=config.warm_up, fit=fit)
    how |= dict(steps=config.steps, decay=config.decay, clip=config.clip)
    penalty = partial(losses.simctg, margin=config.margin, axis_name="data") if config.simctg else None
    learnt, _ = train.language_model(key, model, known, params=params, penalty=penalty, **how)
    if config.judge:
        return (model, learnt), encoders.load_pretrained(data.pretrained(config.judge))[:2]
    return (model, learnt), (model, train.language_model(jax.random.fold_in(key, 1), model, known, name="judge", **how)[0])


def write(config, key, model, params, texts):
    """The tokens that follow upon the first ones of texts."""
    first, new = config.lengths
    if config.decoder == "held-out text":
        return texts[:, first:]
    if config.decoder == "contrastive":
        how = dict(steps=new - config.drawn, k=config.k, alpha=config.alpha, head=model.head)
        begun = texts[:, :first]
        if config.drawn:
            begun = np.concatenate([begun, drawn(config, key, model, params, begun, config.drawn, decoding.top_p(config.mass))], axis=1)
        found = encoders.in_parts(partial(decoding.contrastive_search, model.apply, params, **how), begun, size=config.at_once).tokens
        return np.concatenate([begun[:, first:], found], axis=1)
    if config.decoder == "beam":
        search = partial(decoding.beam_search, model.apply, params, steps=new, beams=config.k, head=model.head)
        return encoders.in_parts(search, texts[:, :first], size=config.at_once).tokens
    filter = {"nucleus": decoding.top_p(config.mass), "top-k": decoding.top_k(config.k)}.get(config.decoder)
    return drawn(config, key, model, params, texts[:, :first], new, filter)


def drawn(config, key, model, params, prompts, steps, filter):
    how = dict(steps=steps, filter=filter, greedy=config.decoder == "greedy", head=model.head)
    draw = partial(decoding.generate, key, model.apply, params, **how)
    return encoders.in_parts(draw, prompts, index=np.arange(len(prompts)), size=config.at_once).tokens


def likelihood(model, params, prompts, tokens):
    return metrics.coherence(decoding.continuation_logits(model.apply, params, prompts, tokens), tokens).values


@partial(jax.jit, static_argnums=(0, 1))
def coherence(model, size, params, prompts, tokens):
    return jnp.mean(encoders.in_parts(partial(likelihood, model, params), prompts, tokens, size=size))


def read(model, params, texts):
    """Of each text its tokens' surprisals, and the cosines between their states."""
    hidden, logits = model.apply(params, texts[:, :-1])
    return losses.token_cross_entropy(logits, texts[:, 1:]).values, *jax.vmap(metrics.isotropy_sums)(hidden)


@partial(jax.jit, static_argnums=(0, 1))
def quality(model, size, params, texts):
    surprisal, cosines, pairs = encoders.in_parts(partial(read, model, params), texts, size=size)
    return {"perplexity": jnp.exp(jnp.mean(surprisal)), "isotropy": 1 - jnp.sum(cosines) / jnp.sum(pairs)}


def run(config, key, fit=train.fit):
    core.check.integer("prompts", config.prompts, at_least=1)
    k_model, k_prompts, k_text = jax.random.split(key, 3)
    known, held_out, _, model, params = corpus(config.data, config.split, config.weights, config.vocabulary, config.width, config.layers)
    writer, (judge, known_by) = models(config, k_model, model, params, known, fit)
    texts = jax.random.permutation(k_prompts, samplers.chunk_stream(held_out, sum(config.lengths)))[: config.prompts]
    tokens, prompts = write(config, k_text, *writer, texts), texts[:, : config.lengths[0]]
    results = {"diversity": metrics.diversity(tokens), "coherence": coherence(judge, config.at_once, known_by, prompts, tokens)}
    results["a text"] = np.concatenate([prompts[0], tokens[0]])
    if config.decoder == "held-out text":
        results |= quality(model, config.at_once, writer[1], samplers.chunk_stream(held_out, config.window + 1))
    if config.decoder == "contrastive" and config.alpha == 0:
        greedy = write(dataclasses.replace(config, decoder="greedy"), k_text, *writer, texts)
        results["as greedy"] = np.mean(np.asarray(tokens == greedy))
    return results


def as_greedy(results):
    """The share of tokens that are greedy ones where alpha is 0."""
    return min(results[f"{training} contrastive 5 0.0"]["as greedy"] for training in ("MLE", "SimCTG"))


def worse_perplexity(results):
    """By what share SimCTG raises the perplexity of held-out text."""
    return results["SimCTG held-out text"]["perplexity"] / results["MLE held-out text"]["perplexity"] - 1


CLAIMS = [
    study.Claim("MLE: less repetition than greedy", study.gain("diversity", "MLE contrastive 5 0.6", than="MLE greedy"), 0.1, expected=0.237),
    study.Claim(
        "SimCTG: less repetition than greedy", study.gain("diversity", "SimCTG contrastive 5 0.6", than="SimCTG greedy"), 0.3, expected=0.562
    ),
    study.Claim("MLE: less with alpha", study.gain("diversity", "MLE contrastive 5 0.6", than="MLE contrastive 5 0.3"), expected=0.197),
    study.Claim("SimCTG: less with alpha", study.gain("diversity", "SimCTG contrastive 5 0.6", than="SimCTG contrastive 5 0.3"), expected=0.529),
    study.Claim("MLE: less with k", study.gain("diversity", "MLE contrastive 10 0.6", than="MLE contrastive 5 0.6"), expected=0.291),
    study.Claim("SimCTG: less with k", study.gain("diversity", "SimCTG contrastive 10 0.6", than="SimCTG contrastive 5 0.6"), expected=0.266),
    study.Claim("MLE: more coherent than the nucleus", study.gain("coherence", "MLE contrastive 5 0.6", than="MLE nucleus 0.95"), expected=1.88),
    study.Claim("MLE: more coherent than what is drawn", study.gain("coherence", "MLE contrastive 5 0.6", than="MLE ancestral"), expected=2.11),
    study.Claim("with alpha = 0 it is greedy, token by token", as_greedy, 1.0),
    study.Claim(
        "SimCTG: states point in more directions", study.gain("isotropy", "SimCTG held-out text", than="MLE held-out text"), 0.05, expected=0.16
    ),
    study.Claim("SimCTG: perplexity rises by 5 % at most", worse_perplexity, None, 0.05, expected=-0.14),
    study.Claim("SimCTG: less repetition", study.gain("diversity", "SimCTG contrastive 5 0.6", than="MLE contrastive 5 0.6"), 0.1, expected=0.324),
]

PAPER = dict(data="wiki40b/en", split=("train[:5%]", "test[:10%]"), weights="gpt2", judge="gpt2-xl", prompts=1000, lengths=(40, 200), at_once=20)
FULL = Config(simctg=True, window=256, batch=128, steps=40_000, learning_rate=2e-5, warm_up=4000, decay=True, clip=1.0, **PAPER)


def plane(report, training):
    """Diversity over coherence, the settings of a decoder joined."""
    series = {}
    for arm, config in ARMS.items():
        if arm in report["arms"] and arm.startswith(training):
            series.setdefault(config.decoder, {})[report["arms"][arm]["coherence"]["mean"]] = arm
    figure = study.trends(report, ["diversity"], series, xlabel=f"coherence after {training}, nats a token")
    figure.set_size_inches(6, 4)
    return figure


def passages(report, tokenizer, arms, first):
    """What follows upon one prompt."""
    figure = Figure(figsize=(12, 1 + 0.55 * len(arms)), layout="constrained")
    panel = figure.subplots()
    panel.axis("off")
    for place, arm in enumerate(arms):
        ids = np.array(report["arms"][arm]["a text"]["values"][0], int).tolist()
        prompt, text = (tokenizer.decode(part, skip_special_tokens=False) for part in (ids[:first], ids[first:]))
        if place == 0:
            panel.text(0, 1.02, textwrap.fill(prompt, 150), fontsize=8, va="bottom", weight="bold", parse_math=False)
        panel.text(0, 1 - place / len(arms), arm, fontsize=8, va="top", color="C0", parse_math=False)
        panel.text(0.2, 1 - place / len(arms), textwrap.fill(text, 130), fontsize=8, va="top", parse_math=False)
    return figure


def figures(report):
    drawn, full = {"arms": study.scores(report, ["diversity", "coherence"])}, [arm for arm in report["arms"] if arm.startswith("full")]
    arms, source = [arm for arm in ARMS if arm in report["arms"]], Config()
    if full:
        drawn["texts"] = passages(report, encoders.load_pretrained(data.pretrained(FULL.weights))[2], full, FULL.lengths[0])
    if arms:
        tokenizer = corpus(source.data, source.split, source.weights, source.vocabulary, source.width, source.layers)[2]
        drawn |= {f"plane {training}": plane(report, training) for training in ("MLE", "SimCTG")}
        drawn["texts"] = passages(report, tokenizer, arms, source.lengths[0])
    return drawn


if __name__ == "__main__":
    study.main(run, ARMS, CLAIMS, full=FULL, figures=figures)
