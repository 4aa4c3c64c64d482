"""Batches by id, class, group and length: what may be together, that all come, and that an epoch is a pure function of its number."""

from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import samplers

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
N, B = 61, 8
IDS = RNG.integers(0, 30, N)
LABELS = RNG.permutation(np.repeat([-(2**31), 3, 20, 2**31 - 1, 2], [8, 9, 10, 14, 20]))  # at both ends of 32 bits
LENGTHS = RNG.integers(1, 100, N)
SAMPLERS = {
    "unique": partial(samplers.unique_batches, batch=B),
    "class": partial(samplers.class_batches, batch=B, per_class=2),
    "group": partial(samplers.group_batches, batch=B),
    "partial": partial(samplers.group_batches, batch=16, partial=True),
    "bucket": partial(samplers.bucket_batches, batch=B, boundaries=(16, 32, 64, 128)),
}
GIVEN = {"unique": IDS, "bucket": LENGTHS}


@pytest.fixture(scope="module")
def epochs():
    """Epochs 0 to 1999 of each sampler, from one compiled program each: the first array of what it returns, and all of it."""

    def many(name):
        if name not in found:
            program = jax.jit(jax.vmap(partial(call, name), (None, None, 0)))
            found[name] = jax.device_get(program(KEY, GIVEN.get(name, LABELS), np.arange(2000)))
        return found[name]

    found = {}
    return many


def call(name, key, given, epoch):
    result = SAMPLERS[name](key, given, epoch=epoch)
    return result if isinstance(result, tuple) else (result, result >= 0)


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_epoch_is_a_pure_function_of_its_number_and_nothing_recompiles_when_contents_change(epochs, name):
    traces, every, given = [], epochs(name), GIVEN.get(name, LABELS).astype(np.int32)

    @jax.jit
    def program(key, given, epoch):
        traces.append(1)
        return call(name, key, given, epoch)

    for got, want in zip(program(KEY, given, jnp.int32(7)), every, strict=True):  # asked for from the middle
        np.testing.assert_array_equal(got, want[7])
    assert len({epoch.tobytes() for epoch in every[0][:100]}) == 100
    assert not np.array_equal(program(jax.random.key(1), given, jnp.int32(7))[0], every[0][7])
    program(KEY, RNG.permutation(given), jnp.int32(8))
    assert len(traces) == 1


def test_concrete_arguments_of_any_integer_dtype_give_the_same(epochs):
    for epoch in (7, np.int64(7), jnp.uint8(7)):
        np.testing.assert_array_equal(call("unique", KEY, IDS, epoch)[0], epochs("unique")[0][7])


