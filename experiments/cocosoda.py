"""CoCoSoDa: Effective Contrastive Learning for Code Search (ICSE 2023; arXiv 2204.03293).

A query in words is to find the function that it describes. One encoder reads both. A momentum copy of it reads them with some tokens masked, or
replaced by the token that names their lexical type (soft data augmentation), and four queues keep what both saw. Six InfoNCE losses compare code with
query, code with its augmented self and query with its own. Shown on the functions of Python's standard library and the first sentences of their
docstrings, split by file, the functions' own names hidden; with a mean of token vectors and a small perceptron, and with a transformer of one layer.

The released code is another: it multiplies the logits by 20 once more, drops the losses within a modality, and its types are a copy of the tokens,
so that hardly anything is replaced. These are options here (`logit_multiplier`, `blocks`, `copied_types`, `soda=cycle`), and arms.

    python experiments/cocosoda.py --workers
    python experiments/cocosoda.py --arm full --set queue=64,512,4096 --seeds 3
    python experiments/cocosoda.py --arm full --set hide_name=False
    python experiments/cocosoda.py --full --data-dir DIR

In full DIR holds CodeSearchNet as GraphCodeBERT's authors cleaned it, codesearchnet/LANGUAGE/train.jsonl, test.jsonl and codebase.jsonl (the
candidates), each line an object with the lists `code_tokens` and `docstring_tokens` and the text `url`; and in unixcoder/ the weights of a pretrained
encoder, as `encoders.load_pretrained` reads them. After training on all languages each is fine-tuned alone.
"""

import collections
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import re
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tokenizers
from flax import linen as nn

from cljax import core, data, encoders, losses, memory, metrics, retrieval, samplers, study, train, views


@train.config
class Config:
    temperature: float = 0.07
    logit_multiplier: float = 1.0  # released: 20
    blocks: str = "six"  # "inter": the four between code and query, as released; "in-batch": symmetric InfoNCE; "one-way": queries over codes
    queue: int = 512  # 0: none
    momentum: float = 0.99
    soda: str = "random"  # one of the four kinds a step; "cycle": in turns, the query masked where the code is, as released; "off"
    rate: float = 0.15  # of the tokens that are chosen
    copied_types: bool = False  # the types are the tokens themselves, as released
    encoder: str = "bag"  # or "transformer"; "bm25", nothing to train; a model of `data.pretrained`; or a folder in DIR with such weights
    width: int = 96
    heads: int = 2
    dropout: float = 0.0
    data: str = "stdlib_functions"  # or the name of a folder in DIR
    languages: tuple[str, ...] = ("python",)
    mixing: float = 0.7  # the exponent by which languages are drawn, one a batch
    hide_name: bool = True
    test: int = 700  # functions; in full the whole test set
    code_length: int = 64  # tokens
    query_length: int = 24
    vocabulary: int = 4000  # words of a tokenizer that is made here
    mask: int = 2  # the token that masks
    learning_rate: float = 2e-3
    batch: int = 64
    steps: int = 450
    fine_tuning_epochs: int = 0  # of each language alone, after all


INTER, IN_BATCH, PLAIN = dict(blocks="inter"), dict(blocks="in-batch", queue=0, soda="off"), dict(soda="off")
TRANSFORMER = dict(encoder="transformer", width=64, steps=240)
ARMS = {
    "full": Config(),
    "no SoDa": Config(**PLAIN),
    "no queue": Config(queue=0),
    "in-batch": Config(**IN_BATCH),
    "full, logits x 20": Config(logit_multiplier=20.0),
    "four inter blocks, no SoDa": Config(**INTER, **PLAIN),
    "as released": Config(**INTER, logit_multiplier=20.0, soda="cycle", rate=0.1, copied_types=True),
    "transformer, full": Config(**TRANSFORMER),
    "transformer, no SoDa": Config(**TRANSFORMER, **PLAIN),
    "transformer, in-batch": Config(**TRANSFORMER, **IN_BATCH),
    "bm25": Config(encoder="bm25"),
}

TYPES = len(data.LEXICAL_TYPES)


def pieces(tokens, name=None):
    """Pairs of a piece and the type of its token: words in lower case, parts of identifiers, signs. `name` is left out."""
    return [(piece, kind) for token, kind in tokens if token != name for piece in data.words(token) or [token]]


class Corpus(NamedTuple):
    """Texts as lists of pieces: pairs to learn from, and queries, candidates and where the right one is."""

    known: tuple[list, list]  # codes, queries
    queries: list
    codes: list
    gold: np.ndarray


