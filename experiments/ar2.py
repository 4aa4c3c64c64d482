"""Adversarial Retriever-Ranker for Dense Text Retrieval (AR2, ICLR 2022; arXiv 2110.03611).

A retriever embeds queries and passages apart, a ranker reads them together. They are trained against each other: the retriever is drawn to candidates
that the ranker takes for the right one, the ranker learns to tell them apart, and what it says of all candidates teaches the retriever. They take
turns, and between turns each query's candidates are looked up anew. Shown on Python's standard library, code by its docstring, with bags of tokens,
of which the ranker also sees how many in the code are how similar to each one of the query. All arms begin with the same two models.

The paper sums over candidates by the retriever's probability and leaves the right one out; the released code (`form=code`) does neither, and adds up
the batch (`batch_sum`). With one negative the paper's term has no gradient, the code's has. A difference of half a point of MRR is within the noise.

    python experiments/ar2.py --workers
    python experiments/ar2.py --arm AR2 --set negatives=1,5,15 --seeds 3
    python experiments/ar2.py --full --data-dir DIR
    python experiments/ar2.py --full --set folder=nq --set retriever_rate=1e-5 --set ranker_rate=1e-6 --data-dir DIR

In full the passages, and pairs to train and to test on, lie in DIR/msmarco (or another folder): `passages.jsonl`, lines {"text": ...}, and
`train.jsonl` and `test.jsonl`, lines {"query": ..., "passage": the number of its line, from 0 on}. The embeddings of MS MARCO's passages take 27 GB.
The encoders, two towers and a larger one for the ranker, begin with random weights and have no dropout.
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cljax import data, encoders, losses, metrics, pairwise, retrieval, samplers, study, train, views


@train.config
class Config:
    loss: Literal["ar2", "contrastive", "in_batch"] = "ar2"  # the retriever's: the right passage among its own candidates, or the batch's
    form: Literal["paper", "code"] = "paper"  # of the adversarial term
    share: float = 0.5  # of the adversarial term, beside the ranker's distribution as a target
    batch_sum: bool = False  # the adversarial term is a sum over the batch, as released
    negatives: int = 5
    candidates: int = 50
    cycles: int = 3
    ranker_steps: int = 40  # in each cycle, and the retriever's
    retriever_steps: int = 120
    ranker_rate: float = 1e-3
    retriever_rate: float = 1e-3
    batch: int = 32
    warm_steps: int = 400  # of the retriever, among the batch's passages
    warm_rate: float = 1e-3
    warm_batch: int = 64
    warm_ranker_steps: int = 120
    warm_ranker_rate: float = 2e-3
    fade: bool = False  # rates rise over a tenth of a model's steps and fall to 0
    clip: float | None = None  # the largest norm of a gradient
    scale: float = 20.0  # of the retriever's scores
    reranked: int = 20
    folder: str | None = None  # None: docstrings and code
    split: tuple[int, int] = (1400, 1060)  # pairs to learn from, pairs held out
    lengths: tuple[int, int] = (32, 128)  # tokens of a query and of a passage
    vocabulary: int = 6000
    features: int = 128
    layers: tuple[int, int] | None = None  # of the retriever's and the ranker's transformer; None: bags of tokens
    widths: tuple[int, int] = (768, 1024)  # theirs


ARMS = {"warm-up": Config(cycles=0), "in batch": Config(loss="in_batch"), "ANCE-like": Config(loss="contrastive"), "AR2": Config()}
ARMS |= {"code form": Config(form="code"), "distillation alone": Config(share=0.0), "adversarial alone": Config(share=1.0)}

READ, FEATURES = (20, 48), 8  # the tokens of query and passage that the kernels see, and what they give


@study.shared
def texts_of(folder, split, lengths, vocabulary, key):
    """Pairs to learn from, pairs held out, and the number of tokens."""
    known, test = data.read_search(data.root() / folder) if folder else data.documented_search(split, key=key)
    tokenizer = data.train_tokenizer([*known.queries, *known.passages[:100_000]], vocabulary, kind="wordpiece" if folder else "words")
    known, test = data.tokenise_search(tokenizer, known, test, lengths=lengths, special_tokens=bool(folder))
    known = jax.tree.map(jnp.asarray, known)
    test = test._replace(passages=known.passages) if folder else test  # of a folder it is one collection, held once
    return known, jax.tree.map(jnp.asarray, test), tokenizer.get_vocab_size()


def models_of(config, vocabulary):
    """The encoder of the retriever and that of the ranker, which of bags is the same."""
    if config.layers is None:
        return (encoders.BagOfTokens(vocabulary, config.features, normalise=True),) * 2
    how = dict(max_length=sum(config.lengths), types=2, pool="first")
    sizes = zip(config.layers, config.widths, strict=True)
    return tuple(encoders.TextTransformer(vocabulary, width, layers=layers, heads=max(1, width // 64), **how) for layers, width in sizes)


def init(config, models, key):
    """The retriever: one encoder for both sides in the case of bags, else two towers."""
    params = [jax.jit(models[0].init)(k, jnp.zeros((1, 4), jnp.int32)) for k in jax.random.split(key)]
    return {"query": params[0]} if config.layers is None else {"query": params[0], "passage": params[1]}


def init_ranker(config, models, key, retriever):
    """Of bags a copy of the retriever with weights of the kernels that are 0 at first: it begins as the retriever. Else an encoder of its own."""
    if config.layers is None:
        return {"encoder": jax.tree.map(jnp.array, retriever["query"]), "linear": jnp.zeros(FEATURES)}
    encoder = jax.jit(models[1].init)(key, jnp.zeros((1, 4), jnp.int32))
    return {"encoder": encoder, "linear": 0.02 * jax.random.normal(jax.random.fold_in(key, 1), (models[1].features,))}


def towers(retriever):
    return retriever["query"], retriever.get("passage", retriever["query"])


def read(model, params, texts):
    return encoders.in_lists(partial(model.apply, params), *texts)


def retriever_scores(models, scale, params, query, documents):
    """`[B, M]` for queries `[B, L]` and the documents `[B, M, L]` of each."""
    queries, passages = map(partial(read, models[0]), towers(params), (query, documents))
    return scale * jnp.einsum("bd,bmd->bm", queries, passages)


def ranker_scores(models, scale, params, query, documents):
    """`[B, M]`, as above, by an encoder that reads query and document together; of bags with the help of kernels."""
    if isinstance(models[1], encoders.BagOfTokens):
        one = retriever_scores(models[1:], scale, {"query": params["encoder"]}, query, documents)
        return one + kernels(models[1], params["encoder"], query, documents) @ params["linear"]
    joined = views.join_tokens(*(side[:, None] for side in query), *documents)
    return read(models[1], params["encoder"], joined) @ params["linear"]


def kernels(model, params, query, documents):
    """`[B, M, 8]`: how many of a document's first tokens are how similar to those of the query, which its gates weigh."""
    query, documents = ([side[..., :size] for side in text] for text, size in zip((query, documents), READ, strict=True))
    (words, gates), (others, _) = (encoders.in_lists(partial(model.apply, params, method="tokens"), *text) for text in (query, documents))
    return retrieval.kernel_pooling(words, others, gates, documents[1])


