"""A RECONSTRUCTION of DebCSE: Rethinking Unsupervised Contrastive Sentence Embedding Learning in the Debiasing Perspective (CIKM 2023; 2309.07396).

Only the paper's abstract was at hand, and no code: the sampler's weights, the surface measure, the loss and the settings are this script's, built of
standard parts. A sentence as its own positive (SimCSE) teaches an encoder that sentences of equal length and equal words belong together. Here the
positive is drawn from the nearest neighbours of a frozen scorer by an inverse propensity, what it means over how alike it looks, and so may a hard
negative be. Shown on sentences that are made with just this bias: three concepts of a topic, each in one of four synonyms, among filler words; the
encoder, a mean of word vectors, sees the length besides. The scorer is a factorisation of which words stand together (PPMI-SVD).

    python experiments/debcse.py --workers
    python experiments/debcse.py --arm "IPW positives" --set clip=0.02,0.05,0.2 --set candidate_temperature=0.05,0.1
    python experiments/debcse.py --set data=verses --seeds 2
    python experiments/debcse.py --set data=verses --set scorer=all-minilm-l6-v2 --seeds 2
    python experiments/debcse.py --full --data-dir DIR

`data=verses` learns from verses of the World English Bible and looks for the King James wording of held-out ones (`data=glosses`, where those are not
to be had: for the second half of a definition by its first). There debiasing is a tie with the scorer's plain choice: what is claimed is claimed of
the made sentences. `scorer` may be "all-minilm-l6-v2", or a folder in DIR with another pretrained sentence encoder. In full DIR holds
`wikipedia/20190301.en` and `glue/stsb` of TensorFlow Datasets, and two folders of weights: `bert-base-uncased`, and an unsupervised SimCSE of it as
the scorer. The parameters are those of the best correlation on the development set of STS-B; `--set evaluation=sts.jsonl` reports theirs on other
pairs, a table in DIR with the columns sentence1, sentence2 and label.
"""

import dataclasses
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cljax import core, data, encoders, losses, metrics, pairwise, retrieval, samplers, study, train, views


@train.config
class Config:
    positives: Literal["nearest", "semantic", "ipw"] = "ipw"  # among the neighbours: semantic by what they mean, ipw over how alike they look
    negatives: Literal["random", "ipw"] = "random"  # one more an anchor
    mixing: float = 0.0  # the share of anchors that are their own positive; 1 is SimCSE
    weighted: bool = False  # neighbours are drawn evenly and their pairs weighted in the loss, instead of drawn by weight
    neighbours: int = 20
    candidate_temperature: float = 0.1
    clip: float = 0.05
    too_similar: float = 0.3  # what the scorer takes for nearer than this is no negative
    pool: int = 200  # random sentences among which a negative is drawn
    data: str = "concepts"  # made with the bias; or "verses", "glosses", a set of TensorFlow Datasets that has texts
    evaluation: str = "glue/stsb"  # with such a set: pairs with scores of people, another set or a table in DIR
    selection: str | None = None  # such pairs by which the best parameters are chosen while training goes on; None: the last ones are taken
    evaluations: int = 5  # while it goes on
    scorer: str = "ppmi"  # or a pretrained encoder
    weights: str | None = None  # a folder of a transformer to train; None: word vectors, and one for the length
    split: tuple[int, int] = (2000, 1000)  # sentences to learn from, and held out
    known: int = 10_000  # real sentences that the scorer is made of
    vocabulary: int = 3000
    features: int = 32
    length: int = 40
    length_cue: float = 0.5  # the deviation of the lengths' vectors at first; on real text their size, in that of a sentence's mean
    word_dropout: float = 0.1
    dropout: float = 0.1
    temperature: float = 0.05
    learning_rate: float = 3e-3
    batch: int = 64
    steps: int = 500