@functools.lru_cache(maxsize=2)  # the cells of a study ask for the same texts again and again
def documented_functions(hide_name):
    """Functions of the standard library as `(module, query, code)`: the first sentence of the docstring has 3 to 30 words; each pair once."""
    found = {}
    for kind, *columns, docstring, code in zip(*data.load("stdlib_functions", features=("kind", "module", "name", "docstring", "code")), strict=True):
        sentence = re.split(r"(?<=[.!?])\s|\n\s*\n", docstring.strip(), maxsplit=1)[0]
        if kind == "function" and 3 <= len(data.words(sentence)) <= 30:
            found.setdefault((sentence, code), columns)
    hidden = [name.split(".")[-1] if hide_name else None for _, name in found.values()]
    codes = [pieces(data.python_tokens(code), name) for (_, code), name in zip(found, hidden, strict=True)]
    queries = [[(word, "comment") for word in data.words(sentence)] for sentence, _ in found]
    return [(module, *texts) for (module, _), *texts in zip(found.values(), queries, codes, strict=True)]


def standard_library(config, key):
    """Whole files are for testing, as many as make `test` functions."""
    rows = documented_functions(config.hide_name)
    sizes = collections.Counter(module for module, *_ in rows)
    modules, test, count = sorted(sizes), set(), 0
    for place in jax.random.permutation(key, len(modules)).tolist():
        if count + sizes[modules[place]] <= config.test:
            count += sizes[modules[place]]
            test.add(modules[place])
    known, held_out = ([row[1:] for row in rows if (row[0] in test) == tested] for tested in (False, True))
    queries, codes = zip(*held_out, strict=True)
    return [Corpus(tuple(zip(*known, strict=True))[::-1], queries, codes, np.arange(count))]


def code_search_net(config, key):
    root = pathlib.Path(os.environ.get("CLJAX_DATA", "."), config.data)
    return [one_language(root / language, language) for language in config.languages]


def one_language(folder, language):
    parts, digest = {}, hashlib.sha256()
    for part in ("train", "test", "codebase"):
        content = (folder / f"{part}.jsonl").read_bytes()
        digest.update(content)
        parts[part] = [json.loads(line) for line in content.splitlines() if line.strip()]
    core.provenance.record(str(folder.name), rows=len(parts["train"]), digest=f"sha256:{digest.hexdigest()}", package="folder")

    def codes(rows):
        return [pieces((token, data.lexical_type(token, language)) for token in row["code_tokens"] if token.strip()) for row in rows]

    def queries(rows):
        return [[(token.lower(), "comment") for token in row["docstring_tokens"] if token.strip()] for row in rows]

    place = {row["url"]: number for number, row in enumerate(parts["codebase"])}
    asked = [row for row in parts["test"] if row["url"] in place]
    if not asked:
        raise ValueError(f"{folder} must have a test query whose code is in codebase.jsonl, by `url`; of {len(parts['test'])} none has")
    gold = np.array([place[row["url"]] for row in asked])
    return Corpus((codes(parts["train"]), queries(parts["train"])), queries(asked), codes(parts["codebase"]), gold)


