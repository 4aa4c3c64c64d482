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
    python experiments/contriever.py --full --data-dir DIR
    python experiments/contriever.py --full --set corpora=wikipedia/20190301.en:c4/en --set evaluation=msmarco --set labels=500000 --data-dir DIR

With `verses` or `glosses` as a second corpus (running text, cut into chunks) its last rows are a second test: a verse in other wording, a word by its
definition. In full a corpus is a set of TensorFlow Datasets that has texts, prepared in DIR, and what is evaluated lies in DIR/scifact (or another
folder): `passages.jsonl`, lines {"text": ...}, and `test.jsonl`, lines {"query": ..., "passage": the number of its line, from 0 on}; the labelled
pairs are in `train.jsonl`, of the same form. The paper begins with BERT's weights: `--set weights=bert-base-uncased` reads them from a folder in DIR.
"""

import functools
import math
import os
import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cljax import data, encoders, losses, memory, metrics, pairwise, retrieval, samplers, study, train, views


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
SHIPPED = ("documented_code", "verses", "glosses")


class Chunks:
    """Batches of chunks of large corpora, for ever: articles in random order, a part of them in memory at a time. It can be resumed."""

    def __init__(self, sources, tokenizer, mixture, batch, length, seed, articles=20_000):
        mixture = np.array(mixture, np.float64)
        self.sources, self.tokenizer, self.mixture = sources, tokenizer, mixture / mixture.sum()
        self.batch, self.length, self.seed, self.articles = batch, length, seed, articles
        self.set_state({"drawn": 0, "places": [(0, 0)] * len(sources)})

    def get_state(self):
        return {"drawn": self.drawn, "places": list(self.places)}

    def set_state(self, state):
        self.drawn, self.places, self.parts = state["drawn"], [tuple(place) for place in state["places"]], {}

    def __iter__(self):
        return self

    def __next__(self):
        chosen = np.random.default_rng((self.seed, self.drawn)).choice(len(self.sources), self.batch, p=self.mixture)
        ids = np.stack([self.take(corpus) for corpus in chosen])
        self.drawn += 1
        return {"ids": ids, "mask": np.ones(ids.shape, bool), "index": np.arange(len(ids))}

    def take(self, corpus):
        part, row = self.places[corpus]
        if corpus not in self.parts:
            self.parts[corpus] = self.read(corpus, part)
        chunks = self.parts[corpus]
        self.places[corpus] = (part, row + 1) if row + 1 < len(chunks) else (part + 1, 0)
        return chunks[row] if row + 1 < len(chunks) else self.parts.pop(corpus)[row]

    def read(self, corpus, part):
        source = self.sources[corpus]
        epoch, place = divmod(part, -(-len(source) // self.articles))
        order = np.random.default_rng((self.seed, corpus, epoch)).permutation(len(source))
        chosen = order[place * self.articles : (place + 1) * self.articles].tolist()
        draw = np.random.default_rng((self.seed, corpus, epoch, place))
        chunks = chunked(self.tokenizer, [row["text"].decode() for row in source.__getitems__(chosen)], self.length, draw.integers(self.length))
        return chunks[draw.permutation(len(chunks))]


def chunked(tokenizer, texts, length, offset=0):
    """Texts one after the other, in chunks of one length, whatever text a token belongs to."""
    encoded = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return np.asarray(samplers.chunk_stream(np.concatenate([np.array(text.ids, np.int32) for text in encoded]), length, int(offset)))


def task(read, queries, passages, answers):
    """Queries, the passages among which each is to find its own, and which that is."""
    return {"queries": read(queries), "passages": read(passages), "answers": jnp.asarray(answers)}


@functools.lru_cache(maxsize=8)  # the arms of a seed share it
def documented(corpora, split, length, vocabulary, seed):
    """Tokens to learn from, labelled pairs among them, the tests by name, and the words of the first test."""
    found = data.documented_code()
    order = np.random.default_rng(seed).permutation(len(found.code))[: sum(split)]
    known, test = order[: split[0]], order[split[0] :]
    documents = [f"{found.docstring[row]}\n{found.code[row]}" for row in known]
    others = {name: [column[: len(column) * 9 // 10] for column in data.load(name)] for name in corpora[1:]}
    tokenizer = data.train_tokenizer([*documents, *(text for columns in others.values() for text in columns[0])], vocabulary, kind="words")
    read = partial(tokens, tokenizer, False, length)
    texts = [read(documents)]
    tests = {"": task(read, found.docstring[test], found.code[test], np.arange(len(test)))}
    for name, columns in others.items():
        chunks = chunked(tokenizer, columns[0], length)
        texts.append((chunks, np.ones(chunks.shape, bool)))
        held = [column[len(columns[0]) :][: split[1]] for column in data.load(name)]
        tests[f" of {name}"] = task(partial(tokens, tokenizer, False, 64, allow_empty=True), *held, np.arange(len(held[0])))
    _, same = np.unique(found.docstring[known], return_inverse=True)  # code with the same docstring is no negative
    labelled = task(read, found.docstring[known], found.code[known], np.arange(len(known))) | {"ids": jnp.asarray(same)}
    words = [[data.words(text) for text in side[test]] for side in (found.docstring, found.code)]
    return tokenizer, texts, labelled, tests, words


def tokens(tokenizer, frame, length, texts, **options):
    return tuple(map(jnp.asarray, data.tokenise(tokenizer, texts, length=length, special_tokens=frame, **options)))


def prepare(config, key):
    """The encoder, its parameters, what frames a text, batches to learn from, labelled pairs and tests."""
    k_data, k_init = jax.random.split(key)
    seed = jax.random.key_data(k_data).tolist()
    if not set(config.corpora) - set(SHIPPED):
        tokenizer, texts, labelled, tests, _ = documented(config.corpora, config.split, config.length, config.vocabulary, tuple(seed))
        sizes = jnp.array([len(ids) for ids, _ in texts])
        ids, mask = (jnp.concatenate(side) for side in zip(*texts, strict=True))
        drawn = config.batch if len(texts) == 1 else partial(mixed, config.batch)
        arrays = {"ids": ids, "mask": mask} | ({} if len(texts) == 1 else {"sizes": sizes, "exponent": jnp.float32(config.exponent)})
        batches, model, params = train.draws(arrays, drawn), None, None
    else:
        root = pathlib.Path(os.environ.get("CLJAX_DATA", "."))
        sources = [data.builder(f"tfds:{name}").as_data_source("train") for name in config.corpora]
        if config.weights:
            model, params, tokenizer = encoders.load_pretrained(root / config.weights, dtype=jnp.bfloat16)
            tokenizer.no_truncation()
        else:
            model = params = None
            first = [row["text"].decode() for source in sources for row in source.__getitems__(range(min(len(source), 50_000)))]
            tokenizer = data.train_tokenizer(first, config.vocabulary)
        mixture = samplers.corpus_mixture(jnp.array([len(source) for source in sources]), config.exponent)
        batches = Chunks(sources, tokenizer, mixture, config.batch, config.length, seed)
        read, place = partial(tokens, tokenizer, True, config.length), root / config.evaluation
        (passages,) = data.pairs(place / "passages.jsonl", columns=("text",))
        pairs = {part: data.pairs(place / f"{part}.jsonl", columns=("query", "passage")) for part in ("test", "train")[: 1 + (config.labels > 0)]}
        made = {part: task(read, queries, passages, answers) for part, (queries, answers) in pairs.items()}
        tests, labelled = {"": made["test"]}, made.get("train", {}) | {"ids": jnp.arange(len(passages))}
    frame = tuple(map(tokenizer.token_to_id, ("[CLS]", "[SEP]"))) if config.layers else None
    if model is None:
        size = tokenizer.get_vocab_size(), config.features
        deep = dict(layers=config.layers, heads=max(1, config.features // 64), max_length=config.length + 2, dropout=0.1, dtype=jnp.bfloat16)
        model = encoders.TextTransformer(*size, **deep) if config.layers else encoders.BagOfTokens(*size, normalise=True)
        params = jax.jit(model.init)(k_init, jnp.zeros((1, 8), jnp.int32))
    return model, params, frame, batches, labelled, tests


def mixed(batch, key, arrays, t):
    """A batch of several corpora: each example draws its corpus first."""
    k_corpus, k_row = jax.random.split(key)
    sizes, ends = arrays["sizes"], jnp.cumsum(arrays["sizes"])
    corpus = jax.random.choice(k_corpus, len(sizes), (batch,), p=samplers.corpus_mixture(sizes, arrays["exponent"]))
    row = jax.random.randint(k_row, (batch,), (ends - sizes)[corpus], ends[corpus])
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
    """Embeddings in training; dropout, where there is any, is drawn by each example's index. Without a key there is none."""
    if key is None or not getattr(model, "dropout", 0):
        return model.apply(params, *text)

    def one(key, text):
        return model.apply(params, *(side[None] for side in text), train=True, rngs={"dropout": key})[0]

    return views.per_example(one, key, text, index=index)


