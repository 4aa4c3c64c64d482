"""Every loss and its gradients against its formula in numpy float64, differentiated numerically: dense, and in blocks that don't divide the batch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import losses

B, D, M, N = 7, 5, 4, 9
EYE = np.eye(B, dtype=bool)
WHERE = np.array([True, True, False, True, True, True, True])
KEY_WHERE = np.array([True, True, True, False, True, True, True, True, True])
IDS = np.array([3, 1, 3, 2, 1, 5, 2**31 - 1])
KEY_IDS = np.array([3, 1, 4, 3, 1, 2**31 - 2, 7])
NEGATIVE_IDS = np.array([2**31 - 1, 9, 3, 1])
SETS = np.array([[1, -1, -1], [2, 3, -1], [3, -1, -1], [4, 5, 6], [7, -1, -1], [6, 8, 1], [9, -1, -1]])
LABEL_SETS = np.array([[0, 3], [1, -1], [0, -1], [2, 1], [1, -1], [0, 2], [5, -1]])
KEY_LABELS = np.array([0, 0, 1, 2, 1, 3, 0, 4, 2])
REFERENCE_LABELS = np.array([0, 1, 5, 2])
REFERENCE_IDS = np.array([3, 9, 2**31 - 1, 3])
REFERENCE_WHERE = np.array([True, True, False, True])
CLASS_WHERE = np.arange(B * D).reshape(B, D) % 4 != 1
TEACHER = np.random.default_rng(7).normal(size=(B, D))


# The formulas. Arrays are float64, masks are [B, N].


def similarity(q, k, kind="cosine"):
    if kind == "sqeuclidean":
        return -((q[..., :, None, :] - k[..., None, :, :]) ** 2).sum(-1)
    if kind == "cosine":
        q, k = (x / np.maximum(np.sqrt((x**2).sum(-1, keepdims=True)), 1e-300) for x in (q, k))
    return q @ np.swapaxes(k, -1, -2)


def meets(left, right):
    return _meets(*(tuple(map(tuple, side.reshape(len(side), -1).tolist())) for side in (left, right)))


@functools.cache
def _meets(left, right):
    return np.array([[bool((set(x) & set(y)) - {-1}) for y in right] for x in left])


def lse(x, kept):
    x = np.where(kept, x, -np.inf)
    top = np.maximum(x.max(axis=1, keepdims=True), -1e300)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(x - top).sum(axis=1)) + top[:, 0]


def cross_entropy(logits, own, kept, smoothing=0.0):
    positive = np.where(own, logits, 0).sum(axis=1)
    return lse(logits, kept) - (1 - smoothing) * positive - smoothing * np.where(kept, logits, 0).sum(axis=1) / kept.sum(axis=1)


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def column(x):
    return np.reshape(x, (-1, 1)) if np.ndim(x) else x


def one_sided(x, in_batch=True, ids=None, key_ids=None, negative_ids=None, where=None, similarity_kind="cosine"):
    """Similarities to keys and negatives, which is the own key, which may be compared."""
    where = np.ones(B, bool) if where is None else where
    may = np.broadcast_to(where & in_batch, (B, B)) & (True if ids is None else ~meets(ids, key_ids))
    scores, own = similarity(x["a"], x["b"], similarity_kind), EYE
    if "c" in x:
        others = np.ones((B, M), bool) if negative_ids is None else ~meets(ids, negative_ids)
        scores = np.concatenate([scores, similarity(x["a"], x["c"], similarity_kind)], axis=1)
        own, may = np.concatenate([EYE, np.zeros((B, M), bool)], axis=1), np.concatenate([may, others], axis=1)
    return scores, own, may & ~own


def hardest(scores, may, k):
    kept = np.zeros_like(may)
    for i, row in enumerate(np.where(may, scores, -np.inf)):
        kept[i, np.argsort(-row)[:k]] = True
    return kept & may


def info_nce(x, smoothing=0.0, k=None, **options):
    scores, own, may = one_sided(x, **options)
    may = may if k is None else hardest(scores, may, k)
    values = cross_entropy(scores / column(x["temperature"]), own, own | may, smoothing)
    return np.where(options.get("where", True), values, 0)


def simple(x, k=None, **options):
    scores, own, may = one_sided(x, **options)
    may = may if k is None else hardest(scores, may, k)
    values = x["weight"] * np.where(may, scores, 0).sum(axis=1) / np.maximum(may.sum(axis=1), 1) - np.where(own, scores, 0).sum(axis=1)
    return np.where(options.get("where", True), values, 0)


def symmetric(x, smoothing=0.0, ids=None, where=True, kind="cosine"):
    scores, kept = similarity(x["a"], x["b"], kind), np.broadcast_to(where, (B, B)) & (True if ids is None else ~meets(ids, ids)) | EYE
    forth, back = (cross_entropy(s / column(x["temperature"]), EYE, kept, smoothing) for s in (scores, scores.T))
    return np.where(where, (forth + back) / 2, 0)


def nt_xent(x, ids=None, where=None, kind="cosine"):
    z, other = np.concatenate([x["a"], x["b"]]), np.roll(np.eye(2 * B, dtype=bool), B, axis=1)
    kept = np.ones((2 * B, 2 * B), bool) if ids is None else ~meets(np.tile(ids, 2), np.tile(ids, 2))
    where = np.ones(2 * B, bool) if where is None else np.tile(where, 2)
    temperature = np.tile(x["temperature"], 2) if np.ndim(x["temperature"]) else x["temperature"]
    kept = (kept & where | other) & ~np.eye(2 * B, dtype=bool)
    return np.where(where, cross_entropy(similarity(z, z, kind) / column(temperature), other, kept), 0)


def several(scores, positive, kept, temperature, combine, where=True):
    logits, values = scores / column(temperature), np.zeros(len(scores))
    for i in range(len(scores)):
        own, rest = logits[i, positive[i]], logits[i, kept[i] & ~positive[i]]
        if own.size and (where is True or where[i]):
            everything = np.logaddexp.reduce(np.concatenate([own, rest]))
            apart = np.mean([np.logaddexp.reduce(np.append(rest, p)) - p for p in own])
            values[i] = {"outside": everything - own.mean(), "inside": everything - np.logaddexp.reduce(own), "apart": apart}[combine]
    return values


def sup_con(x, labels, ids=None, where=True, kind="cosine"):
    kept = np.broadcast_to(where, (B, B)) & ~EYE
    positive = meets(labels, labels) & kept
    may = kept if ids is None else kept & ~meets(ids, ids)
    return several(similarity(x["a"], x["a"], kind), positive, may | positive, x["temperature"], "outside", where)


def multi_positive(x, combine):
    positive = meets(LABEL_SETS, KEY_LABELS) & KEY_WHERE
    kept = ~meets(SETS, np.arange(N)) & KEY_WHERE | positive
    return several(similarity(x["a"], x["k"]), positive, kept, x["temperature"], combine, WHERE)


def grouped(x, combine):
    p, n = (similarity(x["a"][:, None], x[name])[:, 0] / column(x["temperature"]) for name in ("positives", "negatives"))
    w, v = np.broadcast_to(x["w"], p.shape), np.broadcast_to(x["v"], n.shape)
    ours, theirs = (w * np.exp(p)).sum(axis=1), (v * np.exp(n)).sum(axis=1)
    if combine == "inside":
        return np.log(ours + theirs) - np.log(ours)
    each = np.log((np.exp(p) if combine == "apart" else ours[:, None]) + theirs[:, None]) - p
    return (w * each).sum(axis=1) / w.sum(axis=1)


def sigmoid(x, ids=None, where=True):
    logits = similarity(x["a"], x["b"]) / column(x["temperature"]) + x["bias"]
    kept = np.broadcast_to(where, (B, B)) & (True if ids is None else ~meets(ids, ids)) | EYE
    return np.where(where, np.where(kept, softplus(np.where(EYE, -logits, logits)), 0).sum(axis=1), 0)


def uniformity(x, kind, ids=None, where=True):
    z = x["a"] / np.maximum(np.linalg.norm(x["a"], axis=1, keepdims=True), 1e-300) if kind == "cosine" else x["a"]
    kept = np.broadcast_to(where, (B, B)) & np.broadcast_to(where, (B, B)).T & ~EYE & (True if ids is None else ~meets(ids, ids))
    return np.log(np.exp(x["t"] * similarity(z, z, "sqeuclidean"))[kept].mean())[None]


def corrected(x, prior=None, concentration=0.0, ids=None, where=None):
    """Decoupled without a prior; else the released code's estimator of the negatives' sum, whose floor is taken off in float64."""
    z, other = np.concatenate([x["a"], x["b"]]), np.roll(np.eye(2 * B, dtype=bool), B, axis=1)
    where = np.tile(np.ones(B, bool) if where is None else where, 2)
    negative = where & ~np.eye(2 * B, dtype=bool) & ~other & (True if ids is None else ~meets(np.tile(ids, 2), np.tile(ids, 2)))
    temperature = column(np.tile(x["temperature"], 2) if np.ndim(x["temperature"]) else x["temperature"])
    logits, n = similarity(z, z) / temperature, negative.sum(axis=1)
    positive = np.where(other, logits, 0).sum(axis=1)
    if prior is None:
        return np.where(where & (n > 0), lse(logits, negative) - np.tile(x["w2"], 2) * positive, 0)
    s, p = np.where(negative, np.exp(logits), 0), np.exp(positive)
    weights = np.where(negative, np.exp(concentration * logits), 0)
    total = n * (weights * s).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-300)
    total = np.maximum((total - prior * n * p) / (1 - prior), n * np.exp(-1 / np.ravel(temperature)))
    return np.where(where & (n > 0), np.log1p(total / p), 0)


def labelled(x, kind):
    """Distances of the anchors from the batch and the references, which are positives, which are negatives."""
    keys, valid = np.concatenate([x["a"], x["c"]]), np.concatenate([WHERE, REFERENCE_WHERE])
    same, twin = (np.hstack([meets(own, own), meets(own, of)]) for own, of in ((LABEL_SETS, REFERENCE_LABELS), (IDS, REFERENCE_IDS)))
    others = valid & np.hstack([~EYE, np.ones((B, M), bool)])
    scores = similarity(x["a"], keys, "cosine" if kind == "cosine" else "sqeuclidean")
    return {"cosine": 1 - scores, "sqeuclidean": -scores, "euclidean": np.sqrt(-np.minimum(scores, 0))}[kind], same & others, ~same & ~twin & others


def triplet_margin(x, mining, kind="euclidean"):
    distances, positive, negative = labelled(x, kind)
    values = np.zeros(B)
    for i in np.flatnonzero(WHERE & positive.any(axis=1) & negative.any(axis=1)):
        d, p, n = distances[i], np.flatnonzero(positive[i]), np.flatnonzero(negative[i])
        if mining == "hard":
            triplets = [(d[p].max(), d[n].min())]
        elif mining == "semi_hard":
            triplets = [(far, d[n][d[n] > far].min()) for far in d[p] if (d[n] > far).any()]
        else:
            triplets = [(far, near) for far in d[p] for near in d[n]]
        hinges = np.array([x["margin"] + far - near for far, near in triplets])
        values[i] = hinges[hinges > 0].mean() if (hinges > 0).any() else 0
    return values


def pairwise_contrastive(x, kind="euclidean"):
    distances, positive, negative = labelled(x, kind)
    pull, push = np.maximum(distances - x["margin"], 0) ** 2 / 2, np.maximum(x["t"] - distances, 0) ** 2 / 2
    means = [np.where(of, each, 0).sum(axis=1) / np.maximum(of.sum(axis=1), 1) for each, of in ((pull, positive), (push, negative))]
    return np.where(WHERE, sum(means), 0)


def sup_con_of_memory(x):
    _, positive, negative = labelled(x, "cosine")
    return several(similarity(x["a"], np.concatenate([x["a"], x["c"]])), positive, positive | negative, x["temperature"], "outside", WHERE)


def entropy(logits, where=True):
    p = np.where(where, np.exp(logits), 0)
    p /= p.sum(axis=-1, keepdims=True)
    return -np.sum(p * np.log(np.where(p > 0, p, 1)), axis=-1)


def info_max(x):
    p = np.exp(x["a"][WHERE])
    average = (p / p.sum(axis=1, keepdims=True)).mean(axis=0)
    return (entropy(x["a"][WHERE]).mean() + (average * np.log(average)).sum())[None]


def barlow_twins(x):
    a, b = ((z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + 1e-5) for z in (x["a"][WHERE], x["b"][WHERE]))
    c = a.T @ b / WHERE.sum()
    return (((np.diag(c) - 1) ** 2).sum() + x["weight"] * (c[~np.eye(D, dtype=bool)] ** 2).sum())[None]


def variance(x):
    return np.maximum(x["weight"] - np.sqrt(x["a"][WHERE].var(axis=0, ddof=1) + 1e-4), 0).mean()[None]


def covariance(x):
    return (np.cov(x["a"][WHERE].T)[~np.eye(D, dtype=bool)] ** 2).sum()[None] / D


def soft_cross_entropy(x):
    log_p = x["a"] / x["temperature"] - lse(x["a"] / x["temperature"], True)[:, None]
    return -(np.exp(TEACHER - lse(TEACHER, True)[:, None]) * log_p).sum(axis=1)


# The cases: ours, the reference, the arrays that are differentiated. A name with "many" has one temperature a row.


def ours(function, *names, scalar=False, **static):
    def values(x, **how):
        options = {name: leaf for name, leaf in x.items() if name not in names}
        found = function(*(x[name] for name in names), **options, **static, **how)
        found = found.values if isinstance(found, losses.Masked) else found
        return found[None] if scalar else found

    return values


def multi(x, combine, **how):
    options = dict(ids=SETS, key_ids=np.arange(N), where=WHERE, key_where=KEY_WHERE, temperature=x["temperature"], combine=combine)
    return losses.multi_positive_info_nce(x["a"], x["k"], LABEL_SETS, KEY_LABELS, **options, **how).values


def with_negatives(function, **static):
    def values(x, **how):
        options = {name: leaf for name, leaf in x.items() if name not in "abc"}
        return function(x["a"], x["b"], negatives=x["c"], **options, **static, **how)

    return values


def of_labels(function, *names, **static):
    """The loss of a loss of labels; `names` are those of its further arguments."""

    def values(x, **how):
        options = {argument: x[name] for argument, name in names}
        memory = dict(references=x["c"], reference_labels=REFERENCE_LABELS, reference_ids=REFERENCE_IDS, reference_where=REFERENCE_WHERE)
        return function(x["a"], LABEL_SETS, ids=IDS, where=WHERE, **memory, **options, **static, **how).values

    return values


def decoupled(x, **how):
    options = dict(temperature=x["temperature"], positive_weights=x["w2"], ids=IDS, where=WHERE)
    return losses.decoupled_info_nce(x["a"], x["b"], **options, **how)


ALL_IDS = dict(ids=IDS, key_ids=KEY_IDS, negative_ids=NEGATIVE_IDS, where=WHERE)
SIDE_IDS = dict(ids=IDS, negative_ids=NEGATIVE_IDS)
CASES = {
    "info_nce": (ours(losses.info_nce, "a", "b"), info_nce, "a b temperature"),
    "info_nce, everything, many": (
        with_negatives(losses.info_nce, label_smoothing=0.2, **ALL_IDS),
        functools.partial(info_nce, smoothing=0.2, **ALL_IDS),
        "a b c temperature",
    ),
    "info_nce, negatives alone": (
        with_negatives(losses.info_nce, in_batch=False, **SIDE_IDS),
        functools.partial(info_nce, in_batch=False, key_ids=IDS, **SIDE_IDS),
        "a b c temperature",
    ),
    "symmetric_info_nce": (ours(losses.symmetric_info_nce, "a", "b"), symmetric, "a b temperature"),
    "symmetric_info_nce, everything, many": (
        ours(losses.symmetric_info_nce, "a", "b", ids=SETS, where=WHERE, label_smoothing=0.2, similarity="sqeuclidean"),
        functools.partial(symmetric, ids=SETS, where=WHERE, smoothing=0.2, kind="sqeuclidean"),
        "a b temperature",
    ),
    "nt_xent, everything, many": (
        ours(losses.nt_xent, "a", "b", ids=IDS, where=WHERE, similarity="dot"),
        functools.partial(nt_xent, ids=IDS, where=WHERE, kind="dot"),
        "a b temperature",
    ),
    "sup_con, everything, many": (
        ours(losses.sup_con, "a", labels=LABEL_SETS, ids=IDS, where=WHERE),
        functools.partial(sup_con, labels=LABEL_SETS, ids=IDS, where=WHERE),
        "a temperature",
    ),
    "hard_contrastive, everything, many": (
        with_negatives(losses.hard_contrastive, k=6, **ALL_IDS),
        functools.partial(info_nce, k=6, **ALL_IDS),
        "a b c temperature",
    ),
    "simple_contrastive": (with_negatives(losses.simple_contrastive, **ALL_IDS), functools.partial(simple, **ALL_IDS), "a b c weight"),
    "simple_contrastive, hard": (
        ours(losses.simple_contrastive, "a", "b", k=2, ids=SETS),
        functools.partial(simple, k=2, ids=SETS, key_ids=SETS),
        "a b weight",
    ),
    "sigmoid_contrastive": (
        ours(losses.sigmoid_contrastive, "a", "b", ids=IDS, where=WHERE),
        functools.partial(sigmoid, ids=IDS, where=WHERE),
        "a b temperature bias",
    ),
    "sup_con of a memory, many": (of_labels(losses.sup_con, ("temperature", "temperature")), sup_con_of_memory, "a c temperature"),
    "decoupled_info_nce, everything, many": (decoupled, functools.partial(corrected, ids=IDS, where=WHERE), "a b temperature w2"),
    "debiased_info_nce, everything": (
        ours(losses.debiased_info_nce, "a", "b", positive_prior=0.2, ids=IDS, where=WHERE),
        functools.partial(corrected, prior=0.2, ids=IDS, where=WHERE),
        "a b temperature",
    ),
    "hard_negative_info_nce, many": (
        ours(losses.hard_negative_info_nce, "a", "b", positive_prior=0.05, concentration=0.5),
        functools.partial(corrected, prior=0.05, concentration=0.5),
        "a b temperature",
    ),
    "triplet_margin, all": (
        of_labels(losses.triplet_margin, ("margin", "margin")),
        functools.partial(triplet_margin, mining="all"),
        "a c margin",
    ),
    "triplet_margin, semi-hard": (
        of_labels(losses.triplet_margin, ("margin", "margin"), mining="semi_hard", distance="sqeuclidean"),
        functools.partial(triplet_margin, mining="semi_hard", kind="sqeuclidean"),
        "a c margin",
    ),
    "triplet_margin, hard": (
        of_labels(losses.triplet_margin, ("margin", "margin"), mining="hard"),
        functools.partial(triplet_margin, mining="hard"),
        "a c margin",
    ),
    "pairwise_contrastive": (
        of_labels(losses.pairwise_contrastive, ("positive_margin", "margin"), ("negative_margin", "t")),
        pairwise_contrastive,
        "a c margin t",
    ),
    "uniformity": (
        ours(losses.uniformity, "a", ids=IDS, where=WHERE, scalar=True),
        functools.partial(uniformity, kind="cosine", ids=IDS, where=WHERE),
        "a t",
    ),
    "uniformity of raw embeddings": (
        ours(losses.uniformity, "a", similarity="sqeuclidean", scalar=True),
        functools.partial(uniformity, kind="sqeuclidean"),
        "a t",
    ),
} | {
    f"multi_positive_info_nce, {way}, many": (
        functools.partial(multi, combine=way),
        functools.partial(multi_positive, combine=way),
        "a k temperature",
    )
    for way in ("outside", "inside", "apart")
}
SIDE_BY_SIDE = {
    f"grouped_info_nce, {way}": (
        lambda x, way=way: losses.grouped_info_nce(
            x["a"], x["positives"], x["negatives"], temperature=x["temperature"], positive_weights=x["w"], negative_weights=x["v"], combine=way
        ),
        functools.partial(grouped, combine=way),
        "a positives negatives temperature w v",
    )
    for way in ("inside", "outside", "apart")
} | {
    "alignment": (
        lambda x: losses.alignment(x["a"], x["b"], power=3),
        lambda x: (2 - 2 * np.diag(similarity(x["a"], x["b"]))) ** 1.5,
        "a b",
    ),
    "soft_cross_entropy": (
        lambda x: losses.soft_cross_entropy(x["a"], np.float32(TEACHER), temperature=x["temperature"]),
        soft_cross_entropy,
        "a temperature",
    ),
}

SIDE_BY_SIDE |= {
    "negative_cosine": (
        lambda x: losses.negative_cosine(x["a"], x["b"], stop_gradient=False),
        lambda x: -np.diag(similarity(x["a"], x["b"])),
        "a b",
    ),
    "entropy": (lambda x: losses.entropy(x["a"], where=CLASS_WHERE), lambda x: entropy(x["a"], CLASS_WHERE), "a"),
    "info_max": (lambda x: losses.info_max(x["a"], where=WHERE)[None], info_max, "a"),
    "barlow_twins": (
        lambda x: losses.barlow_twins(x["a"], x["b"], off_diagonal_weight=x["weight"], where=WHERE)[None],
        barlow_twins,
        "a b weight",
    ),
    "variance": (lambda x: losses.variance(x["a"], target=x["weight"], where=WHERE)[None], variance, "a weight"),
    "covariance": (lambda x: losses.covariance(x["a"], where=WHERE)[None], covariance, "a"),
}

RAW = "symmetric_info_nce, everything, many", "nt_xent, everything, many", "uniformity of raw embeddings"
RAW += "triplet_margin, all", "triplet_margin, semi-hard", "triplet_margin, hard", "pairwise_contrastive"
SHAPES = dict(a=(B, D), b=(B, D), c=(M, D), k=(N, D), positives=(B, 3, D), negatives=(B, 4, D))
VALUES = dict(weight=0.7, bias=-1.5, t=1.3, margin=0.4, w=np.array([0.5, 2.0, 1.0]), v=np.random.default_rng(5).uniform(0.2, 2, (B, 4)))
VALUES |= dict(w2=np.linspace(0.5, 1.5, B))


def data(name, names, temperature, zeros):
    rng = np.random.default_rng(0)
    x = {key: 0.35 * rng.normal(size=shape) for key, shape in SHAPES.items()}
    x |= VALUES | {"temperature": temperature * (rng.uniform(0.6, 1.5, B) if "many" in name else 1.0)}
    if zeros:
        x["a"][1], x["b"][4], x["k"][5] = 0, 0, 0
        x["c"][0] *= "semi-hard" in name  # where a positive and a negative are equally far, it has no derivative
    return {key: np.float32(x[key]) for key in names.split()}


# In blocks the other cases stand for these.
PLAIN = "symmetric_info_nce", "simple_contrastive, hard", "multi_positive_info_nce, outside, many", "uniformity of raw embeddings"
COTANGENT = np.random.default_rng(1).uniform(0.5, 1.5, 2 * B)


@functools.cache
def reference(name, temperature, zeros):
    """Values and central differences. A zero vector has no derivative of its cosine: its gradient is ours to say, 0."""
    _, function, names = (CASES | SIDE_BY_SIDE)[name]
    x = {key: np.float64(leaf) for key, leaf in data(name, names, temperature, zeros).items()}
    values, gradients = function(x), {}
    for key, leaf in x.items():
        gradients[key] = np.zeros_like(leaf)
        for at in np.ndindex(leaf.shape):
            if name not in RAW and leaf.ndim > 1 and not np.any(leaf[at[:-1]]):
                continue
            ends = []
            for step in (1e-6, -1e-6):
                moved = np.array(leaf)
                moved[at] += step * max(1, abs(leaf[at])) if key != "temperature" else step * leaf[at]
                ends.append((moved[at], COTANGENT[: len(values)] @ function(x | {key: moved})))
            gradients[key][at] = (ends[0][1] - ends[1][1]) / (ends[0][0] - ends[1][0])
    return values, gradients


def agree(found, name, temperature, zeros=False):
    (_, found), gradients = found
    values, expected = reference(name, temperature, zeros)
    np.testing.assert_allclose(found, values, rtol=0, atol=2e-5 + 2e-7 / temperature)
    assert found.dtype == jnp.float32
    for key, leaf in expected.items():
        np.testing.assert_allclose(gradients[key], leaf, rtol=0, atol=1e-3 * np.abs(leaf).max(), err_msg=key)


def differentiated(function, **how):
    def weighed(x):
        values = function(x, **how)
        return jnp.sum(values * COTANGENT[: len(values)].astype(np.float32)), values

    return jax.value_and_grad(weighed, has_aux=True)


def compiled(function):
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


@pytest.mark.parametrize("name", CASES)
def test_pairwise_loss_and_gradients_dense_and_in_blocks(name):
    function, _, names = CASES[name]
    ways = [dict(implementation="dense")] + [dict(implementation="blockwise", block_size=3)] * (name not in PLAIN)
    both = compiled(lambda x: [differentiated(function, **way)(x) for way in ways])
    for temperature, zeros in ((0.07, False), (0.005, False), (5.0, False), (0.5, True)):
        for found in both(data(name, names, temperature, zeros)):
            agree(found, name, temperature, zeros)


@pytest.mark.parametrize("name", SIDE_BY_SIDE)
def test_aligned_loss_and_gradients(name):
    function, _, names = SIDE_BY_SIDE[name]
    program = compiled(differentiated(function))
    for temperature in (0.07, 5.0):
        agree(program(data(name, names, temperature, False)), name, temperature)
