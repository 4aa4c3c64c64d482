"""Unsupervised Dense Information Retrieval with Contrastive Learning (Contriever, TMLR 2022; arXiv 2112.09118).

A retriever learns from raw text alone: two random crops of a text are a positive pair, and a queue of past keys, made by a slow copy of the encoder,
gives very many negatives. Shown on Python's standard library: the corpus is functions with their docstrings, never paired; the test asks for held-out
code by its docstring. Bars are the untrained encoder and the words that query and code share (BM25, tf-idf). The learnt encoder is then fine-tuned on
a few pairs: first against random negatives, then anew with some hard ones that the first model has mined.

The paper's orderings, cropping over the inverse cloze task and more negatives over fewer, are those of a transformer on much text. A bag of words
solves two crops by the words that they share, so they are not expected here; they are asked all the same.

    python experiments/contriever.py --workers
    python experiments/contriever.py --arm "crop + queue 2048" --set ratio=0.05:0.5,0.2:0.8 --set momentum=0.99,0.999
    python experiments/contriever.py --arm "crop + queue 2048" --set corpora=documented_code:verses --set exponent=0,1
    python experiments/contriever.py --arm untrained --arm "crop + queue 2048" --set corpora=documented_code:gramps/de/en --seeds 2
    python experiments/contriever.py --full --data-dir DIR
    python experiments/contriever.py --full --set corpora=wikipedia/20190301.en:c4/en --set evaluation=msmarco --set labels=500000 --data-dir DIR
    python experiments/contriever.py --full --set corpora=wiki40b/en:wiki40b/de --set weights=bert-base-multilingual-cased --data-dir DIR

With `verses` or `glosses` as a second corpus (running text, cut into chunks) its last rows are a second test: a verse in other wording, a word by its
definition; with `gramps/de/en` German is learnt from too, and a German message looks for its English one (ten languages are there). In full a corpus
is a set of TensorFlow Datasets that has texts, prepared in DIR, and what is evaluated lies in DIR/scifact (or another folder): `passages.jsonl`,
lines {"text": ...}, and `test.jsonl`, lines {"query": ..., "passage": the number of its line, from 0 on}; the labelled pairs are in `train.jsonl`, of
the same form. The paper begins with BERT's weights: `--set weights=bert-base-uncased` reads them from a folder in DIR.
"""

import math
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cljax import core, data, encoders, losses, memory, metrics, pairwise, retrieval, samplers, study, train, views


@train.config
class Config:
    cloze: bool = False  # the pair: a span and the rest of the text (inverse cloze task) instead of two crops
    keep: float = 0.0  # the probability that the span stays in the rest; 0.1 in the first paper of that task
    ratio: tuple[float, float] = (0.05, 0.5)  # the shares of a text that a crop may have
    change: Literal["delete", "replace"] | None = None  # what happens to tokens of a view
    rate: float = 0.1  # and to how many of them
    in_batch: bool = False  # the batch's other keys are the negatives, and the keys learn too
    queue: int = 2048
    momentum: float = 0.995
    key_dropout: bool = True  # in the slow encoder too, as it was in the released runs
    temperature: float = 0.05
    lexical: Literal["bm25", "tf_idf"] | None = None  # no encoder at all
    corpora: tuple[str, ...] = ("documented_code",)
    exponent: float = 0.0  # of their sizes, in how often each is drawn from
    evaluation: str | None = None  # a folder; None: docstrings and code
    split: tuple[int, int] = (2800, 1060)  # texts to learn from, and pairs held out
    length: int = 256
    vocabulary: int = 6000
    layers: int = 0  # of a transformer; 0: a bag of tokens
    features: int = 128
    weights: str | None = None  # a folder of pretrained ones
    learning_rate: float = 2e-3
    warm_up: int = 0  # steps in which the rate rises, before it falls to 0; 0: it is constant
    batch: int = 64
    steps: int = 300
    labels: int = 0  # pairs to fine-tune on
    hard: float = 0.1  # the probability of a hard negative instead of a random one
    mined: int = 30  # hard negatives of a query
    tuning_rate: float = 1e-3
    tuning_batch: int = 64
    tuning_steps: int = 100  # in each phase


