"""Public losses, samplers, memories and metrics on values of every kind: no crash, no silent NaN, finite where the input is.

A function is compiled once for a shape and dtype, and then fed with values at will: zeros, equal rows, tiny and large numbers, masks that keep all,
some, one or nothing, ids and labels that repeat or don't, temperatures from 0.005 to 100; then with a NaN or an infinity in a row that counts, and
in one that does not.
"""

import functools
import os
import re
import traceback

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import losses, memory, metrics, samplers

pytestmark = pytest.mark.errors  # without the type-checking hook: it looks at every call
SOAK = bool(os.environ.get("SOAK"))
SHAPES = [(4, 3), (1, 3), (6, 2), (5, 8), (2, 5), (7, 4), (3, 16), (9, 3), (4, 1), (6, 6), (8, 2), (12, 4)]  # rows, dimensions
KINDS = ["normal", "zeros", "zero row", "equal", "pairs", "tiny", "large", "mixed", "one-hot", "opposite"]
TEMPERATURES = [0.005, 0.07, 0.5, 1.0, 100.0]


def rows(rng, kind, count, dim):
    """Rows of a kind, float32."""
    x = rng.normal(size=(count, dim))
    if kind == "zeros":
        x = x * 0
    elif kind == "zero row":
        x[rng.integers(count)] = 0
    elif kind == "equal":
        x = np.broadcast_to(x[:1], x.shape).copy()
    elif kind == "pairs":
        x = np.repeat(x, 2, 0)[:count]
    elif kind == "tiny":
        x = x * 1e-30
    elif kind == "large":
        x = x * 300
    elif kind == "mixed":
        x = x * 10.0 ** rng.integers(-8, 3, (count, 1))
    elif kind == "one-hot":
        x = np.eye(dim)[rng.integers(0, dim, count)]
    elif kind == "opposite":
        x = x[:1] * np.where(rng.random((count, 1)) < 0.5, -1, 1)
    return x.astype(np.float32)


def mask(rng, count):
    kept = [np.ones(count, bool), np.zeros(count, bool), np.arange(count) == rng.integers(count), rng.random(count) < 0.6]
    return kept[rng.integers(len(kept))]


def drawn(seed, shape, dtype):
    """All that any of the functions takes."""
    rng, (count, dim) = np.random.default_rng(seed), shape
    kind, other = (KINDS[rng.integers(len(KINDS))] for _ in range(2))
    a = rows(rng, kind, count, dim)
    b = a.copy() if rng.random() < 0.2 else rows(rng, other, count, dim)
    few = int(rng.integers(1, count + 2))
    floats = {"a": a, "b": b, "c": rows(rng, kind, 3, dim), "grouped": rows(rng, kind, count * 2, dim).reshape(count, 2, dim)}
    return {name: jnp.asarray(value, dtype) for name, value in floats.items()} | {
        "ids": rng.integers(0, few, count),
        "other_ids": rng.integers(0, few, 3),
        "labels": rng.integers(0, few, count),
        "other_labels": rng.integers(0, few, 3),
        "where": mask(rng, count),
        "other_where": mask(rng, 3),
        "relevance": rng.random((count, dim)) < 0.4,
        "grouped_where": np.stack([mask(rng, 2) for _ in range(count)]),
        "temperature": np.float32(TEMPERATURES[rng.integers(len(TEMPERATURES))]),
        "key": jax.random.key(seed),
    }


def pairwise(function, *names, **options):
    """A loss of two views with what all of them take; `names` are further arguments and where they come from."""

    def call(x):
        taken = {name.partition("=")[0]: x[name.rpartition("=")[2]] for name in names}
        return function(x["a"], x["b"], ids=x["ids"], where=x["where"], **taken, **options)

    return call


def labelled(function, **options):
    """A loss of labels, with and without references."""

    def call(x):
        taken = {"temperature": x["temperature"]} if function is losses.sup_con else {}
        further = dict(references=x["c"], reference_labels=x["other_labels"], reference_where=x["other_where"], reference_ids=x["other_ids"])
        return function(x["a"], x["labels"], ids=x["ids"], where=x["where"], **taken, **further, **options)

    return call