def drawn(config, passages, table, batch, key):
    """Each query's own passage and negatives out of its candidates: ids and mask `[B, M, L]`, and `[B, M]` which of them exist."""
    negatives = samplers.draw_negatives(key, table[batch["index"]], config.negatives, index=batch["index"])
    which = jnp.concatenate([batch["own"][:, None], negatives], axis=1)
    return [side[jnp.maximum(which, 0)] for side in passages], which >= 0


def listwise(scores, exists):
    """Cross-entropy of the first candidate among all of its list."""
    lists = jnp.ones((len(scores), 1)), scores[:, :1, None], scores[:, 1:, None]
    return losses.grouped_info_nce(*lists, temperature=1.0, negative_weights=exists[:, 1:], similarity="dot")


def retriever_loss(config, scores, ranked, exists):
    """What the retriever learns from the ranker: one value a query, of the adversarial term and of the distillation."""
    if config.loss == "contrastive":
        return listwise(scores, exists)
    adversarial = losses.adversarial_retriever(scores, ranked, form=config.form, where=exists)
    if config.batch_sum:
        adversarial = adversarial * len(scores) * jax.lax.axis_size("data")
    return config.share * adversarial + (1 - config.share) * losses.soft_cross_entropy(scores, ranked, where=exists)


def retriever_values(params, models, config, passages, state, batch, key):
    if config.loss == "in_batch":
        both = batch["query"], [side[batch["own"]] for side in passages]
        queries, own = map(partial(read, models[0]), towers(params), both)
        return losses.info_nce(queries, own, temperature=1 / config.scale, ids=batch["ids"], similarity="dot", axis_name="data")
    documents, exists = drawn(config, passages, state["candidates"], batch, key)
    ranked = jax.lax.stop_gradient(ranker_scores(models, config.scale, state["ranker"], batch["query"], documents))
    return retriever_loss(config, retriever_scores(models, config.scale, params, batch["query"], documents), ranked, exists)


