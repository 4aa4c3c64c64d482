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

import dataclasses
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cljax import core, data, encoders, losses, memory, metrics, pairwise, retrieval, samplers, study, train, views


@train.config
class Config:
    temperature: float = 0.07
    logit_multiplier: float = 1.0  # released: 20
    blocks: Literal["six", "inter", "in-batch", "one-way"] = "six"  # the four of code and query, as released; symmetric InfoNCE; queries over codes
    queue: int = 512  # 0: none
    momentum: float = 0.99
    soda: Literal["random", "cycle", "off"] = "random"  # one of the four kinds a step; in turns, the query masked where the code is, as released
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
ARMS = {"full": Config(), "no SoDa": Config(**PLAIN), "no queue": Config(queue=0), "in-batch": Config(**IN_BATCH)}
ARMS |= {"full, logits x 20": Config(logit_multiplier=20.0), "four inter blocks, no SoDa": Config(**INTER, **PLAIN)}
ARMS |= {"as released": Config(**INTER, logit_multiplier=20.0, soda="cycle", rate=0.1, copied_types=True)}
ARMS |= {f"transformer, {name}": Config(**TRANSFORMER, **how) for name, how in (("full", {}), ("no SoDa", PLAIN), ("in-batch", IN_BATCH))}
ARMS |= {"bm25": Config(encoder="bm25")}

TYPES, NAMES = len(data.LEXICAL_TYPES), ("MRR", "R@1", "R@5", "R@10", "alignment", "uniformity")


def corpora_of(config, key):
    if config.data == "stdlib_functions":
        return [data.described_functions(config.test, key=key, hide_name=config.hide_name)]
    return [data.code_search_net(data.root() / config.data / language, language) for language in config.languages]


def encoder_of(config, corpora):
    """The module, its parameters where they are pretrained, the tokenizer, and the config that knows of it."""
    if config.encoder in ("bag", "transformer"):
        texts = [text for corpus in corpora for side in (corpus.known_codes, corpus.known_queries) for text in side]
        tokenizer = data.piece_tokenizer(texts, config.vocabulary)
        config = dataclasses.replace(config, vocabulary=tokenizer.get_vocab_size())
        how = dict(layers=1, heads=config.heads, max_length=max(config.code_length, config.query_length), norm="pre", normalise=True)
        build = partial(encoders.TextTransformer, dropout=config.dropout, **how)
        build = partial(encoders.DeepAveraging, normalise=True) if config.encoder == "bag" else build
        return build(config.vocabulary + TYPES, config.width), None, tokenizer, config
    model, params, tokenizer = encoders.load_pretrained(data.pretrained(config.encoder), pool="mean", normalise=True, dropout=config.dropout)
    tokenizer.no_truncation()
    mask = next(place for place in map(tokenizer.token_to_id, ("[MASK]", "<mask>")) if place is not None)
    return *encoders.add_tokens(model, params, TYPES), tokenizer, dataclasses.replace(config, vocabulary=model.vocab_size, mask=mask)


def optimiser(config):
    rate = train.rise_and_fall(config.learning_rate, warm_up=0, steps=config.steps)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=0.01))


def init(config, model, key, params):
    """The parameters, the number of the step, and the moving average and the queues where there are any."""
    averages = memory.ema(config.momentum).init(params) if config.blocks in ("six", "inter") else None
    keys = zip(("code", "query", "code view", "query view"), jax.random.split(key, 4), strict=True) if config.queue else ()
    queues = {name: memory.queue(config.queue, model.features).init(k) for name, k in keys}
    return {"params": params, "t": jnp.int32(0), "averages": averages, "queues": queues}