def against(function, **options):
    """A loss of queries and keys, with negatives."""
    further = lambda x: dict(negatives=x["c"], negative_ids=x["other_ids"], negative_where=x["other_where"])  # noqa: E731
    return lambda x: pairwise(function, *([] if function is losses.simple_contrastive else ["temperature"]), **further(x), **options)(x)


def grouped(x):
    weights = dict(positive_weights=x["grouped_where"], negative_weights=~x["grouped_where"])
    return losses.grouped_info_nce(x["a"], x["grouped"], x["grouped"], temperature=x["temperature"], where=x["where"], **weights)


def columns(x):
    """One number of each row of both sides."""
    return x["a"][:, 0], x["b"][:, 0]


t = "temperature"
LOSSES = {
    "alignment": lambda x: losses.alignment(x["a"], x["b"]),
    "alignment to the fourth, euclidean": lambda x: losses.alignment(x["a"], x["b"], power=4, similarity="sqeuclidean"),
    "alignment to the first": lambda x: losses.alignment(x["a"], x["b"], power=1),
    "barlow_twins": lambda x: losses.barlow_twins(x["a"], x["b"], where=x["where"]),
    "bounded_temperature": lambda x: losses.bounded_temperature(x["a"][:, 0].mean() / 100),
    "copg": lambda x: losses.copg(*columns(x), *columns(x), *columns(x), beta=x[t], where=x["where"]),
    "copg_group": lambda x: losses.copg_group(
        *(jnp.concatenate([x[name], x["b"]], axis=1) for name in ("a", "b", "a")), beta=x[t], where=jnp.tile(x["where"][:, None], 2 * x["a"].shape[1])
    ),
    "covariance": lambda x: losses.covariance(x["a"], where=x["where"]),
    "debiased_info_nce": pairwise(losses.debiased_info_nce, t, positive_prior=0.1),
    "decoupled_info_nce": pairwise(losses.decoupled_info_nce, t),
    "dpo, ipo, bradley_terry": lambda x: (
        losses.dpo(*columns(x), *columns(x), beta=x[t], where=x["where"])
        + losses.ipo(*columns(x), *columns(x), beta=x[t], where=x["where"])
        + losses.bradley_terry(*columns(x), where=x["where"])
    ),
    "entropy": lambda x: losses.entropy(x["a"], where=x["relevance"]),
    "grouped_info_nce": lambda x: grouped(x),
    "hard_contrastive": against(losses.hard_contrastive, k=2),
    "hard_negative_info_nce": pairwise(losses.hard_negative_info_nce, t, positive_prior=0.1, concentration=1.0),
    "info_max": lambda x: losses.info_max(x["a"], where=x["where"]),
    "info_nce": against(losses.info_nce, label_smoothing=0.1),
    "info_nce of the negatives alone": against(losses.info_nce, in_batch=False, similarity="dot"),
    "info_nce, euclidean": against(losses.info_nce, similarity="sqeuclidean"),
    "info_nce, blockwise": against(losses.info_nce, implementation="blockwise", block_size=2),
    "mean": lambda x: losses.mean(x["a"][:, 0], x["where"]),
    "multi_positive_info_nce": lambda x: losses.multi_positive_info_nce(
        x["a"], x["c"], x["labels"], x["other_labels"], temperature=x[t], where=x["where"], key_where=x["other_where"]
    ),
    "multi_positive_info_nce inside": lambda x: losses.multi_positive_info_nce(
        x["a"], x["c"], x["labels"], x["other_labels"], temperature=x[t], combine="inside", where=x["where"], ids=x["ids"], key_ids=x["other_ids"]
    ),
    "negative_cosine": lambda x: losses.negative_cosine(x["a"], x["b"]),
    "nt_xent": pairwise(losses.nt_xent, t),
    "pairwise_contrastive": labelled(losses.pairwise_contrastive, negative_margin=1.0),
    "sigmoid_contrastive": pairwise(losses.sigmoid_contrastive, t, bias=-10.0),
    "simple_contrastive": against(losses.simple_contrastive, k=2),
    "soft_cross_entropy": lambda x: losses.soft_cross_entropy(x["a"], x["b"], temperature=x[t], teacher_temperature=x[t], where=x["relevance"]),
    "simctg": lambda x: losses.simctg(x["a"][None], mask=x["where"][None]),
    "sup_con": labelled(losses.sup_con),
    "symmetric_info_nce": pairwise(losses.symmetric_info_nce, t),
    "token_cross_entropy": lambda x: losses.token_cross_entropy(x["a"], x["labels"] % x["a"].shape[1], x["where"]),
    "triplet_margin": labelled(losses.triplet_margin, margin=0.2),
    "triplet_margin hard": labelled(losses.triplet_margin, margin=0.2, mining="hard"),
    "triplet_margin semi-hard": labelled(losses.triplet_margin, margin=0.2, mining="semi_hard"),
    "uniformity": lambda x: losses.uniformity(x["a"], where=x["where"], ids=x["ids"]),
    "variance": lambda x: losses.variance(x["a"], where=x["where"]),
}


