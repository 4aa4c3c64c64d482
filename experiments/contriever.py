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

import functools
import math
from functools import partial

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
    change: str | None = None  # what happens to tokens of a view: "delete", "replace"
    rate: float = 0.1  # and to how many of them
    in_batch: bool = False  # the batch's other keys are the negatives, and the keys learn too
    queue: int = 2048
    momentum: float = 0.995
    key_dropout: bool = True  # in the slow encoder too, as it was in the released runs
    temperature: float = 0.05
    lexical: str | None = None  # no encoder at all: "bm25", "tf_idf"
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

LEAST = 4  # tokens of a crop


def columns(name):
    """The two texts of a shipped set, which begin as `verses` or, where others are meant, as `verses/web/kjv`."""
    name, *features = name.split("/")
    return data.load(name, features=features or None)


@functools.lru_cache(maxsize=8)  # the arms of a seed share it
def documented(corpora, split, length, vocabulary, seed):
    """Tokens to learn from, labelled pairs among them, the tests by name, and the words of the first test."""
    known, test = data.documented_search(split, key=jax.random.wrap_key_data(jnp.uint32(seed)))
    documents = [f"{docstring}\n{code}" for docstring, code in zip(known.queries, known.passages, strict=True)]
    others = {name: columns(name) for name in corpora[1:]}
    running = {name: texts[: len(texts) * 9 // 10] for name, (texts, _) in others.items()}
    tokenizer = data.train_tokenizer([*documents, *(text for texts in running.values() for text in texts)], vocabulary, kind="words")
    read = partial(data.tokenise_search, tokenizer, special_tokens=False)
    texts = [data.tokenise(tokenizer, documents, length=length, special_tokens=False)]
    labelled, tokens = read(known, test, lengths=(length, length))
    tests = {"": tokens}
    for name, sides in others.items():
        chunks = samplers.chunk_stream(data.token_stream(tokenizer, running[name]), length)
        texts.append((chunks, np.ones(chunks.shape, bool)))
        held = [side[len(running[name]) :][: split[1]] for side in sides]
        rows = np.arange(len(held[0]))
        (tests[f" of {name}"],) = read(data.SearchTask(*held, rows, rows), lengths=(64, 64), allow_empty=True)
    words = [[data.words(text) for text in side] for side in test[:2]]
    return tokenizer, *jax.tree.map(jnp.asarray, (texts, labelled, tests)), words


def articles(config, key):
    """The same of large corpora: a tokenizer, a model where it is pretrained, batches, labelled pairs, the test."""
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
    if all(name.split("/")[0] in ("documented_code", *data.DATASETS) for name in config.corpora):
        seed = tuple(jax.random.key_data(k_data).tolist())
        tokenizer, texts, labelled, tests, _ = documented(config.corpora, config.split, config.length, config.vocabulary, seed)
        ids, mask = (jnp.concatenate(side) for side in zip(*texts, strict=True))
        arrays, draw = {"ids": ids, "mask": mask}, config.batch
        if len(texts) > 1:
            arrays |= {"sizes": jnp.array([len(ids) for ids, _ in texts]), "exponent": jnp.float32(config.exponent)}
            draw = partial(mixed, config.batch)
        batches, model, params = train.draws(arrays, draw), None, None
    else:
        tokenizer, model, params, batches, labelled, tests = articles(config, k_data)
    frame = tuple(map(tokenizer.token_to_id, ("[CLS]", "[SEP]"))) if config.layers else None
    if model is None:
        size = tokenizer.get_vocab_size(), config.features
        deep = dict(layers=config.layers, heads=max(1, config.features // 64), max_length=config.length + 2, dropout=0.1, dtype=jnp.bfloat16)
        model = encoders.TextTransformer(*size, **deep) if config.layers else encoders.BagOfTokens(*size, normalise=True)
        params = jax.jit(model.init)(k_init, jnp.zeros((1, 8), jnp.int32))
    return model, params, frame, batches, labelled, tests


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


def framed(frame, ids, mask):
    """`[CLS] … [SEP]` about each text that begins at the front; for a bag of tokens they say nothing."""
    if frame is None:
        return ids, mask
    places, end = jnp.arange(ids.shape[1] + 2), jnp.sum(mask, axis=1, keepdims=True) + 1
    ids = jnp.pad(ids, ((0, 0), (1, 1))).at[:, 0].set(frame[0])
    return jnp.where(places == end, frame[1], ids), places <= end


def encode(model, params, text, index, key):
    return core.apply_with_dropout(model, params, *text, key=key, index=index)


def optimiser(rate, warm_up=0, steps=0):
    rate = train.rise_and_fall(rate, warm_up=warm_up, steps=steps) if warm_up else rate
    return optax.adamw(rate, b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.01)


def objective(params, model, config, query, keys, queue, index, key):
    """Against the queue with keys that are made, or against the batch with the texts of the keys, which then learn too."""
    queries = encode(model, params, query, index, key)
    if config.in_batch:
        keys, others = encode(model, params, keys, index, jax.random.fold_in(key, 1)), dict(axis_name="data")
    else:
        others = dict(negatives=queue.keys, in_batch=False, axis_name="data")
    return losses.mean(losses.info_nce(queries, keys, temperature=config.temperature, similarity="dot", **others), axis_name="data")


def step(model, config, frame, state, batch, key):
    k_views, k_query, k_keys = jax.random.split(key, 3)
    query, keys = (framed(frame, *text) for text in two_views(config, model.vocab_size, batch, k_views))
    slow, queue = state["slow"], state["queue"]
    if not config.in_batch:  # the slow encoder moves before it makes the keys, as in the released code
        slow = memory.ema(config.momentum).update(slow, state["params"])
        keys = jax.lax.stop_gradient(encode(model, slow.params, keys, batch["index"], k_keys if config.key_dropout else None))
    value, grads = jax.value_and_grad(objective)(state["params"], model, config, query, keys, queue, batch["index"], k_query)
    chosen = optimiser(config.learning_rate, config.warm_up, config.steps)
    params, opt = train.descend(chosen, grads, state["params"], state["opt"], axis_name="data")
    if not config.in_batch:
        queue = memory.queue(*queue.keys.shape).update(queue, keys, axis_name="data")
    return {"params": params, "opt": opt, "slow": slow, "queue": queue}, {"loss": value}


def init(config, model, key, params):
    """In the batch neither a slow encoder nor a queue is used: their places hold next to nothing."""
    chosen = optimiser(config.learning_rate, config.warm_up, config.steps)
    slow = memory.ema(config.momentum).init({} if config.in_batch else params)
    queue = memory.queue(1 if config.in_batch else config.queue, model.features).init(key)
    return {"params": params, "opt": chosen.init(params), "slow": slow, "queue": queue}


def labelled_batch(batch, key, arrays, t):
    """Queries with their passage and one more, a random or a hard one."""
    k_random, k_hard, k_coin = jax.random.split(key, 3)
    task = arrays["task"]
    row = samplers.shuffled_batch(arrays["key"], len(task.answers), batch, t)
    hard = samplers.draw_negatives(k_hard, arrays["mined"][row], 1)[:, 0]
    chosen = (jax.random.uniform(k_coin, row.shape) < arrays["hard"]) & (hard >= 0)
    own, other = task.answers[row], jax.random.randint(k_random, row.shape, 0, len(task.ids))
    other = jnp.where(chosen, hard, other)
    texts = {"query": [side[row] for side in task.queries]}
    texts |= {name: [side[which] for side in task.passages] for name, which in (("own", own), ("other", other))}
    return texts | {"ids": task.ids[own], "other ids": task.ids[other], "index": row}


def supervised(params, model, temperature, batch, key):
    """Each query against its passage, all other passages of the batch and everybody's negatives."""
    sides = [encode(model, params, batch[side], batch["index"], jax.random.fold_in(key, n)) for n, side in enumerate(("query", "own", "other"))]
    who = dict(ids=batch["ids"], negative_ids=batch["other ids"], negatives_axis_name="data", axis_name="data", similarity="dot")
    return losses.mean(losses.info_nce(*sides[:2], negatives=sides[2], temperature=temperature, **who), axis_name="data")


def tune(model, temperature, rate, state, batch, key):
    value, grads = jax.value_and_grad(supervised)(state["params"], model, temperature, batch, key)
    params, opt = train.descend(optimiser(rate), grads, state["params"], state["opt"], axis_name="data")
    return {"params": params, "opt": opt}, {"tuning loss": value}


@partial(jax.jit, static_argnums=(0, 1))
def mine(model, k, params, task):
    who = dict(positives=task.answers, ids=task.ids[task.answers], key_ids=task.ids, similarity="dot")
    return samplers.mine_negatives(embed(model, params, task.queries), embed(model, params, task.passages), k, **who).indices


def fine_tune(config, model, key, params, labelled, fit):
    """The model of the first phase, and that of the second, which starts anew from `params` with hard negatives that the first one mined."""
    k_order, k_fit = jax.random.split(key)
    queries, answers = jax.tree.map(lambda side: side[: config.labels], (labelled.queries, labelled.answers))
    task = labelled._replace(queries=queries, answers=answers)
    arrays = {"task": task, "key": k_order, "mined": jnp.full((len(answers), config.mined), -1), "hard": jnp.float32(0)}
    models = []
    for phase in ("random negatives", "hard negatives"):
        if models:
            arrays |= {"mined": mine(model, config.mined, models[0], task), "hard": jnp.float32(config.hard)}
        state = {"params": params, "opt": optimiser(config.tuning_rate).init(params)}
        batches = train.draws(arrays, partial(labelled_batch, min(config.tuning_batch, config.labels)))
        state, _ = fit(k_fit, state, partial(tune, model, config.temperature, config.tuning_rate), batches, steps=config.tuning_steps, name=phase)
        models.append(state["params"])
    return models


@partial(jax.jit, static_argnums=0)
def embed(model, params, texts):
    return encoders.in_parts(partial(model.apply, params), *texts)


def quality(scores, found, answers):
    """A query whose passage is not among the first 100 has 0."""
    return jax.tree.map(jnp.mean, metrics.retrieval_summary(scores, answers, found, ndcg=(10,)))


@jax.jit
def judged(queries, passages, answers):
    return quality(*pairwise.top_k(queries, passages, min(100, len(passages))), answers) | metrics.collapse_watch(passages[:256])


def evaluate(model, params, test):
    return judged(embed(model, params, test.queries), embed(model, params, test.passages), test.answers)


@partial(jax.jit, static_argnums=0)
def between_crops(model, params, texts, key):
    """How often a crop of a text finds the other crop: the task that was trained, on what is held out."""
    pair = [embed(model, params, views.crop_tokens(k, *texts, at_least=LEAST)) for k in jax.random.split(key)]
    return jnp.mean(pairwise.top_k(*pair, 1)[1][:, 0] == jnp.arange(len(pair[0])))


def watch(model, test, key, state):
    return state, evaluate(model, state["params"], test)


def run(config, key, fit=train.fit):
    k_data, k_init, k_fit, k_tune, k_test = jax.random.split(key, 5)
    if config.lexical:
        seed = tuple(jax.random.key_data(jax.random.split(k_data)[0]).tolist())
        words = documented(config.corpora, config.split, config.length, config.vocabulary, seed)[-1]
        scores = jnp.asarray(getattr(retrieval, config.lexical)(*words))
        return quality(*jax.lax.top_k(scores, min(100, len(scores))), jnp.arange(len(scores)))
    model, params, frame, batches, labelled, tests = prepare(config, k_data)
    curves, names, found = [evaluate(model, params, tests[""])], ("R@1", "std", "mean_cosine", "effective_rank"), {}
    if config.steps:
        state, after = init(config, model, k_init, params), ((max(1, config.steps // 6), partial(watch, model, tests[""])),)
        state, history = fit(k_fit, state, partial(step, model, config, frame), batches, steps=config.steps, after=after)
        params = state["params"]
        curves += [{name: history[name][turn] for name in names} for turn in range(len(history["R@1"]))]
        found = {f"{name} over steps": np.array([row[name] for row in curves]) for name in names}
    if config.labels:
        before = evaluate(model, params, tests[""])
        first, params = fine_tune(config, model, k_tune, params, labelled, fit)
        random = evaluate(model, first, tests[""])
        found |= {f"{name} before": before[name] for name in ("R@1", "MRR")} | {f"{name} random negatives": random[name] for name in ("R@1", "MRR")}
    for name, test in tests.items():
        values = evaluate(model, params, test) | {"R@1 between crops": between_crops(model, params, test.queries if name else test.passages, k_test)}
        found |= {f"{metric}{name}": value for metric, value in values.items()}
    return found


UNSUPERVISED = [arm for arm, config in ARMS.items() if config.steps and not config.labels and not config.lexical]


def least_over_double(results):
    """By how much the weakest arm that learnt without labels is above twice the untrained one."""
    return min(results[arm]["R@1"] for arm in UNSUPERVISED) - 2 * results["untrained"]["R@1"]


def gain_of_hard(results):
    return results["fine-tuned"]["MRR"] - results["fine-tuned"]["MRR random negatives"]


FROM_NOTHING = study.gain("MRR", "fine-tuned", than="fine-tuned from nothing")
CLAIMS = [
    study.Claim("without labels every arm has more than twice the recall of the untrained one", least_over_double, expected=0.1),
    study.Claim("crops in the batch reach tf-idf, but for 3 points", study.gain("R@1", "crop, in batch", than="tf-idf"), -0.03, None, -0.008),
    study.Claim("batch and queue are within 10 points", study.gain("R@1", "crop, in batch", than="crop + queue 2048"), -0.1, 0.1),
    study.Claim("paper, full scale: cropping beats the inverse cloze task", study.gain("MRR", "crop + queue 2048", than="ICT + queue 2048")),
    study.Claim("paper, full scale: a larger queue is better", study.gain("MRR", "crop + queue 2048", than="crop + queue 64")),
    study.Claim("paper, full scale: deletion helps", study.gain("MRR", "crop + delete + queue 2048", than="crop + queue 2048")),
    study.Claim("paper, full scale: deletion beats replacement", study.gain("MRR", "crop + delete + queue 2048", than="crop + replace + queue 2048")),
    study.Claim("paper: with few labels pre-training helps", FROM_NOTHING),
    study.Claim("paper: some hard negatives help", gain_of_hard),
]

MODEL = dict(vocabulary=30522, layers=12, features=768, queue=131072, momentum=0.9995)
TRAINING = dict(learning_rate=5e-5, warm_up=20_000, batch=2048, steps=500_000, tuning_rate=1e-5, tuning_batch=1024, tuning_steps=20_000)
FULL = Config(corpora=("wikipedia/20190301.en",), evaluation="scifact", change="delete", **MODEL, **TRAINING)


def figures(report):
    drawn = {"arms": study.scores(report, ["R@1", "R@10", "MRR"])}
    watched = [arm for arm, found in report["arms"].items() if "R@1 over steps" in found and "fine" not in arm]
    if watched:
        names = [f"{name} over steps" for name in ("R@1", "std", "mean_cosine", "effective_rank")]
        drawn["training"] = study.curves(report, names, watched, x=range(0, Config.steps + 1, Config.steps // 6), xlabel="step")
    return drawn


if __name__ == "__main__":
    study.main(run, ARMS, CLAIMS, full=FULL, figures=figures)