def augment(config, code, query, t, key, index):
    """Soft data augmentation: of code one of four kinds, of a query masking alone."""
    if config.soda == "off":
        return code, query
    k_code, k_query = jax.random.split(key)
    how = dict(vocabulary=config.vocabulary, index=index)
    kind = t % 4 if config.soda == "cycle" else None
    how_code = dict(types=config.vocabulary + jnp.arange(TYPES), mask_id=config.mask, kind=kind, eligible=code.types >= 0)
    ids = views.soda(k_code, code.ids, code.mask, code.ids if config.copied_types else code.types, config.rate, **how_code, **how)
    masked, _ = views.replace_tokens(k_query, query.ids, query.mask, config.rate, to=config.mask, eligible=query.types >= 0, **how)
    masked = masked if kind is None else jnp.where(kind == 0, masked, query.ids)
    return code._replace(ids=ids), query._replace(ids=masked)


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


def contrast(model, config, variables, batch, key):
    """The momentum encoder moves before it reads, the losses see the queues as they were, and then all four are filled."""
    k_view, k_moved, k_clean = jax.random.split(key, 3)
    params, averages, queues = (variables[name] for name in ("params", "averages", "queues"))
    read = partial(core.apply_with_dropout, model, index=batch["index"])
    seen = {name: read(params, *batch[name][:2], key=jax.random.fold_in(k_clean, n)) for n, name in enumerate(("code", "query"))}
    if averages is not None:
        averages = memory.ema(config.momentum).update(averages, jax.lax.stop_gradient(params))
        changed = augment(config, batch["code"], batch["query"], variables["t"], k_view, batch["index"])
        for n, (name, tokens) in enumerate(zip(("code view", "query view"), changed, strict=True)):
            seen[name] = read(averages.params, *tokens[:2], key=jax.random.fold_in(k_moved, n))
    filled = {name: memory.queue(*queue.keys.shape).update(queue, seen[name], axis_name="data") for name, queue in queues.items()}
    return losses.mean(compare(config, seen, queues), axis_name="data"), {}, {"t": variables["t"] + 1, "averages": averages, "queues": filled}