def remembered(x):
    """A queue, a bank and an average, updated twice."""
    count, dim = x["a"].shape
    queue, bank, ema = memory.queue(5, dim), memory.bank(count + 3, dim, 0.5), memory.ema(0.9)
    states = queue.init(x["key"]), bank.init(x["key"]), ema.init({"w": x["a"]})
    for rows_ in (x["a"], x["b"]):
        index = jnp.arange(count) + x["labels"] % 3
        states = queue.update(states[0], rows_), bank.update(states[1], index, rows_), ema.update(states[2], {"w": rows_})
    return states[0].keys, states[1].keys, states[2].params


def mined(x, function, *leading, **options):
    found = function(*leading, x["a"], x["c"], 2, ids=x["ids"], key_ids=x["other_ids"], **options)
    return jnp.where(found.where, found.scores, 0), found.indices, found.masked


OTHERS = {
    "mine_negatives": lambda x: mined(x, samplers.mine_negatives),
    "mine_negatives at random": lambda x: mined(x, samplers.mine_negatives, sampling="random", key=x["key"], max_score=0.9),
    "semi_hard_negatives": lambda x: mined(x, samplers.semi_hard_negatives, positives=x["labels"] % 3),
    "distance_weighted_negatives": lambda x: mined(x, samplers.distance_weighted_negatives, x["key"]),
    "shuffled_batch": lambda x: samplers.shuffled_batch(x["key"], 10, 4, x["labels"][0]),
    "queue, bank, ema": remembered,
    "metrics.alignment": lambda x: metrics.alignment(x["a"], x["b"], where=x["where"]),
    "average_precision": lambda x: metrics.average_precision(x["a"], x["relevance"]),
    "average_precision_at_r": lambda x: metrics.average_precision_at_r(x["a"], x["relevance"]),
    "collapse_watch": lambda x: metrics.collapse_watch(x["a"], where=x["where"]),
    "effective_rank": lambda x: metrics.effective_rank(x["a"], where=x["where"]),
    "effective_rank centred": lambda x: metrics.effective_rank(x["a"], centre=True),
    "hubness": lambda x: metrics.hubness(x["a"], x["c"], k=1),
    "isotropy": lambda x: metrics.isotropy(x["a"], where=x["where"]),
    "knn_accuracy": lambda x: metrics.knn_accuracy(x["a"], x["labels"], x["c"], x["other_labels"], k=2, where=x["where"]),
    "label_retrieval": lambda x: metrics.label_retrieval(metrics.average_precision, x["a"], x["labels"], x["c"], x["other_labels"]),
    "mrr_at_k": lambda x: metrics.mrr_at_k(x["a"], x["relevance"], 2),
    "ndcg_at_k": lambda x: metrics.ndcg_at_k(x["a"], x["relevance"], 2),
    "nearest_centroid": lambda x: metrics.nearest_centroid(x["grouped"], x["a"]),
    "penalty_entropy": lambda x: metrics.penalty_entropy(x["a"], x[t]),
    "r_precision": lambda x: metrics.r_precision(x["a"], x["relevance"]),
    "recall_at_k": lambda x: metrics.recall_at_k(x["a"], x["relevance"], 2),
    "relative_penalty": lambda x: metrics.relative_penalty(x["a"], x[t]),
    "ridge_probe": lambda x: metrics.ridge_probe(x["a"], x["labels"], x["c"], x["other_labels"], num_classes=12),
    "tolerance": lambda x: metrics.tolerance(x["a"], x["labels"], x["where"]),
    "topk_similarity_profile": lambda x: metrics.topk_similarity_profile(jnp.concatenate([x["a"], x["c"]]), 1),
    "metrics.uniformity": lambda x: metrics.uniformity(x["a"], where=x["where"], ids=x["ids"]),
}
FLOATS = ("a", "b", "c", "grouped")
# Those that take no mask of rows: what is not finite in any row may show.
UNMASKED = {name for name in LOSSES if name.startswith("alignment")}
UNMASKED |= {"bounded_temperature", "entropy", "mean", "negative_cosine", "soft_cross_entropy"}
# Those that refuse vectors of one dimension.
WIDE = {"distance_weighted_negatives"}
# Those that give whole numbers.
SILENT = {"nearest_centroid", "shuffled_batch"}