ARMS = {"untrained": Config(steps=0), "SimCSE": Config(mixing=1.0), "nearest": Config(positives="nearest")}
ARMS |= {"semantic": Config(positives="semantic"), "IPW positives": Config(), "IPW both": Config(negatives="ipw")}
ARMS |= {"IPW as weights": Config(weighted=True), "IPW and SimCSE": Config(mixing=0.5)}
SEMANTIC = [arm for arm in ARMS if arm not in ("untrained", "SimCSE", "IPW and SimCSE")]

TOPICS, CONCEPTS, SYNONYMS, FILLERS, MOST_FILLERS, PAIRS = 12, 5, 4, 40, 9, 20_000


def as_text(ids, mask, special=(), keep=False):
    """Sentences as arrays: ids, which of them to encode, the set of those that are words (each where it first stands), lengths."""
    known = mask & ~np.isin(ids, special)
    first = [known[:, n] & ~(known[:, :n] & (ids[:, :n] == ids[:, n : n + 1])).any(axis=1) for n in range(ids.shape[1])]
    return {"ids": ids, "mask": mask if keep else known, "set": np.stack(first, axis=1), "length": mask.sum(axis=1).astype(np.int32)}


def take(text, rows):
    return {name: array[rows] for name, array in text.items()}


def overlap(a, b):
    """The Jaccard similarity of two sets of tokens."""
    both = jnp.sum((a["ids"][:, None] == b["ids"]) & a["set"][:, None] & b["set"])
    return both / jnp.maximum(jnp.sum(a["set"]) + jnp.sum(b["set"]) - both, 1)


overlaps = jax.jit(jax.vmap(overlap))


def concepts(split, draw):
    """Sentences whose length and filler words say nothing of what they mean, and pairs of held-out ones with the overlap of their concepts."""
    total, many = sum(split), TOPICS * CONCEPTS
    chosen = np.argsort(draw.random((total, CONCEPTS)), axis=1)[:, :3] + CONCEPTS * draw.integers(TOPICS, size=(total, 1))
    chosen[:, 2] = np.where(draw.random(total) < 0.2, draw.integers(many, size=total), chosen[:, 2])
    zipf = 1 / np.arange(1, FILLERS + 1)
    fillers = 1 + many * SYNONYMS + draw.choice(FILLERS, (total, MOST_FILLERS), p=zipf / zipf.sum())
    ids = np.concatenate([1 + SYNONYMS * chosen + draw.integers(SYNONYMS, size=(total, 3)), fillers], axis=1)
    mask = np.arange(ids.shape[1]) < 3 + draw.integers(MOST_FILLERS + 1, size=(total, 1))
    text, meaning = as_text(ids.astype(np.int32) * mask, mask), as_text(chosen, np.ones(chosen.shape, bool))
    first = np.arange(PAIRS) % split[1]
    second = split[0] + (first + draw.integers(1, split[1], size=PAIRS)) % split[1]
    first = split[0] + first
    gold = np.asarray(overlaps(take(meaning, first), take(meaning, second)))
    test = {"first": take(text, first), "second": take(text, second), "gold": gold}
    return {"text": take(text, slice(split[0])), "known": take(text, slice(split[0])), "size": 1 + many * SYNONYMS + FILLERS, "test": test}


def sentences(config, key):
    """Real sentences, and held-out pairs of texts: those of a pair are to find each other, or have a score of how similar people find them."""
    if config.data in data.DATASETS:
        return *data.sentence_pairs(config.data, known=config.known, held_out=config.split[1], key=key, most=config.length), None
    source = data.builder(f"tfds:{config.data}").as_data_source("train")
    return data.sample_sentences(source, config.split[0], key=key), *data.scored_pairs(config.evaluation)


def spelt(tokenizer, texts, length, frame):
    ids, mask = data.tokenise(tokenizer, texts, length=length, special_tokens=frame, allow_empty=True)
    return as_text(ids, mask, special=list(tokenizer.get_added_tokens_decoder()), keep=frame)