def tokenizer_of(texts, size):
    """One token for each of the most frequent pieces, in lower case."""
    counts = collections.Counter(piece.lower() for text in texts for piece, _ in text)
    vocabulary = ["[PAD]", "[UNK]", "[MASK]", *(piece for piece, _ in counts.most_common(size))]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({piece: place for place, piece in enumerate(vocabulary)}, "[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    return tokenizer


def encode(tokenizer, texts, length, first_type):
    """`ids`, `mask` and `types` [N, L], the token that names the type of each token, also of parts of a piece; -1 at special tokens and padding."""
    ids, types, mask = np.zeros((len(texts), length), np.int32), np.full((len(texts), length), -1, np.int32), np.zeros((len(texts), length), bool)
    frame = tokenizer.num_special_tokens_to_add(False)
    for row, text in enumerate(texts):
        encoding = tokenizer.encode([piece for piece, _ in text], is_pretokenized=True, add_special_tokens=False)
        encoding.truncate(length - frame)
        encoding = tokenizer.post_process(encoding)
        count = len(encoding.ids)
        ids[row, :count], mask[row, :count] = encoding.ids, True
        types[row, :count] = [-1 if place is None else first_type + data.LEXICAL_TYPES.index(text[place][1]) for place in encoding.word_ids]
    return {"ids": ids, "mask": mask, "types": types}


class Bag(nn.Module):
    """The mean of the tokens' vectors, and what a perceptron adds to it."""

    vocab_size: int
    features: int
    dropout = 0.0

    @nn.compact
    def __call__(self, ids, mask=None, train=False):
        mean = encoders.BagOfTokens(self.vocab_size, self.features, gate=False)(ids, mask)
        return core.safe_normalize(mean + encoders.MLP((self.features,), self.features)(mean))


def encoder_of(config, texts):
    """The module, its parameters where they are pretrained, the tokenizer, and the config that knows of it."""
    if config.encoder in ("bag", "transformer"):
        tokenizer = tokenizer_of(texts, config.vocabulary)
        size = tokenizer.get_vocab_size()
        how = dict(layers=1, heads=config.heads, max_length=max(config.code_length, config.query_length), norm="pre", normalise=True)
        build = Bag if config.encoder == "bag" else partial(encoders.TextTransformer, dropout=config.dropout, **how)
        return build(size + TYPES, config.width), None, tokenizer, dataclasses.replace(config, vocabulary=size)
    folder = data.pretrained(config.encoder) if config.encoder in data.MODELS else pathlib.Path(os.environ.get("CLJAX_DATA", "."), config.encoder)
    model, params, tokenizer = encoders.load_pretrained(folder, pool="mean", normalise=True, dropout=config.dropout)
    tokenizer.no_truncation()
    if tokenizer.token_to_id("<encoder-only>") is not None:  # UniXcoder is told what it is
        frame = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "<encoder-only>", "</s>")]
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single="<s> <encoder-only> </s> $A </s>", special_tokens=frame)
    table = params["params"]["tokens"]
    params["params"]["tokens"] = jnp.concatenate([table, jnp.tile(jnp.mean(table, axis=0), (TYPES, 1))])  # types are tokens of their own
    mask = next(place for place in map(tokenizer.token_to_id, ("[MASK]", "<mask>")) if place is not None)
    config = dataclasses.replace(config, vocabulary=len(table), mask=mask)
    return model.clone(vocab_size=len(table) + TYPES), params, tokenizer, config


def optimiser(config):
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.linear_schedule(config.learning_rate, 0.0, config.steps), weight_decay=0.01))


def with_momentum(config):
    return config.blocks in ("six", "inter")


def init(config, model, key, params):
    state = {"params": params, "opt": optimiser(config).init(params), "t": jnp.int32(0), "queues": {}}
    if with_momentum(config):
        state["averages"] = memory.ema(config.momentum).init(params)
    if config.queue:
        keys = jax.random.split(key, 4)
        names = "code", "query", "code view", "query view"
        state["queues"] = {name: memory.queue(config.queue, model.features).init(k) for name, k in zip(names, keys, strict=True)}
    return state


def embed(model, config, params, tokens, key, index):
    """Embeddings in training; what a text drops hangs on its index alone."""
    if not model.dropout:
        return model.apply(params, tokens["ids"], tokens["mask"])

    def one(key, text):
        return model.apply(params, text["ids"][None], text["mask"][None], train=True, rngs={"dropout": key})[0]

    return views.per_example(one, key, tokens, index=index)


def augment(config, code, query, t, key, index):
    """Soft data augmentation: of code one of four kinds, of a query masking alone."""
    if config.soda == "off":
        return code, query
    k_code, k_query = jax.random.split(key)
    how = dict(vocabulary=config.vocabulary, index=index)
    kind = t % 4 if config.soda == "cycle" else None
    names, types = config.vocabulary + jnp.arange(TYPES), code["ids"] if config.copied_types else code["types"]
    how_code = dict(types=names, mask_id=config.mask, kind=kind, eligible=code["types"] >= 0)
    ids = views.soda(k_code, code["ids"], code["mask"], types, config.rate, **how_code, **how)
    masked, _ = views.replace_tokens(k_query, query["ids"], query["mask"], config.rate, to=config.mask, eligible=query["types"] >= 0, **how)
    if kind is not None:
        masked = jnp.where(kind == 0, masked, query["ids"])
    return code | {"ids": ids}, query | {"ids": masked}


def compare(config, seen, queues):
    """The values of the arm's losses, one behind the other; `seen` holds the embeddings of codes, queries and their views."""
    how = dict(temperature=config.temperature / config.logit_multiplier, axis_name="data")
    if config.blocks == "in-batch":
        return losses.symmetric_info_nce(seen["code"], seen["query"], **how)
    if config.blocks == "one-way":
        return losses.info_nce(seen["query"], seen["code"], **how)
    pairs = [("code", "query"), ("code", "query view"), ("query", "code"), ("query", "code view")]
    pairs += [("code", "code view"), ("query", "query view")] if config.blocks == "six" else []
    negatives = {name: queue.keys for name, queue in queues.items()}
    return jnp.concatenate([losses.info_nce(seen[anchor], seen[key], negatives=negatives.get(key), **how) for anchor, key in pairs])