ARMS = {"untrained": Config(steps=0), "BM25": Config(lexical="bm25"), "tf-idf": Config(lexical="tf_idf")}
ARMS |= {"crop, in batch": Config(in_batch=True), "ICT + queue 2048": Config(cloze=True)}
ARMS |= {f"crop + queue {size}": Config(queue=size) for size in (64, 512, 2048)}
ARMS |= {f"crop + {change} + queue 2048": Config(change=change) for change in ("delete", "replace")}
ARMS |= {"fine-tuned": Config(change="delete", labels=300), "fine-tuned from nothing": Config(steps=0, labels=300)}

LEAST, WATCHED = 4, ("R@1", "std", "mean_cosine", "effective_rank")  # tokens of a crop; what is seen in training


@study.shared
def documented(corpora, split, length, vocabulary, key):
    """A tokenizer, the tokens of each corpus to learn from, labelled pairs among them, the tests by name, and the words of the first test."""
    known, test = data.documented_search(split, key=key)
    documents = [f"{docstring}\n{code}" for docstring, code in zip(known.queries, known.passages, strict=True)]
    parts = {name: name.split("/") for name in corpora[1:]}
    others = {name: data.paired_search(one, features=columns or None, most=split[1]) for name, (one, *columns) in parts.items()}
    tokenizer = data.train_tokenizer([*documents, *(text for running, _ in others.values() for text in running)], vocabulary, kind="words")
    read = partial(data.tokenise_search, tokenizer, special_tokens=False)
    texts = [data.tokenise(tokenizer, documents, length=length, special_tokens=False)]
    labelled, tokens = read(known, test, lengths=(length, length))
    tests = {"": tokens}
    for name, (running, task) in others.items():
        chunks = samplers.chunk_stream(data.token_stream(tokenizer, running), length)
        texts.append(data.Tokens(chunks, np.ones(chunks.shape, bool)))
        (tests[f" of {name}"],) = read(task, lengths=(64, 64), allow_empty=True)
    return tokenizer, *jax.tree.map(jnp.asarray, (texts, labelled, tests)), [[data.words(text) for text in side] for side in test[:2]]


def small(config, key):
    """A tokenizer, no model yet, batches, labelled pairs and tests."""
    tokenizer, texts, labelled, tests, _ = documented(config.corpora, config.split, config.length, config.vocabulary, key)
    arrays, draw = jax.tree.map(lambda *sides: jnp.concatenate(sides), *texts)._asdict(), config.batch
    if len(texts) > 1:
        arrays |= {"sizes": jnp.array([len(ids) for ids, _ in texts]), "exponent": jnp.float32(config.exponent)}
        draw = partial(mixed, config.batch)
    return tokenizer, None, None, train.draws(arrays, draw), labelled, tests


def articles(config, key):
    """The same of large corpora, with the model and its parameters where they are pretrained."""
    sources = [data.builder(f"tfds:{name}").as_data_source("train") for name in config.corpora]
    if config.weights:
        model, params, tokenizer = encoders.load_pretrained(data.pretrained(config.weights), dtype=jnp.bfloat16)
        tokenizer.no_truncation()
    else:
        first = (row["text"].decode() for source in sources for row in source.__getitems__(range(min(len(source), 50_000))))
        model, params, tokenizer = None, None, data.train_tokenizer(first, config.vocabulary)
    shares = samplers.corpus_mixture(jnp.array([len(source) for source in sources]), config.exponent)
    batches = data.Chunks(sources, tokenizer, length=config.length, batch=config.batch, key=key, shares=shares)
    tasks = data.read_search(data.root() / config.evaluation, ("test", "train")[: 1 + (config.labels > 0)])
    test, *labelled = jax.tree.map(jnp.asarray, data.tokenise_search(tokenizer, *tasks, lengths=(config.length, config.length)))
    return tokenizer, model, params, batches, labelled[0] if labelled else None, {"": test}