@study.shared
def corpus(config, key):
    """What the arms of a seed share: sentences, the test, what the encoder begins with, the scorer's neighbours of each sentence."""
    draw, model, texts = np.random.default_rng(jax.random.key_data(key).tolist()), None, None
    if config.data == "concepts":
        found = concepts(config.split, draw)
    else:
        texts, first, second, gold = sentences(config, jax.random.key(draw.integers(2**31)))
        if config.weights:
            model, params, tokenizer = encoders.load_pretrained(data.pretrained(config.weights))
        else:
            tokenizer = data.train_tokenizer(texts, config.vocabulary, kind="words")
        read = partial(spelt, tokenizer, length=config.length, frame=model is not None)
        known, texts = read(texts), texts[: config.split[0]]
        found = {"text": take(known, slice(config.split[0])), "known": known, "size": tokenizer.get_vocab_size()}
        found["test"] = {"first": read(first), "second": read(second)} | ({} if gold is None else {"gold": gold})
        if config.selection:
            first, second, gold = data.scored_pairs(config.selection)
            found["selection"] = {"first": read(first), "second": read(second), "gold": gold}
    if model is None:
        vectors = data.ppmi_vectors(found["known"]["ids"], found["known"]["set"], found["size"], config.features)
        vectors = vectors if texts is None else np.asarray(core.safe_normalize(vectors))
        means = bag({"words": vectors}, found["text"])
        deviation = config.length_cue * (1 if texts is None else np.linalg.norm(means, axis=1).mean() / config.features**0.5)
        lengths = deviation * draw.normal(size=(found["text"]["ids"].shape[1] + 1, config.features))
        params, scored = {"words": jnp.float32(vectors), "lengths": jnp.float32(lengths)}, means - means.mean(axis=0)
    if config.scorer != "ppmi":
        if texts is None:
            raise ValueError(f"scorer={config.scorer!r} reads text, and the sentences of data={config.data!r} are made of numbers")
        scorer, its_params, tokenizer = encoders.load_pretrained(data.pretrained(config.scorer))
        scored = embed(scorer, its_params, spelt(tokenizer, texts, 64, frame=True))
    unit, count = core.safe_normalize(scored), min(config.neighbours, len(scored) - 1)
    similarity, neighbours = retrieval.search(unit, unit, count, exclude=np.arange(len(unit)), progress=False)
    found |= {"text": jax.tree.map(jnp.asarray, found["text"]), "neighbours": jnp.asarray(neighbours, jnp.int32)}
    surface = surfaces({name: found["text"][name] for name in ("ids", "set")}, found["neighbours"])
    return found | {"model": model, "params": params, "scored": unit, "similarity": similarity, "surface": surface}


@jax.jit
def surfaces(text, neighbours):
    """How alike each sentence and its neighbours look, `[N, K]`."""
    return jax.lax.map(lambda row: jax.vmap(overlap, (None, 0))(row[0], take(text, row[1])), (text, neighbours), batch_size=256)


def log_weights(config, similarity, surface):
    """By which weights a sentence's neighbours become its positive."""
    if config.positives == "ipw":
        return samplers.inverse_propensity(similarity, surface, kind="positive", temperature=config.candidate_temperature, clip=config.clip)
    if config.positives == "semantic":
        return similarity / config.candidate_temperature
    return jnp.where(jnp.arange(similarity.shape[1]) == 0, jnp.zeros_like(similarity), -jnp.inf)