def optimiser(rate, warm_up=0, steps=0):
    if warm_up:
        rise, fall = optax.linear_schedule(0.0, rate, warm_up), optax.linear_schedule(rate, 0.0, steps - warm_up)
        rate = optax.join_schedules([rise, fall], [warm_up])
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
    row = samplers.shuffled_batch(arrays["key"], len(arrays["answers"]), batch, t)
    hard = samplers.draw_negatives(k_hard, arrays["mined"][row], 1)[:, 0]
    chosen = (jax.random.uniform(k_coin, row.shape) < arrays["hard"]) & (hard >= 0)
    own, other = arrays["answers"][row], jax.random.randint(k_random, row.shape, 0, len(arrays["ids"]))
    other = jnp.where(chosen, hard, other)
    texts = {"query": [side[row] for side in arrays["queries"]]}
    texts |= {name: [side[which] for side in arrays["passages"]] for name, which in (("own", own), ("other", other))}
    return texts | {"ids": arrays["ids"][own], "other ids": arrays["ids"][other], "index": row}


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
def mine(model, k, params, arrays):
    queries, passages = (embed(model, params, arrays[side]) for side in ("queries", "passages"))
    who = dict(positives=arrays["answers"], ids=arrays["ids"][arrays["answers"]], key_ids=arrays["ids"], similarity="dot")
    return samplers.mine_negatives(queries, passages, k, **who).indices