@functools.cache
def program(name):
    """The function compiled, a loss with its gradient by all embeddings."""
    if name in OTHERS or not SOAK:  # gradients take as long again to compile, and the losses' own tests look at them
        return jax.jit(lambda x: ((OTHERS | LOSSES)[name](x), {}))

    def total(floats, rest):
        value = LOSSES[name](floats | rest)
        return losses.mean(value), value

    def run(x):
        grads, value = jax.grad(total, has_aux=True)({n: x[n] for n in FLOATS}, {n: v for n, v in x.items() if n not in FLOATS})
        return value, grads

    return jax.jit(run)


def leaves(tree):
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]


def finite(tree):
    return all(np.isfinite(leaf).all() for leaf in leaves(tree))


def complaints(name, shape, dtype, seeds):
    """What goes wrong, a line each: the function, the input, what happens."""
    run, found = program(name), []
    for seed in seeds:
        x = drawn(seed, shape, dtype)
        about = f"{name} {shape} {jnp.dtype(dtype).name} seed {seed}"
        value, grads = run(x)
        if not finite(value):
            found.append(f"{about}: finite input, value {[leaf.tolist() for leaf in leaves(value)][:3]}")
        if not finite(grads):
            found.append(f"{about}: finite input, gradient not finite: {[n for n in grads if not finite(grads[n])]}")
        row = int(np.random.default_rng(seed).integers(shape[0]))
        poisoned = x["a"].at[row, 0].set(jnp.nan)
        if name in LOSSES and name not in UNMASKED and not x["where"][row]:
            value, grads = run(x | {"a": poisoned})
            if not finite(value) or not finite({name: grad for name, grad in grads.items() if name != "a"}):
                found.append(f"{about}: NaN in row {row}, which is masked, comes through")
        if min(shape) > 1 and shape[0] > 3 and name not in SILENT and finite(run(compared(x) | {"a": poisoned})[0]):
            found.append(f"{about}: NaN in row {row} does not come to light")
        run(x | {"a": x["a"].at[row, 0].set(jnp.inf), "b": x["b"].at[row, -1].set(-jnp.inf)})  # no crash
    return found


def compared(x):
    """The same with nothing masked, ids that differ, and for each row one of its label and one of another: every row has to show in the result."""
    count, dim = x["relevance"].shape
    labels = dict(labels=np.arange(count) % 2, other_labels=np.arange(3) % 2)
    kept = dict(where=np.ones(count, bool), other_where=np.ones(3, bool), grouped_where=np.tile([True, False], (count, 1)))
    return x | labels | kept | dict(ids=np.arange(count), other_ids=100 + np.arange(3), relevance=np.tile(np.arange(dim) % 2 == 0, (count, 1)))


NAMES = [name for name in [*LOSSES, *OTHERS] if SOAK or not re.search(", euclidean|, blockwise|to the first|inside|centred|metrics.", name)]


@pytest.mark.parametrize("name", NAMES)
def test_values_are_finite_where_the_input_is_and_nan_comes_to_light(name):
    place = NAMES.index(name)
    shapes = [shape for shape in SHAPES if shape[1] > 1 or name not in WIDE]
    shapes = [shapes[(place + 5 * turn) % len(shapes)] for turn in range(4)]
    cases = [(shapes[0], jnp.float32, 4)]
    if SOAK:
        cases = [(shape, jnp.float32, 16) for shape in shapes[:3]] + [(shapes[3], jnp.bfloat16, 16)]
    found = []
    for number, (shape, dtype, count) in enumerate(cases):
        found += complaints(name, shape, dtype, range(100 * number, 100 * number + count))
    assert not found, "\n".join(found[:10])