def ranker_values(params, models, config, passages, state, batch, key):
    documents, exists = drawn(config, passages, state["candidates"], batch, key)
    return listwise(ranker_scores(models, config.scale, params, batch["query"], documents), exists)


def objective(params, who, *inputs):
    return losses.mean((retriever_values if who == "retriever" else ranker_values)(params, *inputs), axis_name="data")


def optimiser(config, who):
    """Each model has its own, which counts its own steps alone."""
    rate, steps = getattr(config, f"{who}_rate"), config.cycles * getattr(config, f"{who}_steps")
    rate = train.rise_and_fall(rate, warm_up=max(1, steps // 10), steps=steps) if config.fade else rate
    adam = optax.adamw(rate, weight_decay=0.01)
    return adam if config.clip is None else optax.chain(optax.clip_by_global_norm(config.clip), adam)


def step(who, models, config, passages, state, batch, key):
    """One of the two learns, the other stays as it is."""
    value, grads = jax.value_and_grad(objective)(state[who], who, models, config, passages, state, batch, key)
    params, opt = train.descend(optimiser(config, who), grads, state[who], state["opt"][who], axis_name="data")
    return state | {who: params, "opt": state["opt"] | {who: opt}}, {f"{who} loss": value}


def both_sides(models, retriever, task):
    return [encoders.embed(models[0], tower, *texts) for tower, texts in zip(towers(retriever), task[:2], strict=True)]


@partial(jax.jit, static_argnums=(0, 1))
def look_up(models, k, retriever, known):
    """The k candidates of each query: what the retriever finds for it that doesn't answer it."""
    rules = dict(positives=known.answers, ids=known.ids[known.answers], key_ids=known.ids, similarity="dot")
    return samplers.mine_negatives(*both_sides(models, retriever, known), k, **rules).indices


@partial(jax.jit, static_argnums=(0, 1))
def searched(models, k, retriever, test):
    return pairwise.top_k(*both_sides(models, retriever, test), min(k, len(test.ids)))


@jax.jit
def quality(scores, found, answers):
    """A query whose passage isn't in the list has 0."""
    return jax.tree.map(jnp.mean, metrics.retrieval_summary(scores, answers, found))


def evaluate(models, config, retriever, test):
    scores, found = searched(models, 100, retriever, test)
    entropy = metrics.softmax_entropy(config.scale * scores, k=min(15, scores.shape[1]))
    return quality(scores, found, test.answers) | {"entropy": jnp.mean(entropy)}


def listed(models, scale, ranker, passages, queries, found):
    return ranker_scores(models, scale, ranker, queries, [side[found] for side in passages])


@partial(jax.jit, static_argnums=0)
def evaluate_ranker(models, config, state, test):
    """The first places of the retriever's list as the ranker orders them."""
    _, found = searched(models, config.reranked, state["retriever"], test)
    again = encoders.in_parts(partial(listed, models, config.scale, state["ranker"], test.passages), test.queries, found, size=32)
    again = quality(again, found, test.answers)
    return {f"{name} re-ranked": again[name] for name in ("R@1", "MRR")}


def refresh(models, config, known, test, key, state):
    """Between two cycles: new candidates, and how good the retriever is."""
    return state | {"candidates": look_up(models, config.candidates, state["retriever"], known)}, evaluate(models, config, state["retriever"], test)


def run(config, key, fit=train.fit):
    k_data, k_init, k_ranker, k_fit = jax.random.split(key, 4)
    known, test, vocabulary = texts_of(config.folder, config.split, config.lengths, config.vocabulary, k_data)
    models, passages, own = models_of(config, vocabulary), known.passages, known.answers
    arrays = {"query": known.queries, "own": own, "ids": known.ids[own]}
    large, batches = train.draws(arrays, config.warm_batch), train.draws(arrays, config.batch)

    # Both warm-ups are the same in all arms: what they depend on is bound, and nothing else.
    rates = dict(retriever_rate=config.warm_rate, ranker_rate=config.warm_ranker_rate, fade=config.fade, clip=config.clip)
    steps = dict(retriever_steps=config.warm_steps, ranker_steps=config.warm_ranker_steps)
    warm = Config(loss="in_batch", cycles=1, negatives=config.negatives, scale=config.scale, **rates, **steps)
    retriever = init(config, models, k_init)
    state = {"retriever": retriever, "ranker": init_ranker(config, models, k_ranker, retriever), "candidates": jnp.zeros((1, 1), jnp.int32)}
    state["opt"] = {who: optimiser(warm, who).init(state[who]) for who in ("retriever", "ranker")}
    stage = dict(steps=config.warm_steps, name="warm-up retriever", shared=True)
    state, _ = fit(k_fit, state, partial(step, "retriever", models, warm, passages), large, **stage)
    if config.layers is None:
        state["ranker"] = init_ranker(config, models, k_ranker, state["retriever"])
    state["candidates"] = look_up(models, config.candidates, state["retriever"], known)
    stage = dict(steps=config.warm_ranker_steps, name="warm-up ranker", shared=True)
    state, _ = fit(k_fit, state, partial(step, "ranker", models, warm, passages), batches, **stage)

    state["opt"] = {who: optimiser(config, who).init(state[who]) for who in ("retriever", "ranker")}
    rows, hook = [evaluate(models, config, state["retriever"], test)], partial(refresh, models, config, known, test)
    for cycle in range(1, config.cycles + 1):
        ranking, retrieving = (partial(step, who, models, config, passages) for who in ("ranker", "retriever"))
        state, _ = fit(k_fit, state, ranking, batches, steps=config.ranker_steps, name=f"ranker {cycle}")
        stage = dict(steps=config.retriever_steps, name=f"retriever {cycle}", after=((config.retriever_steps, hook),))
        state, history = fit(k_fit, state, retrieving, batches, **stage)
        rows.append({name: history[name][-1] for name in rows[0]})
    curves = {f"{name} over cycles": np.array([row[name] for row in rows]) for name in rows[0]} if config.cycles else {}
    return rows[-1] | curves | evaluate_ranker(models, config, state, test)


OTHERS = [arm for arm in ARMS if arm not in ("warm-up", "adversarial alone")]
CLAIMS = [
    study.Claim("the warm ranker improves on the warm retriever", study.gain("R@1 re-ranked", "warm-up", over="R@1"), expected=0.01),
    study.Claim("AR2 beats the retriever that it begins with", study.gain("MRR", "AR2", than="warm-up"), expected=0.01),
    study.Claim("AR2 beats the adversarial term alone", study.gain("MRR", "AR2", than="adversarial alone"), expected=0.01),
    study.Claim("AR2 is not below ANCE, but for half a point", study.gain("MRR", "AR2", than="ANCE-like"), at_least=-0.005, expected=0.003),
    study.Claim("the adversarial term alone is the weakest", study.margin("MRR", OTHERS, than=["adversarial alone"])),
    study.Claim("paper: distillation keeps the retriever's choice broad", study.gain("entropy", "AR2", than="adversarial alone"), expected=0.4),
    study.Claim("paper: the trained ranker improves on the trained retriever", study.gain("R@1 re-ranked", "AR2", over="R@1")),
]

MODELS = dict(folder="msmarco", vocabulary=30522, layers=(12, 24), scale=1.0, negatives=15, candidates=100, batch=64)
GAME = dict(cycles=10, ranker_steps=500, retriever_steps=1500, ranker_rate=5e-7, retriever_rate=5e-6, fade=True, clip=2.0)
FULL = Config(warm_steps=24_000, warm_rate=1e-4, warm_ranker_steps=4000, warm_ranker_rate=1e-5, **MODELS, **GAME)


def figures(report):
    drawn = {"arms": study.scores(report, ["R@1", "R@1 re-ranked", "R@10", "MRR"])}
    if any("MRR over cycles" in found for found in report["arms"].values()):
        names = [f"{name} over cycles" for name in ("R@1", "R@10", "MRR", "entropy")]
        drawn["cycles"] = study.curves(report, names, first=0, xlabel="cycles")
    return drawn


if __name__ == "__main__":
    study.main(run, ARMS, CLAIMS, full=FULL, figures=figures)