def fine_tune(config, model, key, params, labelled, fit):
    """The model of the first phase, and that of the second, which starts anew from `params` with hard negatives that the first one mined."""
    k_order, k_fit = jax.random.split(key)
    pairs = {name: jax.tree.map(lambda side: side[: config.labels], labelled[name]) for name in ("queries", "answers")}
    arrays = labelled | pairs | {"key": k_order, "mined": jnp.full((len(pairs["answers"]), config.mined), -1), "hard": jnp.float32(0)}
    models = []
    for phase in ("random negatives", "hard negatives"):
        if models:
            arrays |= {"mined": mine(model, config.mined, models[0], arrays), "hard": jnp.float32(config.hard)}
        state = {"params": params, "opt": optimiser(config.tuning_rate).init(params)}
        batches = train.draws(arrays, partial(labelled_batch, min(config.tuning_batch, config.labels)))
        state, _ = fit(k_fit, state, partial(tune, model, config.temperature, config.tuning_rate), batches, steps=config.tuning_steps, name=phase)
        models.append(state["params"])
    return models


@partial(jax.jit, static_argnums=0)
def embed(model, params, texts):
    return encoders.in_parts(partial(model.apply, params), *texts)


def quality(scores, found, answers):
    """Of each query's list the share that has its passage, and how high; a query whose passage isn't in the list has 0."""
    relevance, depth = found == answers[:, None], found.shape[1]
    kinds = {"R@1": (metrics.recall_at_k, 1), "R@10": (metrics.recall_at_k, 10), "nDCG@10": (metrics.ndcg_at_k, 10), "MRR": (metrics.mrr_at_k, depth)}
    return {name: jnp.mean(of(scores, relevance, min(k, depth)).values) for name, (of, k) in kinds.items()}


@jax.jit
def judged(queries, passages, answers):
    found = pairwise.top_k(queries, passages, min(100, len(passages)))
    return quality(*found, answers) | metrics.collapse_watch(passages[:256])


def evaluate(model, params, test):
    return judged(embed(model, params, test["queries"]), embed(model, params, test["passages"]), test["answers"])


@partial(jax.jit, static_argnums=0)
def between_crops(model, params, test, key):
    """How often a crop of a passage finds the other crop: the task that was trained, on what is held out."""
    pair = [embed(model, params, views.crop_tokens(k, *test["passages"], at_least=LEAST)) for k in jax.random.split(key)]
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
        found |= {f"{metric}{name}": value for metric, value in evaluate(model, params, test).items()}
    return found | {"R@1 between crops": between_crops(model, params, tests[""], k_test)}


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

FULL = Config(
    change="delete",
    queue=131072,
    momentum=0.9995,
    corpora=("wikipedia/20190301.en",),
    evaluation="scifact",
    vocabulary=30522,
    layers=12,
    features=768,
    learning_rate=5e-5,
    warm_up=20_000,
    batch=2048,
    steps=500_000,
    tuning_rate=1e-5,
    tuning_batch=1024,
    tuning_steps=20_000,
)


def figures(report):
    arms, every = [arm for arm in ARMS if arm in report["arms"]], range(0, Config.steps + 1, Config.steps // 6)
    watched = [arm for arm in arms if "R@1 over steps" in report["arms"][arm] and "fine" not in arm]
    drawn = {"arms": study.scores(report, ["R@1", "R@10", "MRR"], arms)}
    if watched:
        names = [f"{name} over steps" for name in ("R@1", "std", "mean_cosine", "effective_rank")]
        drawn["training"] = study.curves(report, names, watched, x=every, xlabel="step")
    return drawn


if __name__ == "__main__":
    study.main(run, ARMS, CLAIMS, full=FULL, figures=figures)