def prepare(config, key):
    """The encoder, its parameters, what frames a text, batches to learn from, labelled pairs and tests."""
    k_data, k_init = jax.random.split(key)
    shipped = all(name.split("/")[0] in ("documented_code", *data.DATASETS) for name in config.corpora)
    tokenizer, model, params, *found = (small if shipped else articles)(config, k_data)
    frame = tuple(map(tokenizer.token_to_id, ("[CLS]", "[SEP]"))) if config.layers else None
    if model is None:
        size = tokenizer.get_vocab_size(), config.features
        deep = dict(layers=config.layers, heads=max(1, config.features // 64), max_length=config.length + 2, dropout=0.1, dtype=jnp.bfloat16)
        model = encoders.TextTransformer(*size, **deep) if config.layers else encoders.BagOfTokens(*size, normalise=True)
        params = jax.jit(model.init)(k_init, jnp.zeros((1, 8), jnp.int32))
    return model, params, frame, *found


def mixed(batch, key, arrays, t):
    row = samplers.mixture_rows(key, arrays["sizes"], batch, exponent=arrays["exponent"])
    return {"ids": arrays["ids"][row], "mask": arrays["mask"][row], "index": row}


def two_views(config, vocabulary, batch, key):
    """The positive pair of each text: ids and mask of the query, ids and mask of the key."""
    k_query, k_key, *k_change = jax.random.split(key, 4)
    texts, index = (batch["ids"], batch["mask"]), batch["index"]
    longest = max(LEAST, math.ceil(texts[0].shape[1] * config.ratio[1]))
    how = dict(index=index, ratio=config.ratio, at_least=LEAST, length=longest)
    if config.cloze:
        pair = views.inverse_cloze(k_query, *texts, keep=config.keep, **how)
    else:
        pair = [views.crop_tokens(k, *texts, **how) for k in (k_query, k_key)]
    if config.change == "delete":
        pair = [views.delete_tokens(k, *text, config.rate, index=index) for k, text in zip(k_change, pair, strict=True)]
    elif config.change == "replace":
        others = dict(to=None, vocabulary=vocabulary, share=0.0, random_share=1.0, index=index)
        pair = [(views.replace_tokens(k, *text, config.rate, **others)[0], text[1]) for k, text in zip(k_change, pair, strict=True)]
    return pair


def optimiser(rate, warm_up=0, steps=0):
    rate = train.rise_and_fall(rate, warm_up=warm_up, steps=steps) if warm_up else rate
    return optax.adamw(rate, b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.01)


def contrast(model, config, frame, variables, batch, key):
    """Against the queue with keys that the slow encoder makes, or against the batch with the texts of the keys, which then learn too."""
    k_views, k_query, k_keys = jax.random.split(key, 3)
    pair, params = two_views(config, model.vocab_size, batch, k_views), variables["params"]
    encode = partial(core.apply_with_dropout, model, index=batch["index"])
    query, keys = (text if frame is None else views.frame_tokens(*text, *frame) for text in pair)
    queries = encode(params, *query, key=k_query)
    if config.in_batch:
        keys, others = encode(params, *keys, key=jax.random.fold_in(k_query, 1)), {}
    else:  # the slow encoder moves before it makes the keys, as in the released code
        queue, slow = variables["queue"], memory.ema(config.momentum).update(variables["slow"], jax.lax.stop_gradient(params))
        keys = encode(slow.params, *keys, key=k_keys if config.key_dropout else None)
        others = dict(negatives=queue.keys, in_batch=False)
        variables = {"slow": slow, "queue": memory.queue(*queue.keys.shape).update(queue, keys, axis_name="data")}
    value = losses.info_nce(queries, keys, temperature=config.temperature, similarity="dot", axis_name="data", **others)
    return losses.mean(value, axis_name="data"), {}, variables


def labelled_batch(batch, hard, key, arrays, t):
    """Queries with their passage and one more, a random or a hard one."""
    task = arrays["task"]
    row = samplers.shuffled_batch(arrays["key"], len(task.answers), batch, t)
    own, other = task.answers[row], samplers.draw_hard_or_random(key, arrays["mined"][row], len(task.ids), share=hard)[:, 0]
    texts = {"query": [side[row] for side in task.queries]}
    texts |= {name: [side[which] for side in task.passages] for name, which in (("own", own), ("other", other))}
    return texts | {"ids": task.ids[own], "other ids": task.ids[other], "index": row}


def supervised(model, temperature, variables, batch, key):
    """Each query against its passage, all other passages of the batch and everybody's negatives."""
    encode = partial(core.apply_with_dropout, model, variables["params"], index=batch["index"])
    sides = [encode(*batch[side], key=jax.random.fold_in(key, n)) for n, side in enumerate(("query", "own", "other"))]
    who = dict(ids=batch["ids"], negative_ids=batch["other ids"], negatives_axis_name="data", axis_name="data", similarity="dot")
    return losses.mean(losses.info_nce(*sides[:2], negatives=sides[2], temperature=temperature, **who), axis_name="data"), {}


@partial(jax.jit, static_argnums=(0, 1))
def mine(model, k, params, task):
    who = dict(positives=task.answers, ids=task.ids[task.answers], key_ids=task.ids, similarity="dot")
    return samplers.mine_negatives(*(encoders.embed(model, params, *texts) for texts in task[:2]), k, **who).indices


def fine_tune(config, model, key, params, labelled, fit):
    """The model of the first phase, and that of the second, which starts anew from `params` with hard negatives that the first one mined."""
    k_order, k_fit = jax.random.split(key)
    queries, answers = jax.tree.map(lambda side: side[: config.labels], (labelled.queries, labelled.answers))
    task, mined, models = labelled._replace(queries=queries, answers=answers), jnp.full((len(answers), config.mined), -1), []
    draw = partial(labelled_batch, min(config.tuning_batch, config.labels), config.hard)
    how = dict(optimiser=partial(optimiser, config.tuning_rate), steps=config.tuning_steps, fit=fit)
    for phase in ("random negatives", "hard negatives"):
        mined = mine(model, config.mined, models[0], task) if models else mined
        batches = train.draws({"task": task, "key": k_order, "mined": mined}, draw)
        found, _ = train.minimise(k_fit, partial(supervised, model, config.temperature), {"params": params}, batches, name=phase, **how)
        models.append(found["params"])
    return models


def quality(scores, found, answers):
    """A query whose passage is not among the first 100 has 0."""
    return jax.tree.map(jnp.mean, metrics.retrieval_summary(scores, answers, found, ndcg=(10,)))


@partial(jax.jit, static_argnums=0)
def evaluate(model, params, test):
    queries, passages = (encoders.embed(model, params, *texts) for texts in test[:2])
    return quality(*pairwise.top_k(queries, passages, min(100, len(passages))), test.answers) | metrics.collapse_watch(passages[:256])


@partial(jax.jit, static_argnums=0)
def between_crops(model, params, texts, key):
    """How often a crop of a text finds the other crop: the task that was trained, on what is held out."""
    pair = [encoders.embed(model, params, *views.crop_tokens(k, *texts, at_least=LEAST)) for k in jax.random.split(key)]
    return jnp.mean(pairwise.top_k(*pair, 1)[1][:, 0] == jnp.arange(len(pair[0])))


def watch(model, test, key, state):
    return state, evaluate(model, state["variables"]["params"], test)


def run(config, key, fit=train.fit):
    k_data, k_init, k_fit, k_tune, k_test = jax.random.split(key, 5)
    if config.lexical:
        *_, words = documented(config.corpora, config.split, config.length, config.vocabulary, jax.random.split(k_data)[0])
        scores = jnp.asarray(getattr(retrieval, config.lexical)(*words))
        return quality(*jax.lax.top_k(scores, min(100, len(scores))), jnp.arange(len(scores)))
    model, params, frame, batches, labelled, tests = prepare(config, k_data)
    before, found = evaluate(model, params, tests[""]), {}
    if config.steps:
        variables = {"params": params}
        if not config.in_batch:
            variables |= {"slow": memory.ema(config.momentum).init(params), "queue": memory.queue(config.queue, model.features).init(k_init)}
        chosen, after = partial(optimiser, config.learning_rate, config.warm_up, config.steps), partial(watch, model, tests[""])
        how = dict(optimiser=chosen, steps=config.steps, after=((max(1, config.steps // 6), after),), fit=fit)
        variables, history = train.minimise(k_fit, partial(contrast, model, config, frame), variables, batches, **how)
        params, found = variables["params"], study.over_steps(history, {name: before[name] for name in WATCHED})
    if config.labels:
        first, tuned = fine_tune(config, model, k_tune, params, labelled, fit)
        for name, those in (("before", params), ("random negatives", first)):
            values = evaluate(model, those, tests[""])
            found |= {f"{metric} {name}": values[metric] for metric in ("R@1", "MRR")}
        params = tuned
    for name, test in tests.items():
        values = evaluate(model, params, test) | {"R@1 between crops": between_crops(model, params, test[0 if name else 1], k_test)}
        found |= {f"{metric}{name}": value for metric, value in values.items()}
    return found


def least_over_double(results):
    """By how much the weakest arm that learnt without labels is above twice the untrained one."""
    unsupervised = [arm for arm, config in ARMS.items() if config.steps and not config.labels and not config.lexical]
    return min(results[arm]["R@1"] for arm in unsupervised) - 2 * results["untrained"]["R@1"]


CLAIMS = [
    study.Claim("without labels every arm has more than twice the recall of the untrained one", least_over_double, expected=0.1),
    study.Claim("crops in the batch reach tf-idf, but for 3 points", study.gain("R@1", "crop, in batch", than="tf-idf"), -0.03, None, -0.008),
    study.Claim("batch and queue are within 10 points", study.gain("R@1", "crop, in batch", than="crop + queue 2048"), -0.1, 0.1),
    study.Claim("paper, full scale: cropping beats the inverse cloze task", study.gain("MRR", "crop + queue 2048", than="ICT + queue 2048")),
    study.Claim("paper, full scale: a larger queue is better", study.gain("MRR", "crop + queue 2048", than="crop + queue 64")),
    study.Claim("paper, full scale: deletion helps", study.gain("MRR", "crop + delete + queue 2048", than="crop + queue 2048")),
    study.Claim("paper, full scale: deletion beats replacement", study.gain("MRR", "crop + delete + queue 2048", than="crop + replace + queue 2048")),
    study.Claim("paper: with few labels pre-training helps", study.gain("MRR", "fine-tuned", than="fine-tuned from nothing")),
    study.Claim("paper: some hard negatives help", study.gain("MRR", "fine-tuned", over="MRR random negatives")),
]

MODEL = dict(vocabulary=30522, layers=12, features=768, queue=131072, momentum=0.9995)
TRAINING = dict(learning_rate=5e-5, warm_up=20_000, batch=2048, steps=500_000, tuning_rate=1e-5, tuning_batch=1024, tuning_steps=20_000)
FULL = Config(corpora=("wikipedia/20190301.en",), evaluation="scifact", change="delete", **MODEL, **TRAINING)


def figures(report):
    drawn = {"arms": study.scores(report, ["R@1", "R@10", "MRR"])}
    watched = [arm for arm, found in report["arms"].items() if "R@1 over steps" in found and "fine" not in arm]
    if watched:
        names = [f"{name} over steps" for name in WATCHED]
        drawn["training"] = study.curves(report, names, watched, first=0, xlabel="sixth of training")
    return drawn


if __name__ == "__main__":
    study.main(run, ARMS, CLAIMS, full=FULL, figures=figures)