def test_no_two_of_a_batch_share_an_id_and_all_batches_are_full(epochs):
    indices, where = epochs("unique")
    assert indices.shape == (2000, N // B, B) and where.all()
    drawn = np.sort(IDS[indices], axis=2).reshape(-1, B)  # 14000 batches
    assert (np.diff(drawn, axis=1) > 0).all()
    assert (np.diff(np.sort(indices.reshape(2000, -1), axis=1), axis=1) > 0).all()  # each example once at most
    times = np.bincount(indices.ravel(), minlength=N)
    expected = indices.size / N  # 5 of 61 are left out of each epoch, evenly
    assert ((times - expected) ** 2 / expected).sum() < 100


@pytest.fixture(scope="module")
def pairs_of_twelve():
    """Epochs 0 to 1999 of 24 examples in six batches of 4, as a function of the ids."""
    program = jax.jit(jax.vmap(lambda ids, epoch: samplers.unique_batches(KEY, ids, 4, epoch).indices, (None, 0)))
    return lambda ids: np.asarray(program(ids.astype(np.int32), np.arange(2000)))


def test_who_meets_whom_is_even_among_those_who_may_meet(pairs_of_twelve):
    ids = np.where(np.arange(24) == 1, 0, np.arange(24))  # example 1 is example 0 again
    drawn = pairs_of_twelve(ids)
    partners = drawn[(drawn == 0).any(axis=2)]
    assert len(partners) == 2000  # once an epoch
    times = np.bincount(partners.ravel(), minlength=24)
    assert times[0] == 2000 and times[1] == 0
    expected = 6000 / 22
    assert ((times[2:] - expected) ** 2 / expected).sum() < 46.8  # chi-square, 21 degrees of freedom: 0.1 %


def test_members_of_two_ids_do_not_move_together(pairs_of_twelve):
    ids = np.repeat(np.arange(12), 2)
    drawn = ids[pairs_of_twelve(ids)[:300]]
    both = [len(set(a) & set(b)) for epoch in drawn for i, a in enumerate(epoch) for b in epoch[:i]]
    assert np.mean(np.equal(both, 4)) < 0.02  # two batches of the same four ids are rare


def test_an_id_that_is_too_frequent_leaves_slots_empty_at_the_end_of_batches():
    ids = np.where(np.arange(N) < 40, 7, np.arange(N))  # forty times the same, and 21 others, in 7 batches of 8
    indices, where = jax.device_get(samplers.unique_batches(KEY, ids, B, 3))
    assert where.sum() == 21 + 7 and set(where.sum(axis=1)) == {4}
    np.testing.assert_array_equal(where, np.arange(B) < where.sum(axis=1)[:, None])
    assert (indices[~where] == -1).all()
    for row, kept in zip(indices, where, strict=True):
        assert (ids[row[kept]] == 7).sum() == 1


def test_ids_beyond_32_bits_are_told_apart():
    ids = np.arange(N, dtype=np.int64) << 32  # all equal in their lower bits
    assert samplers.unique_batches(KEY, ids.astype(np.int64), B, 0).where.all()


def test_a_batch_has_so_many_of_each_class_and_classes_take_turns(epochs):
    indices, _ = epochs("class")
    assert indices.shape == (2000, N // B, B)
    labels = LABELS[indices].reshape(2000, N // B, 4, 2)
    assert (labels[..., 0] == labels[..., 1]).all()
    assert (np.diff(np.sort(labels[..., 0], axis=2), axis=2) > 0).all()  # 14000 batches of four different classes
    assert (np.diff(np.sort(indices, axis=2), axis=2) > 0).all()  # of different examples
    turns = np.array([[(epoch == label).sum() for label in np.unique(LABELS)] for epoch in labels[..., 0]])
    assert turns.min() == 5 and turns.max() == 6  # 28 turns of five classes
    for label in np.unique(LABELS):  # within a class all examples come equally often
        times = np.bincount(indices[LABELS[indices] == label], minlength=N)[label == LABELS]
        assert (abs(times / times.mean() - 1) < 0.08).all()


two_of_each = jax.jit(partial(samplers.class_batches, batch=4, per_class=2))


def test_examples_of_a_class_come_again_only_when_all_have_come():
    labels = np.repeat(np.arange(2), [6, 30])
    indices = np.asarray(two_of_each(KEY, labels, epoch=0)).reshape(9, 2, 2)
    small = indices[labels[indices[..., 0]] == 0]
    assert set(Counter(small.ravel().tolist()).values()) == {3}  # nine turns of two, of six examples
    assert len({tuple(sorted(pair)) for pair in small.tolist()}) > 5  # in other pairs each time


def test_traced_labels_leave_small_classes_out_and_what_cannot_be_filled_is_minus_one():
    labels = np.where(np.arange(36) == 5, 2, np.arange(36) % 2)
    indices = np.asarray(two_of_each(KEY, labels, epoch=1))
    assert set(labels[indices].ravel()) == {0, 1} and (indices >= 0).all()
    indices = np.asarray(two_of_each(KEY, np.maximum(np.arange(36), 30), epoch=1))  # one class of 31
    assert ((indices >= 0).sum(axis=1) == 2).all()


def test_a_batch_is_of_one_group_and_whole_groups_are_dealt_out(epochs):
    indices, where = epochs("group")
    counts = np.unique(LABELS, return_counts=True)[1]
    assert (where.all(axis=2) == where.any(axis=2)).all() and (where.any(axis=2).sum(axis=1) == (counts // B).sum()).all()
    assert (np.diff(where.any(axis=2).astype(int), axis=1) <= 0).all()  # the empty ones last
    kept = indices[where.any(axis=2)]
    assert (LABELS[kept] == LABELS[kept[:, :1]]).all()
    for epoch, there in zip(indices[:100], where[:100], strict=True):
        assert len(set(epoch[there])) == there.sum()
    first = LABELS[indices[:, 0, 0]]  # the order of the batches is random
    share = np.array([(first == label).mean() for label in np.unique(LABELS)])
    np.testing.assert_allclose(share, (counts // B) / (counts // B).sum(), atol=0.05)


def test_small_groups_have_a_share_of_the_batches(epochs):
    indices, where = epochs("partial")  # three batches of 16, groups of 8, 9, 10, 14, 20
    assert indices.shape == (2000, 3, 16)
    np.testing.assert_array_equal(where, np.arange(16) < where.sum(axis=2)[..., None])
    labels = LABELS[indices]
    assert (np.where(where, labels == labels[..., :1], True)).all()
    for value, size in zip(*np.unique(LABELS, return_counts=True), strict=True):
        mine = labels[..., 0] == value
        np.testing.assert_allclose(mine.sum(axis=1).mean(), 3 * size / N, atol=0.05)
        assert mine.sum(axis=1).max() <= -(-size // 16)  # rounded up at most
        alone = mine & (mine.sum(axis=1, keepdims=True) == 1)
        assert (where.sum(axis=2)[alone] == min(size, 16)).all()
    for epoch, there in zip(indices[:100], where[:100], strict=True):
        assert len(set(epoch[there])) == there.sum()


def test_one_group_is_a_shuffle():
    indices, where = samplers.group_batches(KEY, np.zeros(N, int), B, 2)
    assert where.all() and len(set(np.ravel(indices))) == N // B * B


def test_lengths_of_a_batch_are_of_one_bucket_or_of_neighbours_and_company_changes(epochs):
    indices, length = epochs("bucket")
    assert indices.shape == (2000, N // B, B)
    lengths, bounds = LENGTHS[indices], np.array([16, 32, 64, 128])
    bucket = np.searchsorted(bounds, lengths)
    np.testing.assert_array_equal(length, bounds[bucket.max(axis=2)])
    assert ((bucket.max(axis=2) > bucket.min(axis=2)).sum(axis=1) <= 3).all()  # where two buckets meet
    assert (np.diff(np.sort(indices.reshape(2000, -1), axis=1), axis=1) > 0).all()
    times = np.bincount(indices.ravel(), minlength=N)
    assert (abs(times / times.mean() - 1) < 0.05).all()
    with_zero = [set(epoch[(epoch == 0).any(axis=1)].ravel()) for epoch in indices[:50] if (epoch == 0).any()]
    assert len(set.union(*with_zero)) > B  # not always the same company


@partial(jax.jit, static_argnames="episodes")
def episodes_of(labels, episodes):
    return samplers.few_shot_episodes(KEY, labels, ways=3, shots=4, queries=(2, 1, 3), episodes=episodes)


def test_episodes_have_different_examples_of_different_classes():
    support, asked, ways = jax.device_get(episodes_of(LABELS, 3200))
    assert support.shape == (3200, 3, 4) and asked.shape == (3200, 6) and ways.tolist() == [0, 0, 1, 2, 2, 2]
    labels = LABELS[support]
    assert (labels == labels[..., :1]).all() and (np.diff(np.sort(labels[..., 0], axis=1), axis=1) > 0).all()
    assert (LABELS[asked] == labels[:, ways, 0]).all()
    assert (np.diff(np.sort(np.concatenate([support.reshape(3200, -1), asked], axis=1), axis=1), axis=1) > 0).all()
    counts = np.array([(labels[..., 0] == label).sum() for label in np.unique(LABELS)])
    assert ((counts - 1920) ** 2 / 1920).sum() < 18.5  # chi-square, 4 degrees of freedom: 0.1 %
    for label in np.unique(LABELS):
        times = np.bincount(support[labels == label], minlength=N)[label == LABELS]
        assert (abs(times / times.mean() - 1) < 0.15).all()


def test_more_episodes_keep_the_first():
    for few, many in zip(episodes_of(LABELS, 64)[:2], episodes_of(LABELS, 3200)[:2], strict=True):
        np.testing.assert_array_equal(few, many[:64])


def test_ways_without_a_class_are_minus_one_where_labels_are_traced():
    small = episodes_of(np.where(np.arange(N) < 57, 5, 6).astype(np.int32), 3200)  # one class that is large enough
    assert ((np.asarray(small.support) >= 0).all(axis=2).sum(axis=1) == 1).all()


def test_whole_groups_are_held_out_each_as_often_as_any_other():
    groups = np.random.default_rng(0).permutation(np.repeat([9, 2, 4, 7, 5, 3], [5, 1, 2, 2, 3, 4]))
    drawn, counts = [samplers.held_out_groups(jax.random.key(i), groups) for i in range(300)], dict.fromkeys((2, 3, 4, 5, 7, 9), 0)
    for where in drawn:
        out = set(groups[where].tolist())
        assert len(out) == 2 and not out & set(groups[~where].tolist())  # 1.2 groups, rounded up
        for name in out:
            counts[name] += 1
    scatter = sum((count - 100) ** 2 for count in counts.values()) / (300 * 1 / 3 * 2 / 3) * 5 / 6
    assert scatter < 20.5  # chi square with 5 degrees of freedom, 0.1 %
    assert [len(np.unique(groups[samplers.held_out_groups(KEY, groups, share)])) for share in (0.5, 0.99)] == [3, 5]


def test_draws_are_the_same_with_64_bits():
    def drawn():
        yield from (sampler(KEY, GIVEN.get(name, LABELS), epoch=2) for name, sampler in SAMPLERS.items())
        yield samplers.few_shot_episodes(KEY, LABELS, ways=3, shots=2, queries=3, episodes=4)
        yield samplers.shuffled_rows(KEY, 7, np.arange(9))
        yield samplers.corpus_batch(KEY, KEY, np.array([20, 5]), 4, 3)
        yield samplers.spread_clips(10, 4, clips=3)

    plain = list(drawn())
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        wide = list(drawn())
        more = samplers.mixture_rows(KEY, np.array([20, 5]), 4), samplers.draw_hard_or_random(KEY, np.ones((2, 3), int), 9, share=0.5)
    for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(wide), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert all(rows.dtype == jnp.int32 for rows in more)  # by random floats, of which 64 bits make others


@pytest.mark.errors
@pytest.mark.parametrize(
    "error, text, draw",
    [
        (ValueError, "ids must hold at least batch = 4 different ids, got 3", lambda: samplers.unique_batches(KEY, np.arange(9) % 3, 4, 0)),
        (ValueError, r"ids must not be empty, got shape \[0\]", lambda: samplers.unique_batches(KEY, np.arange(0), 4, 0)),
        (ValueError, "batch must be at least 1 and at most 9, got 10", lambda: samplers.unique_batches(KEY, np.arange(9), 10, 0)),
        (TypeError, "ids must have dtype int, got float32", lambda: samplers.unique_batches(KEY, np.ones(9, np.float32), 4, 0)),
        (TypeError, "ids must be an array, got list", lambda: samplers.unique_batches(KEY, [1, 2], 1, 0)),
        (TypeError, "key must be a PRNG key", lambda: samplers.unique_batches(0, np.arange(9), 4, 0)),
        (ValueError, "epoch must be at least 0, got -1", lambda: samplers.bucket_batches(KEY, LENGTHS, 4, -1, boundaries=(128,))),
        (
            ValueError,
            "labels must hold at least per_class = 9 members of each class, but class -2147483648 has 8",
            lambda: samplers.class_batches(KEY, LABELS, 18, 0, per_class=9),
        ),
        (ValueError, "labels must hold at least 6 classes, got 5", lambda: samplers.class_batches(KEY, LABELS, 12, 0, per_class=2)),
        (ValueError, "batch must be a multiple of per_class = 3, got 8", lambda: samplers.class_batches(KEY, LABELS, 8, 0, per_class=3)),
        (
            ValueError,
            "batch must be at most the size of the largest group, 20 of group 2, got 21",
            lambda: samplers.group_batches(KEY, LABELS, 21, 0),
        ),
        (ValueError, "groups must hold two different ones at least, got 1", lambda: samplers.held_out_groups(KEY, np.ones(3, int))),
        (TypeError, "groups must have dtype int", lambda: samplers.held_out_groups(KEY, np.arange(3.0))),
        (ValueError, "share must be above 0 and below 1, got 1", lambda: samplers.held_out_groups(KEY, np.arange(3), 1)),
        (TypeError, "share must be a number, got 'half'", lambda: samplers.held_out_groups(KEY, np.arange(3), "half")),
        (ValueError, r"groups must not be empty", lambda: samplers.group_batches(KEY, np.arange(0), 1, 0)),
        (ValueError, "lengths must be at most the last boundary, 64, got", lambda: samplers.bucket_batches(KEY, LENGTHS, 8, 0, boundaries=(32, 64))),
        (ValueError, r"boundaries must rise, got \(64, 32\)", lambda: samplers.bucket_batches(KEY, LENGTHS, 8, 0, boundaries=(64, 32))),
        (TypeError, "boundaries must be a sequence of integers", lambda: samplers.bucket_batches(KEY, LENGTHS, 8, 0, boundaries=())),
        (
            ValueError,
            r"labels must hold at least shots \+ queries = 9 members of each class, but class -2147483648 has 8",
            lambda: samplers.few_shot_episodes(KEY, LABELS, ways=2, shots=4, queries=5),
        ),
        (ValueError, "at least 6 classes, got 5", lambda: samplers.few_shot_episodes(KEY, LABELS, ways=6, shots=1, queries=1)),
        (ValueError, "one for each of the 3 ways, got 2", lambda: samplers.few_shot_episodes(KEY, LABELS, ways=3, shots=1, queries=(1, 1))),
    ],
)
def test_bad_input_is_named(error, text, draw):
    with pytest.raises(error, match=text):
        draw()