def draw(config, key, arrays, t):
    """Anchors in epochs, for each a positive and a negative."""
    k_positive, k_own, k_pool, k_negative = jax.random.split(key, 4)
    text, total = arrays["text"], len(arrays["text"]["ids"])
    index = samplers.shuffled_batch(arrays["order"], total, config.batch, t)
    places = samplers.draw_weighted(k_positive, arrays["log_weights"][index], index=index)[:, 0]
    own = jax.random.uniform(k_own, index.shape) < config.mixing
    positive = jnp.where(own, index, arrays["neighbours"][index, places])
    others = config.pool if config.negatives == "ipw" else 1
    negative = (index[:, None] + jax.random.randint(k_pool, (config.batch, others), 1, total)) % total
    if config.negatives == "ipw":
        similarity = jnp.einsum("bd,bpd->bp", arrays["scored"][index], arrays["scored"][negative])
        surface = jax.vmap(jax.vmap(overlap, (None, 0)))(take(text, index), take(text, negative))
        options = dict(kind="negative", clip=config.clip, where=similarity < config.too_similar)
        place = samplers.draw_weighted(k_negative, samplers.inverse_propensity(similarity, surface, **options), index=index)
        negative = jnp.take_along_axis(negative, jnp.maximum(place, 0), axis=1)  # where all are too similar, any
    weight = jnp.where(own, 1.0, arrays["weights"][index, places])
    return {"texts": take(text, jnp.stack([index, positive, negative[:, 0]], axis=1)), "index": index, "weight": weight}


@jax.jit
def bag(params, text):
    """The mean of the words' vectors, with the vector of the length where there are any."""
    mask = text["mask"][..., None]
    mean = jnp.sum(jnp.where(mask, params["words"][text["ids"]], 0), axis=1) / jnp.maximum(jnp.sum(mask, axis=1), 1)
    return mean + params["lengths"][text["length"]] if "lengths" in params else mean


def dropped(config, params, key, text):
    """A sentence's vector without some words and some entries."""
    text = {name: side[None] for name, side in text.items()}
    length, width = text["ids"].shape[1], params["words"].shape[1]
    chance = jax.random.uniform(key, (length + width,))
    z = bag(params, text | {"mask": text["mask"] & (chance[:length] >= config.word_dropout)})[0]
    return jnp.where(chance[length:] >= config.dropout, z / (1 - config.dropout), 0)


def encode(model, config, params, text, index, key):
    """Embeddings in training: what is dropped of an example hangs on its own index."""
    if model is None:
        return views.per_example(partial(dropped, config, params), key, text, index=index)
    return core.apply_with_dropout(model, params, text["ids"], text["mask"], key=key, index=index)


def embed(model, params, text):
    return bag(params, text) if model is None else encoders.embed(model, params, text["ids"], text["mask"], size=64)


def objective(params, model, config, batch, key):
    three = jax.vmap(partial(encode, model, config, params), (1, None, 0))
    anchors, positives, negatives = three(batch["texts"], batch["index"], jax.random.split(key, 3))
    others = dict(negatives=negatives, negatives_axis_name="data", axis_name="data")
    return losses.mean(batch["weight"] * losses.info_nce(anchors, positives, temperature=config.temperature, **others), axis_name="data")


def step(model, config, state, batch, key):
    value, grads = jax.value_and_grad(objective)(state["params"], model, config, batch, key)
    params, opt = train.descend(optax.adam(config.learning_rate), grads, state["params"], state["opt"], axis_name="data")
    return state | {"params": params, "opt": opt}, {"loss": value}


@partial(jax.jit, static_argnums=0)
def measure(model, params, test):
    """What is known of the test's pairs."""
    first, second = (embed(model, params, test[side]) for side in ("first", "second"))
    found = {"uniformity": -metrics.uniformity(first[:1000])}
    lengths, others = test["first"]["length"], test["second"]["length"]
    if "gold" in test:
        found["Spearman"] = metrics.sts_spearman(first, second, test["gold"])
    else:  # the first of a pair looks for the second, and has nothing to do with the second of the next pair
        found["R@1"] = jnp.mean(pairwise.top_k(first, second, 1, similarity="cosine")[1][:, 0] == jnp.arange(len(first)))
        second, others = (jnp.roll(side, 1, axis=0) for side in (second, others))
    cosine = 1 - losses.alignment(first, second) / 2
    unlike = test["gold"] == 0 if "gold" in test else None
    return found | {"length bias": metrics.length_bias(cosine, lengths, others, where=unlike)}