def objective(params, model, config, moved, queues, batch, key):
    clean = {name: embed(model, config, params, batch[name], jax.random.fold_in(key, n), batch["index"]) for n, name in enumerate(("code", "query"))}
    return losses.mean(compare(config, clean | moved, queues), axis_name="data"), clean


def step(model, config, state, batch, key):
    """The momentum encoder moves before it reads, the losses see the queues as they were, and then all four are filled."""
    k_view, k_moved, k_clean = jax.random.split(key, 3)
    state, moved = dict(state), {}
    if with_momentum(config):
        state["averages"] = memory.ema(config.momentum).update(state["averages"], state["params"])
        changed = augment(config, batch["code"], batch["query"], state["t"], k_view, batch["index"])
        for n, (name, tokens) in enumerate(zip(("code view", "query view"), changed, strict=True)):
            moved[name] = embed(model, config, state["averages"].params, tokens, jax.random.fold_in(k_moved, n), batch["index"])
    inputs = model, config, moved, state["queues"], batch, k_clean
    (value, clean), grads = jax.value_and_grad(objective, has_aux=True)(state["params"], *inputs)
    params, opt = train.descend(optimiser(config), grads, state["params"], state["opt"], axis_name="data")
    put = {name: partial(memory.queue(*queue.keys.shape).update, queue, axis_name="data") for name, queue in state["queues"].items()}
    queues = {name: put[name]((clean | moved)[name]) for name in put}
    return state | {"params": params, "opt": opt, "t": state["t"] + 1, "queues": queues}, {"loss": value}


def draw(config, key, arrays, t):
    """A batch of one language, in epochs."""
    language = jax.random.choice(key, len(arrays["size"]), p=samplers.corpus_mixture(arrays["size"], config.mixing))
    place = t * config.batch + jnp.arange(config.batch)
    index = arrays["first"][language] + samplers.shuffled_rows(arrays["key"], arrays["size"][language], place)
    return {name: jax.tree.map(lambda array: array[index], arrays[name]) for name in ("code", "query")} | {"index": index}


def batches(config, key, parts):
    """Of the training pairs of some languages."""
    sizes = np.array([len(part["code"]["ids"]) for part in parts])
    arrays = {name: jax.tree.map(lambda *arrays: np.concatenate(arrays), *(part[name] for part in parts)) for name in ("code", "query")}
    return train.draws(arrays | {"first": np.cumsum(sizes) - sizes, "size": sizes, "key": key}, partial(draw, config))


def ranks(scores, gold):
    """How a query finds its code: `scores` [N] of the candidates."""
    scores, relevance = scores[None], (jnp.arange(len(scores)) == gold)[None]
    found = {"mrr": metrics.mrr_at_k(scores, relevance, min(1000, scores.shape[1]))}
    found |= {f"recall@{k}": metrics.recall_at_k(scores, relevance, min(k, scores.shape[1])) for k in (1, 5, 10)}
    return {name: value.values[0] for name, value in found.items()}


def averaged(function, rows):
    return jax.tree.map(jnp.mean, jax.lax.map(function, rows, batch_size=128))


@partial(jax.jit, static_argnums=0)
def search(model, params, test):
    """A part of the rows at a time: all scores of a large collection find no room."""
    z = {name: encoders.in_parts(partial(model.apply, params), test[name]["ids"], test[name]["mask"]) for name in ("code", "query")}
    found = averaged(lambda row: ranks(z["code"] @ row[0], row[1]), (z["query"], test["gold"]))
    spread = (metrics.uniformity(z["code"]) + metrics.uniformity(z["query"])) / 2
    return found | {"alignment": metrics.alignment(z["query"], z["code"][test["gold"]]), "uniformity": spread}


def evaluate(model, tests, key, state):
    found = [search(model, state["params"], test) for test in tests]
    return state, jax.tree.map(lambda *values: jnp.mean(jnp.stack(values)), *found)


def by_words(corpus):
    """The same queries and candidates by BM25."""
    queries, codes = ([[piece.lower() for piece, _ in text] for text in texts] for texts in (corpus.queries, corpus.codes))
    return averaged(lambda row: ranks(*row), (retrieval.bm25(queries, codes), corpus.gold))


