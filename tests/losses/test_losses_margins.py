"""Triplets, pairs with margins, and losses of labels against a memory: where they usually break."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from cljax import losses, memory

B, D, M = 8, 3, 4
RNG = np.random.default_rng(1)
X, PAST = (RNG.normal(size=(n, D)).astype(np.float32) for n in (B, M))
LABELS, PAST_LABELS = np.array([0, 1, 0, 2, 1, 0, 3, 2]), np.array([0, 3, 1, 4])
MININGS = "all", "semi_hard", "hard"
QUICKLY = {"xla_backend_optimization_level": 0}


def compiled(function, *arguments):
    return jax.device_get(jax.jit(function, compiler_options=QUICKLY)(*arguments))


def each(x, labels=LABELS, names=(*MININGS, "pairs", "softmax"), **options):
    """Every loss of labels, with the triplets in their three kinds."""
    ways = {mining: lambda mining=mining: losses.triplet_margin(x, labels, margin=0.5, mining=mining, **options) for mining in MININGS} | {
        "pairs": lambda: losses.pairwise_contrastive(x, labels, negative_margin=2.0, **options),
        "softmax": lambda: losses.sup_con(x, labels, temperature=0.5, **options),
    }
    return {name: ways[name]() for name in names}


def with_gradient(x, labels=LABELS, names=(*MININGS, "pairs"), **options):
    """Those losses, and the gradient of the sum of their means."""

    def total(x):
        found = each(x, labels, names, **options)
        return sum(map(losses.mean, found.values())), found

    (_, found), gradient = jax.value_and_grad(total, has_aux=True)(x)
    return found, gradient


def test_labels_near_the_end_of_their_range_are_told_apart():
    signed = np.array([2**31 - 1, 2**31 - 2, 2**31 - 3, -(2**31)], np.int32)
    unsigned = np.array([2**31, 2**31 - 1, 2**32 - 1, 0], np.uint32)
    plain, *others = compiled(lambda x: [each(x, labels, ("all", "pairs")) for labels in (LABELS, signed[LABELS], unsigned[LABELS])], X)
    for name, found in plain.items():
        for large in others:
            np.testing.assert_array_equal(found.where, large[name].where, err_msg=name)
            np.testing.assert_allclose(found.values, large[name].values, rtol=1e-6, err_msg=name)


def test_of_one_class_there_is_no_triplet():
    labels = np.zeros(B, int)
    (found, gradient), others = compiled(lambda x: (with_gradient(x, labels, MININGS), each(x, labels, ("pairs", "softmax"))), X)
    for mining in MININGS:
        assert not found[mining].where.any() and not found[mining].values.any()
    assert not gradient.any()
    assert others["pairs"].where.all() and others["softmax"].where.all()


def test_where_all_labels_differ_there_is_no_positive():
    labels = np.arange(B)
    (found, gradient), others = compiled(lambda x: (with_gradient(x, labels, (*MININGS, "softmax")), each(x, labels, ("pairs",))), X)
    for name in found:
        assert not found[name].where.any() and not found[name].values.any()
    assert not gradient.any()
    assert others["pairs"].where.all() and others["pairs"].values.any()


def test_one_row_has_no_pair():
    found, gradient = compiled(with_gradient, X[:1], LABELS[:1])
    assert not any(part.where.any() or part.values.any() for part in found.values()) and not gradient.any()


def test_equal_embeddings_keep_their_margin_and_have_no_gradient():
    found, gradient = compiled(with_gradient, np.full((B, D), 0.7, np.float32))
    np.testing.assert_allclose(found["all"].values, 0.5 * found["all"].where, atol=1e-6)
    np.testing.assert_allclose(found["hard"].values, 0.5 * found["hard"].where, atol=1e-6)
    assert not found["semi_hard"].values.any()  # no negative is farther than a positive
    np.testing.assert_allclose(found["pairs"].values, 2, atol=1e-6)
    np.testing.assert_array_equal(gradient, 0)


def test_zero_vectors_have_finite_gradients():
    x = X.copy()
    x[:3] = 0

    def total(x):
        options = [dict(margin=0.5, mining=mining, distance=distance) for mining in ("all", "hard") for distance in ("euclidean", "cosine")]
        return sum(losses.mean(losses.triplet_margin(x, LABELS, **o)) for o in options)

    assert np.isfinite(compiled(jax.grad(total), x)).all()


def test_a_negative_as_far_as_the_positive_is_not_farther():
    x = np.float32([[0, 0], [3, 4], [5, 0], [7, 0]])
    values, where = compiled(lambda x: losses.triplet_margin(x, np.array([0, 0, 1, 1]), margin=3.0, mining="semi_hard"), x)
    np.testing.assert_allclose(values, [1, 8 - 32**0.5, 5 - 20**0.5, 0], atol=1e-5)
    assert where.all()


def test_satisfied_triplets_give_zero_and_count():
    """An anchor whose triplets are all satisfied has value 0 and is no anchor without a triplet."""
    x = 10 * np.eye(4, D, dtype=np.float32)[LABELS] + 0.01 * X
    found = compiled(each, x)
    for mining in MININGS:
        np.testing.assert_array_equal(found[mining].where, LABELS != 3)
        assert not found[mining].values.any()


def test_a_bad_number_surfaces_in_every_anchor_that_meets_it():
    x = X.copy()
    x[3, 1] = np.nan
    found = compiled(each, x)
    for name, (values, where) in found.items():
        assert np.isnan(values[where]).all(), name


def test_many_triplets_are_averaged_exactly():
    x, labels = RNG.normal(size=(120, D)).astype(np.float32) + 5, RNG.integers(0, 6, 120)
    distance = np.sqrt(((x[:, None].astype(float) - x) ** 2).sum(-1))
    same, eye = labels[:, None] == labels, np.eye(120, dtype=bool)
    hinges = 0.2 + distance[:, :, None] - distance[:, None]
    counted = (same & ~eye)[:, :, None] & ~same[:, None] & (hinges > 0)
    expected = np.where(counted, hinges, 0).sum((1, 2)) / counted.sum((1, 2))
    ways = dict(implementation="dense"), dict(implementation="blockwise", block_size=60)
    for found in compiled(lambda x: [losses.triplet_margin(x, labels, margin=0.2, **way).values for way in ways], x):
        np.testing.assert_allclose(found, expected, rtol=2e-5)


@pytest.mark.parametrize("mining", ["all", "semi_hard"])
def test_pairs_of_all_rows_are_never_held(mining):
    rows = 4096
    loss = lambda x, labels: losses.mean(losses.triplet_margin(x, labels, margin=0.2, mining=mining, block_size=64))  # noqa: E731
    shapes = jax.ShapeDtypeStruct((rows, 8), jnp.float32), jax.ShapeDtypeStruct((rows,), jnp.int32)
    program = jax.jit(jax.grad(loss), compiler_options=QUICKLY).lower(*shapes).compile()
    assert program.memory_analysis().temp_size_in_bytes < 4 * rows**2 / 2


# A memory.


def test_slots_that_are_not_filled_count_nowhere():
    filled = np.array([True, False, True, False])
    past = np.where(filled[:, None], PAST, np.nan)
    memories = (
        dict(references=past, reference_labels=PAST_LABELS, reference_where=filled),
        dict(references=PAST[filled], reference_labels=PAST_LABELS[filled]),
    )

    def softmax(x, negatives, **mask):
        common = dict(negatives=negatives, **mask)
        return (
            losses.info_nce(x, -x, temperature=0.5, **common),
            losses.hard_contrastive(x, -x, temperature=0.5, k=9, **common),
        )

    (values, gradient), (expected, slope) = compiled(lambda x: [with_gradient(x, LABELS, ("all", "hard"), **options) for options in memories], X)
    for name in values:
        np.testing.assert_allclose(values[name].values, expected[name].values, rtol=1e-5, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-6)
    masked, less = compiled(lambda x: (softmax(x, past, negative_where=filled), softmax(x, PAST[filled])), X)
    np.testing.assert_allclose(masked, less, rtol=1e-5, atol=1e-6)


def test_references_alone_are_compared_with_where_in_batch_is_false():
    def found(x):
        past = dict(references=PAST, reference_labels=PAST_LABELS)
        softmax = losses.multi_positive_info_nce(x, PAST, LABELS, PAST_LABELS, temperature=0.5)
        return each(x, in_batch=False, **past), softmax, each(jnp.concatenate([x[:1], PAST]), np.append(LABELS[:1], PAST_LABELS))

    alone, softmax, one_with_them = compiled(found, X)
    np.testing.assert_allclose(alone["softmax"].values, softmax.values, rtol=1e-6)
    for name in alone:
        np.testing.assert_allclose(alone[name].values[0], one_with_them[name].values[0], rtol=1e-5, err_msg=name)


def test_a_queue_of_past_batches_and_their_labels():
    """The labels go into a ring of their own, at the queue's pointer; a queue is enqueued after the loss, which compares with the batch itself."""
    capacity, init_and_update = 5, memory.queue(5, D)
    batches, names = RNG.normal(size=(3, 2, D)).astype(np.float32), np.array([[0, 1], [2, 1], [0, 3]])

    @jax.jit
    def step(state, ring, x, labels):
        queued = dict(references=state.keys, reference_labels=ring, reference_where=ring >= 0)
        slots = (state.pointer + jnp.arange(len(labels))) % capacity
        values = losses.pairwise_contrastive(x, labels, negative_margin=2.0, **queued).values
        return init_and_update.update(state, x), ring.at[slots].set(labels), values

    @jax.jit
    def whole(x, labels, seen, seen_labels):
        return losses.pairwise_contrastive(x, labels, negative_margin=2.0, references=seen, reference_labels=seen_labels).values

    state, ring = init_and_update.init(jax.random.key(0)), jnp.full(capacity, -1)
    for n, (x, labels) in enumerate(zip(batches, names, strict=True)):
        state, ring, values = step(state, ring, x, labels)
        if n:
            seen, seen_labels = batches[:n].reshape(-1, D), names[:n].ravel()
            np.testing.assert_allclose(values, whole(x, labels, seen, seen_labels), rtol=1e-5)
    assert sorted(ring.tolist()) == [0, 1, 1, 2, 3]  # the oldest label is gone


def test_references_may_be_split_over_devices():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))

    def found(x, labels, past, past_labels, axis=None):
        options = dict(references=past, reference_labels=past_labels, axis_name=axis, references_axis_name=axis)
        return {name: losses.mean(value, axis_name=axis) for name, value in each(x, labels, ("semi_hard", "hard", "softmax"), **options).items()}

    split = jax.shard_map(lambda *arrays: found(*arrays, axis="data"), mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P())
    whole, parts = (compiled(f, X, LABELS, PAST, PAST_LABELS) for f in (found, split))
    for name in whole:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-5, err_msg=name)