def evaluate(model, test, key, state):
    return state, measure(model, state["params"], test)


def run(config, key, fit=train.fit):
    k_data, k_order, k_fit = jax.random.split(key, 3)
    shared = dataclasses.replace(Config(), **{name: getattr(config, name) for name in SHARED})
    found = corpus(shared, k_data)
    model, params, test = found["model"], found["params"], found["test"]
    weights = log_weights(config, found["similarity"], found["surface"])
    chosen = jax.nn.softmax(weights)
    arrays = {"text": found["text"], "neighbours": found["neighbours"], "order": k_order}
    arrays["log_weights"] = jnp.zeros_like(weights) if config.weighted else weights
    arrays["weights"] = chosen * chosen.shape[1] if config.weighted else jnp.ones_like(chosen)
    arrays |= {"scored": found["scored"]} if config.negatives == "ipw" else {}
    config = dataclasses.replace(config, positives="", weighted=False)  # all that they do is in the arrays: arms share a program
    state = {"params": params, "opt": optax.adam(config.learning_rate).init(params)}
    if config.selection:
        state["best"] = train.best_slot(params)
    watched = found.get("selection", test)
    results, hook = measure(model, params, watched), partial(evaluate, model, watched)
    if config.steps:
        hook = train.keep_best(hook, "Spearman") if config.selection else hook
        after = ((max(1, config.steps // config.evaluations), hook),)
        state, history = fit(k_fit, state, partial(step, model, config), train.draws(arrays, partial(draw, config)), steps=config.steps, after=after)
        results = study.over_steps(history, results)
    results |= measure(model, state["best"].params, test) if config.selection else {}
    return results | {"surface of positives": config.mixing + (1 - config.mixing) * jnp.mean(jnp.sum(chosen * found["surface"], axis=1))}


SHARED = ("data", "evaluation", "selection", "scorer", "weights", "split", "known", "vocabulary", "features", "length", "length_cue", "neighbours")


QUALITY = ("Spearman", "R@1")  # which of them there is hangs on the data
CLAIMS = [
    study.Claim("any semantic positive beats SimCSE", study.margin(QUALITY, SEMANTIC, than=["SimCSE"]), at_least=0.04, expected=0.06),
    study.Claim("undoing the propensity costs no quality", study.gain(QUALITY, "IPW positives", than="semantic"), at_least=-0.002, expected=0.003),
    study.Claim("undoing the propensity lowers the length bias", study.gain("length bias", "semantic", than="IPW positives"), 0.01, expected=0.04),
    study.Claim("SimCSE has more of it", study.gain("length bias", "SimCSE", than="IPW positives"), at_least=0.1, expected=0.18),
    study.Claim("IPW negatives are no better than random ones", study.gain(QUALITY, "IPW both", than="IPW positives"), None, 0.004, expected=0.0),
]
CLAIMS = [dataclasses.replace(claim, name=f"(reconstruction) {claim.name}") for claim in CLAIMS]

TEXTS = dict(data="wikipedia/20190301.en", split=(1_000_000, 0), length=32, scorer="unsup-simcse-bert-base-uncased")
TRAINING = dict(weights="bert-base-uncased", learning_rate=3e-5, steps=15_625, selection="glue/stsb", evaluations=125)
FULL = Config(negatives="ipw", **TEXTS, **TRAINING)


def figures(report):
    main = next(name for name in QUALITY if any(name in arm for arm in report["arms"].values()))
    curves = [f"{name} over steps" for name in (main, "length bias", "uniformity")]
    trained = [arm for arm in report["arms"] if "untrained" not in arm]
    return {
        "arms": study.scores(report, [main, "length bias", "surface of positives", "uniformity"]),
        "training": study.curves(report, curves, trained, xlabel="evaluation, the first before training"),
    }


if __name__ == "__main__":
    study.main(run, ARMS, CLAIMS, full=FULL, figures=figures)