def spoiled(rng, value):
    """An argument that is wrong in its shape, dtype or kind, or by chance still right."""
    count = value.shape[0] if value.ndim else 0
    is_float = jnp.issubdtype(value.dtype, jnp.floating)
    choices = {
        "a row less": lambda: value[: max(count - 1, 0)],
        "no row": lambda: value[:0],
        "an axis more": lambda: value[..., None],
        "an axis less": lambda: value[0],
        "another dtype": lambda: np.asarray(value, np.int32) if is_float else np.asarray(value, np.float32),
        "complex": lambda: np.asarray(value, np.complex64),
        "None": lambda: None,
        "a text": lambda: "text",
        "a list": lambda: [1, 2],
    }
    names = [name for name in choices if value.ndim or name not in ("a row less", "no row", "an axis less")]
    name = names[rng.integers(len(names))]
    return name, choices[name]()


@pytest.fixture
def _whole_tracebacks():
    """JAX hides its own frames, which are what is looked for here."""
    before = jax.config.jax_traceback_filtering
    jax.config.update("jax_traceback_filtering", "off")
    yield
    jax.config.update("jax_traceback_filtering", before)


@pytest.mark.usefixtures("_whole_tracebacks")
@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_argument_is_refused_by_the_function_itself(name):
    """By ValueError or TypeError out of cljax, at trace time: never out of the inside of jax, which would speak of something else."""
    found = []
    for seed in range(60 if SOAK else 4):
        rng, x = np.random.default_rng(seed), drawn(seed, (5, 4), jnp.float32)
        which = [key for key in x if key != "key"][rng.integers(len(x) - 1)]
        what, value = spoiled(rng, x[which])
        spoilt = x | {which: value}
        try:
            jax.eval_shape(lambda key, spoilt=spoilt: (OTHERS | LOSSES)[name](spoilt | {"key": key}), x["key"])
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            place = next(frame for frame in reversed(frames) if "/site-packages/" not in frame.filename)
            is_ours = isinstance(error, (ValueError, TypeError)) and "/cljax/" in frames[-1].filename
            if not is_ours and place.filename != __file__:  # where this table itself takes an argument apart
                line = f"{type(error).__name__}: {str(error)[:150]}"
                found.append(f"{name}, {which} with {what} (seed {seed}): at {place.name}, line {place.lineno}: {line}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "function", ["class_batches", "group_batches", "unique_batches", "bucket_batches", "few_shot_episodes", "cluster_accuracy", "linear_probe"]
)
def test_what_looks_at_values_takes_any_or_says_why_not(function):
    """These decide shapes by what the arrays hold: all that they may do is give a result or raise ValueError."""
    outcomes = {"result": 0, "refused": 0}
    for seed in range(200 if SOAK else 8):
        rng = np.random.default_rng(seed)
        count = int(rng.choice([1, 5, 12]))
        labels = rng.integers(0, max(1, int(rng.integers(1, 8))), count)
        options = {
            "class_batches": lambda labels=labels: samplers.class_batches(jax.random.key(0), labels, 4, 1, per_class=2),
            "group_batches": lambda labels=labels: samplers.group_batches(jax.random.key(0), labels, 2, 1),
            "unique_batches": lambda labels=labels: samplers.unique_batches(jax.random.key(0), labels, 2, 1),
            "bucket_batches": lambda labels=labels: samplers.bucket_batches(jax.random.key(0), labels, 2, 1, boundaries=(2, 8)),
            "few_shot_episodes": lambda labels=labels: samplers.few_shot_episodes(jax.random.key(0), labels, ways=2, shots=1, queries=1, episodes=2),
            "cluster_accuracy": lambda labels=labels: metrics.cluster_accuracy(labels[::-1].copy(), labels),
            "linear_probe": lambda labels=labels, rng=rng, count=count: metrics.linear_probe(
                rows(rng, "normal", count, 3), labels, rows(rng, KINDS[rng.integers(len(KINDS))], count, 3), labels[::-1].copy(), max_iter=20
            ),
        }
        try:
            value = options[function]()
            assert finite(jax.tree.map(jnp.asarray, value)), (function, seed)
            outcomes["result"] += 1
        except ValueError as error:
            frames = traceback.extract_tb(error.__traceback__)
            assert "/cljax/" in frames[-1].filename, (function, seed, frames[-1], error)
            outcomes["refused"] += 1
    assert outcomes["result"] > 0