def learn(config, model, k_queues, k_batches, k_fit, params, corpora, *, times, fit, name="fit"):
    """The parameters, and how well they searched so many times in training."""
    core.check.integer("steps", config.steps, at_least=1)
    known = jax.tree.map(lambda *sides: np.concatenate(sides), *((corpus.known_codes, corpus.known_queries) for corpus in corpora))
    batches = train.draws({"known": known, "sizes": np.array([len(one.known_codes.ids) for one in corpora]), "key": k_batches}, partial(draw, config))
    hook = partial(evaluate, model, [(corpus.queries, corpus.codes, corpus.answers) for corpus in corpora])
    how = dict(optimiser=partial(optimiser, config), steps=config.steps, after=((max(1, -(-config.steps // times)), hook),), name=name, fit=fit)
    variables, history = train.minimise(k_fit, partial(contrast, model, config), init(config, model, k_queues, params), batches, **how)
    return variables["params"], study.over_steps({name: history[name] for name in NAMES}) | {"loss": np.mean(history["loss"][-50:])}


def draw(config, key, arrays, t):
    """A batch of one language, in epochs."""
    index = samplers.corpus_batch(key, arrays["key"], arrays["sizes"], config.batch, t, exponent=config.mixing)
    code, query = jax.tree.map(lambda array: array[index], arrays["known"])
    return {"code": code, "query": query, "index": index}


def quality(scores, found, answers):
    return jax.tree.map(jnp.mean, metrics.retrieval_summary(scores, answers, found, recall=(1, 5, 10)))


@partial(jax.jit, static_argnums=0)
def search(model, params, queries, codes, answers):
    """A query whose code is not among the first 1000 has 0, as in the released code."""
    codes, queries = (encoders.embed(model, params, *texts[:2]) for texts in (codes, queries))
    found = quality(*pairwise.top_k(queries, codes, min(1000, len(codes))), answers)
    spread = (metrics.uniformity(codes) + metrics.uniformity(queries)) / 2
    return found | {"alignment": metrics.alignment(queries, codes[answers]), "uniformity": spread}


def evaluate(model, tests, key, state):
    return state, average([search(model, state["variables"]["params"], *test) for test in tests])


def by_words(corpus):
    """The same queries and candidates by BM25."""
    queries, codes = ([[piece.lower() for piece, _ in text] for text in texts] for texts in (corpus.queries, corpus.codes))
    scores = jnp.asarray(retrieval.bm25(queries, codes))
    return quality(*jax.lax.top_k(scores, min(1000, len(codes))), corpus.answers)


def average(found):
    """Of the languages."""
    return jax.tree.map(lambda *values: jnp.mean(jnp.stack(values)), *found)


def fine_tuned(config, model, key, params, language, corpus, fit):
    """One language alone: queries over the codes of their batch."""
    steps = config.fine_tuning_epochs * samplers.steps_per_epoch(len(corpus.known_codes.ids), config.batch)
    config = dataclasses.replace(config, blocks="one-way", queue=0, temperature=1 / 20, logit_multiplier=1.0, steps=steps)
    _, found = learn(config, model, key, key, key, params, [corpus], times=1, name=f"fine-tuning {language}", fit=fit)
    return {name: found[name] for name in NAMES}


def run(config, key, fit=train.fit):
    k_data, k_init, *k_learn = jax.random.split(key, 5)
    corpora = corpora_of(config, k_data)
    if config.encoder == "bm25":
        return average(map(by_words, corpora))
    model, params, tokenizer, config = encoder_of(config, corpora)
    corpora = data.tokenise_code_search(tokenizer, *corpora, lengths=(config.query_length, config.code_length), first_type=config.vocabulary)
    params = jax.jit(model.init)(k_init, *(side[:1] for side in corpora[0].known_codes[:2])) if params is None else params
    params, found = learn(config, model, *k_learn, params, corpora, times=4, fit=fit)
    if config.fine_tuning_epochs:
        found |= average([fine_tuned(config, model, k_learn[2], params, *alone, fit) for alone in zip(config.languages, corpora, strict=True)])
    return found


def above_chance(results):
    """How many times the mean reciprocal rank of a shuffled list the worst arm has, but for those without the blocks within a modality."""
    chance = np.mean(1 / np.arange(1, Config.test + 1))
    return min(found["MRR"] for arm, found in results.items() if ARMS[arm].blocks != "inter") / chance


CLAIMS = [
    study.Claim("every arm but those of four blocks is above ten times chance", above_chance, at_least=10.0),
    study.Claim("full beats in-batch InfoNCE", study.gain("MRR", "full", than="in-batch"), expected=0.01),
    study.Claim("six blocks with a queue, no SoDa, beat in-batch InfoNCE", study.gain("MRR", "no SoDa", than="in-batch"), expected=0.02),
    study.Claim("the queue helps", study.gain("MRR", "full", than="no queue"), expected=0.015),
    study.Claim("multiplying the logits by 20 does harm", study.gain("MRR", "full", than="full, logits x 20"), expected=0.03),
    study.Claim("SoDa does no harm", study.gain("MRR", "full", than="no SoDa"), at_least=-0.01),
    study.Claim("the blocks within a modality help a random start", study.gain("MRR", "no SoDa", than="four inter blocks, no SoDa"), 0.1, None, 0.25),
    study.Claim("of a transformer, full beats in-batch InfoNCE", study.gain("MRR", "transformer, full", than="transformer, in-batch")),
    study.Claim("of a transformer, SoDa gains", study.gain("MRR", "transformer, full", than="transformer, no SoDa")),
]

LANGUAGES = ("ruby", "javascript", "java", "go", "php", "python")
TEXTS = dict(data="codesearchnet", languages=LANGUAGES, hide_name=False, code_length=256, query_length=128)
TRAINING = dict(queue=4096, momentum=0.999, dropout=0.1, learning_rate=2e-5, batch=128, steps=100_000, fine_tuning_epochs=5)
FULL = Config(encoder="unixcoder", **TEXTS, **TRAINING)


def figures(report):
    curves = [f"{name} over steps" for name in ("MRR", "alignment", "uniformity")]
    found = {"retrieval": study.scores(report, ["MRR", "R@1", "R@10"])}
    return found | {"training": study.curves(report, curves, [arm for arm in report["arms"] if arm != "bm25"], xlabel="quarter of training")}


if __name__ == "__main__":
    study.main(run, ARMS, CLAIMS, full=FULL, figures=figures)