def run(config, key, fit=train.fit):
    k_data, k_init, k_queues, k_batches, k_fit = jax.random.split(key, 5)
    corpora = (standard_library if config.data == "stdlib_functions" else code_search_net)(config, k_data)
    if config.encoder == "bm25":
        return jax.tree.map(lambda *values: jnp.mean(jnp.stack(values)), *map(by_words, corpora))
    model, params, tokenizer, config = encoder_of(config, [text for corpus in corpora for side in corpus.known for text in side])
    codes, queries = (partial(encode, tokenizer, length=length, first_type=config.vocabulary) for length in (config.code_length, config.query_length))
    parts = [{"code": codes(corpus.known[0]), "query": queries(corpus.known[1])} for corpus in corpora]
    tests = [{"code": codes(corpus.codes), "query": queries(corpus.queries), "gold": corpus.gold} for corpus in corpora]
    params = jax.jit(model.init)(k_init, parts[0]["code"]["ids"][:1], parts[0]["code"]["mask"][:1]) if params is None else params
    after = ((max(1, config.steps // 4), partial(evaluate, model, tests)),)
    pairs = batches(config, k_batches, parts)
    state, history = fit(k_fit, init(config, model, k_queues, params), partial(step, model, config), pairs, steps=config.steps, after=after)
    curves = {name: history[name] for name in ("mrr", "recall@1", "recall@5", "recall@10", "alignment", "uniformity")}
    found = {name: curve[-1] for name, curve in curves.items()}
    if config.fine_tuning_epochs:
        tuned = [fine_tuned(config, model, k_fit, state["params"], *task, fit) for task in zip(config.languages, parts, tests, strict=True)]
        found |= jax.tree.map(lambda *values: np.mean(values), *tuned)
    return found | {"loss": np.mean(history["loss"][-50:])} | {f"{name} over steps": curve for name, curve in curves.items()}


def fine_tuned(config, model, key, params, language, part, test, fit):
    """One language alone: queries over the codes of their batch."""
    steps = config.fine_tuning_epochs * max(1, len(part["code"]["ids"]) // config.batch)
    config = dataclasses.replace(config, blocks="one-way", queue=0, temperature=1 / 20, logit_multiplier=1.0, steps=steps)
    after = ((steps, partial(evaluate, model, [test])),)
    pairs, state = batches(config, key, [part]), init(config, model, key, params)
    _, history = fit(key, state, partial(step, model, config), pairs, steps=steps, after=after, name=f"fine-tuning {language}")
    return {name: history[name][-1] for name in ("mrr", "recall@1", "recall@5", "recall@10", "alignment", "uniformity")}


def chance(candidates):
    """The mean reciprocal rank of a shuffled list."""
    return float(np.mean(1 / np.arange(1, candidates + 1)))


def above_chance(results):
    """How many times chance the worst arm is, but for those without the blocks within a modality."""
    return min(found["mrr"] for arm, found in results.items() if ARMS[arm].blocks != "inter") / chance(Config.test)


CLAIMS = [
    study.Claim("every arm but those of four blocks is above ten times chance", above_chance, at_least=10.0),
    study.Claim("full beats in-batch InfoNCE", study.gain("mrr", "full", than="in-batch"), expected=0.01),
    study.Claim("six blocks with a queue, no SoDa, beat in-batch InfoNCE", study.gain("mrr", "no SoDa", than="in-batch"), expected=0.02),
    study.Claim("the queue helps", study.gain("mrr", "full", than="no queue"), expected=0.015),
    study.Claim("multiplying the logits by 20 does harm", study.gain("mrr", "full", than="full, logits x 20"), expected=0.03),
    study.Claim("SoDa does no harm", study.gain("mrr", "full", than="no SoDa"), at_least=-0.01),
    study.Claim("the blocks within a modality help a random start", study.gain("mrr", "no SoDa", than="four inter blocks, no SoDa"), 0.1, None, 0.25),
    study.Claim("of a transformer, full beats in-batch InfoNCE", study.gain("mrr", "transformer, full", than="transformer, in-batch")),
    study.Claim("of a transformer, SoDa gains", study.gain("mrr", "transformer, full", than="transformer, no SoDa")),
]

FULL = Config(
    data="codesearchnet",
    languages=("ruby", "javascript", "java", "go", "php", "python"),
    encoder="unixcoder",
    hide_name=False,
    queue=4096,
    momentum=0.999,
    dropout=0.1,
    code_length=256,
    query_length=128,
    learning_rate=2e-5,
    batch=128,
    steps=100_000,
    fine_tuning_epochs=5,
)


def figures(report):
    learnt = [arm for arm in report["arms"] if arm != "bm25"]
    names = ("mrr", "alignment", "uniformity")
    return {
        "retrieval": study.scores(report, ["mrr", "recall@1", "recall@10"]),
        "training": study.curves(report, [f"{name} over steps" for name in names], learnt, xlabel="quarter of training"),
    }


if __name__ == "__main__":
    study.main(run, ARMS, CLAIMS, full=FULL, figures=figures)
