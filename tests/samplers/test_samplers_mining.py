"""Miners: the rules against float64 loops, draws against their probabilities, what is masked, and what losses make of it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import losses, samplers

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
B, N, D = 5, 40, 6
QUERIES, KEYS = (RNG.normal(size=(n, D)).astype(np.float32) for n in (B, N))
POSITIVES = np.array([[3, 11], [4, -1], [5, 0], [-1, -1], [7, 8]])
IDS, KEY_IDS = np.array([1, 2, 3, 4, 2**31 - 1]), RNG.integers(0, 6, N)
KEY_IDS[9] = 2**31 - 1
GIVEN = dict(positives=POSITIVES, ids=IDS, key_ids=KEY_IDS)


def cosines(similarity="cosine", queries=QUERIES, keys=KEYS):
    q, k = queries.astype(np.float64), keys.astype(np.float64)
    if similarity == "sqeuclidean":
        return -((q[:, None] - k[None]) ** 2).sum(-1)
    return q @ k.T / (np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(k, axis=1)) if similarity == "cosine" else q @ k.T


def candidates(scores, first=0, last=None, min_score=-np.inf, max_score=np.inf, absolute_margin=None, relative_margin=None):
    """For each query the keys that the rules leave, nearest first, and how many they left out; in plain loops."""
    left, masked = [], []
    for i, row in enumerate(scores):
        own = {int(p) for p in POSITIVES[i] if p >= 0}
        free = [j for j in np.argsort(-row, kind="stable") if j not in own and KEY_IDS[j] != IDS[i]]
        window = free[first:last]
        high = max_score
        if own and absolute_margin is not None:
            high = min(high, min(row[j] for j in own) - absolute_margin)
        if own and relative_margin is not None:
            positive = min(row[j] for j in own)
            high = min(high, positive - relative_margin * abs(positive))
        left.append([int(j) for j in window if min_score <= row[j] <= high])
        masked.append(len(row) - len(free) + len(window) - len(left[-1]))
    return left, masked


RULES = [
    dict(),
    dict(first=3),
    dict(first=2, last=6),
    dict(max_score=0.2, min_score=-0.3),
    dict(absolute_margin=0.1, first=1),
    dict(relative_margin=0.05, last=12),
    dict(absolute_margin=0.1, relative_margin=0.3, max_score=0.1, similarity="sqeuclidean"),
]


@pytest.fixture(scope="module")
def mined():
    """All of `RULES`, taken from the top and at random, in one program."""

    def program(queries, keys, given):
        def both(rules):
            mine = partial(samplers.mine_negatives, queries, keys, 4, **given, **rules)
            return mine(), mine(sampling="random", key=KEY)

        return [both(rules) for rules in RULES]

    return jax.device_get(jax.jit(program)(QUERIES, KEYS, GIVEN))


@pytest.mark.parametrize("number", range(len(RULES)))
def test_the_most_similar_of_what_the_rules_leave(mined, number):
    rules = dict(RULES[number])
    scores = cosines(rules.pop("similarity", "cosine"))
    left, masked = candidates(scores, **rules)
    top, random = mined[number]
    for i in range(B):
        found = left[i][:4]
        assert top.indices[i].tolist() == found + [-1] * (4 - len(found))
        np.testing.assert_allclose(top.scores[i], list(scores[i][found]) + [-np.inf] * (4 - len(found)), atol=1e-5)
        drawn = random.indices[i][random.where[i]].tolist()
        assert len(set(drawn)) == len(drawn) == len(found) and set(drawn) <= set(left[i])
        np.testing.assert_allclose(random.scores[i][: len(drawn)], scores[i][drawn], atol=1e-5)
    for got in (top, random):
        np.testing.assert_array_equal(got.where, got.indices >= 0)
        np.testing.assert_array_equal(got.masked, masked)


def test_a_window_and_the_whole_collection_draw_the_same():
    mine = jax.jit(partial(samplers.mine_negatives, k=4, sampling="random", key=KEY, **GIVEN), static_argnames="last")
    for whole, window in zip(mine(QUERIES, KEYS)[:2], mine(QUERIES, KEYS, last=N)[:2], strict=True):
        np.testing.assert_array_equal(whole, window)


@pytest.fixture(scope="module")
def drawn():
    """Ten thousand draws of two of nine keys by each sampler: each row is another example, all with the same embedding."""
    keys = np.array([[np.cos(a), np.sin(a), 0, 0] for a in np.deg2rad([0, 20, 40, 60, 75, 80, 82, 120, 10])], np.float32)
    query = np.broadcast_to(np.float32([1, 0, 0, 0]), (10000, 4))

    @jax.jit
    def program(query, keys, positives, ids):
        given = dict(positives=positives, ids=ids, key_ids=jnp.arange(9))
        random = samplers.mine_negatives(query, keys, 2, min_score=0.0, sampling="random", key=KEY, **given)
        return random, samplers.distance_weighted_negatives(KEY, query, keys, 2, **given)

    return jax.device_get(program(query, keys, np.zeros(10000, int), np.full(10000, 8)))


def weights():
    distance = np.maximum(2 * np.sin(np.deg2rad([20, 40, 60, 75, 80, 82]) / 2), 0.5)
    return 1 / (distance**2 * np.sqrt(1 - distance**2 / 4))  # D = 4


@pytest.mark.parametrize("number", (0, 1))
def test_draws_follow_their_probabilities_and_nothing_forbidden_is_drawn(drawn, number):
    found = drawn[number]
    assert found.where.all() and set(found.indices.ravel()) == {1, 2, 3, 4, 5, 6}  # not the positive, the one with its id, the far one
    assert (found.masked == 3).all() and (found.indices[:, 0] != found.indices[:, 1]).all()
    share = weights() / weights().sum() if number else np.full(6, 1 / 6)
    first = np.bincount(found.indices[:, 0], minlength=7)[1:]
    assert ((first - 10000 * share) ** 2 / (10000 * share)).sum() < 20.5  # chi-square, 5 degrees of freedom: 0.1 %
    pairs = np.zeros((6, 6))
    np.add.at(pairs, tuple((found.indices - 1).T), 1)
    expected = 10000 * share[:, None] * share[None] / (1 - share[:, None])  # the second of those that are left
    off = ~np.eye(6, dtype=bool)
    assert ((pairs - expected) ** 2 / expected)[off].sum() < 58.3  # 29 degrees of freedom: 0.1 %


def test_draws_hang_on_the_example_and_not_on_its_place():
    mine = jax.jit(lambda queries, index: samplers.distance_weighted_negatives(KEY, queries, KEYS, 3, index=index).indices)
    order = np.array([4, 2, 0, 1, 3])
    index = np.array([10, 77, 5, 123456, 2**31 - 1])
    np.testing.assert_array_equal(mine(QUERIES[order], index[order]), np.asarray(mine(QUERIES, index))[order])
    assert not np.array_equal(mine(QUERIES, index), mine(QUERIES, index - 1))


def test_semi_hard_negatives_lie_between_the_positive_and_the_margin():
    mine = jax.jit(lambda margin: samplers.semi_hard_negatives(QUERIES, KEYS, 3, margin=margin, **GIVEN))
    scores, found = cosines(), jax.device_get(mine(0.4))
    for i in range(B):
        own = [p for p in POSITIVES[i] if p >= 0]
        high = min(scores[i][own]) if own else -np.inf
        fits = [j for j in np.argsort(-scores[i]) if high - 0.4 < scores[i][j] < high and KEY_IDS[j] != IDS[i] and j not in own]
        assert found.indices[i].tolist() == fits[:3] + [-1] * (3 - len(fits[:3]))
        assert found.masked[i] == N - len(fits)
    assert not found.where[3].any()  # no positive, no semi-hard negative
    assert found.where[[0, 1, 2, 4]].any()


def test_blocks_and_many_devices_give_what_one_program_gives():
    queries, keys = (RNG.normal(size=(n, 4)).astype(np.float32) for n in (16, 72))
    positives, ids, key_ids = np.arange(16), np.arange(16) % 5, np.arange(72) % 5

    def mine(axis, queries, keys, positives, ids, key_ids):
        given = dict(positives=positives, ids=ids, key_ids=key_ids, axis_name=axis)
        return (
            samplers.mine_negatives(queries, keys, 3, first=1, absolute_margin=0.0, sampling="random", key=KEY, **given),
            samplers.semi_hard_negatives(queries, keys, **given),
        )

    inputs = queries, keys, positives, ids, key_ids
    one = jax.jit(partial(mine, None))(*inputs)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.jit(jax.shard_map(partial(mine, "data"), mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P("data")))(*inputs)
    for got, want in zip(jax.tree.leaves(spread), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)


def test_a_large_collection_is_never_held():
    queries, keys = jax.ShapeDtypeStruct((2048, 8), jnp.float32), jax.ShapeDtypeStruct((32768, 8), jnp.float32)
    mine = jax.jit(lambda q, k, own: samplers.mine_negatives(q, k, 2, positives=own, relative_margin=0.1))
    compiled = mine.lower(queries, keys, jax.ShapeDtypeStruct((2048,), jnp.int32)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * 2048 * 32768 / 4


def test_fewer_than_k_are_left_a_constant_scorer_and_nan():
    mine = jax.jit(lambda keys, ids: samplers.mine_negatives(jnp.ones((2, 2)), keys, 4, ids=ids, key_ids=jnp.array([0, 0, 0, 1, 1]), max_score=1.5))
    same = mine(np.ones((5, 2), np.float32), np.array([0, 7]))
    assert same.indices.tolist() == [[3, 4, -1, -1], [0, 1, 2, 3]] and same.masked.tolist() == [3, 0]  # ties by the lower index
    assert same.where.tolist() == [[True, True, False, False], [True] * 4] and np.isneginf(same.scores[0, 2:]).all()
    spoilt = mine(np.float32([[1, 1], [1, 0], [np.nan, 0], [1, 1], [1, 1]]), np.array([1, 7]))
    assert spoilt.indices[1, 0] == 2 and np.isnan(spoilt.scores[1, 0])  # comes to light
    none = mine(np.ones((5, 2), np.float32) * np.float32([[1], [1], [1], [0], [0]]), np.array([1, 1]))
    assert none.indices.tolist() == [[0, 1, 2, -1]] * 2
    semi = jax.jit(samplers.semi_hard_negatives)(jnp.ones((2, 2)), jnp.ones((5, 2)), positives=np.array([0, 1]))
    assert not semi.where.any() and semi.masked.tolist() == [5, 5]  # no triplet is left


def test_a_rule_of_ones_own_and_sets_of_ids():
    dates, key_dates = np.array([3, 0]), np.array([0, 1, 2, 3, 4])
    how = dict(rows=dates, columns=key_dates, where=lambda row, column: column < row)
    found = samplers.mine_negatives(
        jnp.ones((2, 1)), jnp.ones((5, 1)), 3, ids=np.array([[8, -1], [-1, 9]]), key_ids=np.array([9, 8, -1, 7, 7]), **how
    )
    assert found.indices.tolist() == [[0, 2, -1], [-1, -1, -1]] and found.masked.tolist() == [3, 5]


def test_mined_lists_are_what_grouped_losses_take():
    mined = jax.jit(lambda own: samplers.mine_negatives(QUERIES, KEYS, 4, positives=own, min_score=0.65))(np.arange(B))
    assert mined.where.any() and not mined.where.all()
    anchors, own = jnp.asarray(QUERIES), jnp.asarray(KEYS[:B])

    @partial(jax.value_and_grad, argnums=1, has_aux=True)
    def values(anchors, keys):
        found = losses.grouped_info_nce(anchors, own[:, None], keys[mined.indices], negative_weights=mined.where, temperature=0.5)
        return found.sum(), found

    scores = cosines() / 0.5
    expected = []
    for i in range(B):
        kept = [scores[i, i], *scores[i, np.asarray(mined.indices[i])[np.asarray(mined.where[i])]]]
        expected.append(np.log(np.exp(kept).sum()) - scores[i, i])
    (_, found), gradient = jax.device_get(jax.jit(values)(anchors, jnp.asarray(KEYS)))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    used = np.unique(np.asarray(mined.indices)[np.asarray(mined.where)])
    assert (np.abs(gradient).sum(axis=1) > 0).nonzero()[0].tolist() == used.tolist()


def test_nothing_recompiles_when_contents_change_and_bfloat16_is_scored_in_float32():
    traces = []

    @jax.jit
    def mine(queries, keys, margin, positives):
        traces.append(1)
        return samplers.mine_negatives(queries, keys, 3, positives=positives, absolute_margin=margin, first=1)

    narrow = [jnp.asarray(x, jnp.bfloat16) for x in (QUERIES, KEYS)]
    found = mine(*narrow, 0.1, np.arange(B))
    mine(narrow[0][::-1], narrow[1] * 2, 0.3, np.full(B, -1))
    assert len(traces) == 1 and found.scores.dtype == jnp.float32
    scores = cosines(queries=np.float32(narrow[0]), keys=np.float32(narrow[1]))
    for i in range(B):
        free = [j for j in np.argsort(-scores[i]) if j != i][1:]
        assert found.indices[i].tolist() == ([j for j in free if scores[i][j] <= scores[i][i] - 0.1] + [-1] * 3)[:3]


@pytest.fixture(scope="module")
def guided():
    """Guided mining in one program, and what the guide leaves each query in float64."""
    draw = np.random.default_rng(8)
    theirs = draw.normal(size=(B, 3)).astype(np.float32), draw.normal(size=(N, 3)).astype(np.float32)
    positives = np.array([[0, 5], [1, -1], [2, 2], [-1, -1], [4, 9]])

    @jax.jit
    def mine(margin):
        options = dict(positives=positives, guide=theirs, guide_margin=margin)
        drawn = samplers.mine_negatives(QUERIES, KEYS, 4, max_score=0.2, last=N, sampling="random", key=KEY, **options)
        return samplers.mine_negatives(QUERIES, KEYS, 4, **options), drawn

    unit = [x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True) for x in theirs]
    scores = unit[0] @ unit[1].T
    limit = np.array([min([scores[i, p] for p in row if p >= 0], default=np.inf) for i, row in enumerate(positives)])

    def left(margin):
        own = (positives[:, :, None] == np.arange(N)).any(axis=1)
        return ~own & ~(scores > limit[:, None] - margin)

    return mine, left, theirs, positives


@pytest.mark.parametrize("margin", [0.0, 0.3, -0.3])
def test_a_guide_leaves_out_what_it_scores_above_the_positive(guided, margin):
    mine, left, _, _ = guided
    (found, drawn), kept = jax.device_get(mine(margin)), left(margin)
    for i, row in enumerate(cosines()):
        free = [j for j in np.argsort(-row) if kept[i, j]]
        assert found.indices[i].tolist() == (free + [-1] * 4)[:4]
        low = [j for j in free if row[j] <= 0.2]  # bounds and draws come after it
        chosen = drawn.indices[i][drawn.where[i]].tolist()
        assert len(set(chosen)) == min(4, len(low)) and set(chosen) <= set(low)
    assert found.masked.tolist() == (~kept).sum(axis=1).tolist() and kept[3].all()


def test_a_guide_sees_the_keys_of_all_devices(guided):
    mine, _, theirs, positives = guided
    spread = lambda x: np.concatenate([x, x[:3]]).reshape(4, 2, *x.shape[1:])  # noqa: E731
    local = lambda q, k, p, *guide: samplers.mine_negatives(q, k, 4, positives=p, guide=guide, guide_margin=0.3, axis_name="data").indices  # noqa: E731
    arrays = spread(QUERIES), KEYS.reshape(4, N // 4, -1), spread(positives), spread(theirs[0]), theirs[1].reshape(4, N // 4, -1)
    split = jax.jit(jax.vmap(local, axis_name="data"))(*arrays)
    np.testing.assert_array_equal(split.reshape(8, 4)[:B], mine(0.3)[0].indices)


@pytest.mark.errors
@pytest.mark.parametrize(
    "error, text, options",
    [
        (ValueError, "guide needs positives, got positives=None", dict(guide=(QUERIES, KEYS))),
        (ValueError, r"guide\[1\] must have shape \[40, E\]", dict(guide=(QUERIES, KEYS[:3]), positives=np.arange(B))),
        (TypeError, "guide_margin must be an array, got 'no'", dict(guide=(QUERIES, KEYS), guide_margin="no", positives=np.arange(B))),
        (ValueError, "k must be at least 1 and at most 40, got 41", dict(k=41)),
        (ValueError, "absolute_margin needs positives, got positives=None", dict(absolute_margin=0.1)),
        (ValueError, "positives must be indices of the 40 keys, or -1 for none, got 40", dict(positives=np.array([0, 1, 2, 3, 40]))),
        (ValueError, "positives must have shape", dict(positives=np.array([0, 1]))),
        (ValueError, "key_ids must be given where there are not as many keys as queries, got 40 keys and 5 queries", dict(ids=IDS)),
        (ValueError, "key_ids needs ids", dict(key_ids=KEY_IDS)),
        (ValueError, "last must be at least 6 and at most 40, got 5", dict(first=5, last=5)),
        (ValueError, "last must be at least 1 and at most 40, got 41", dict(last=41)),
        (TypeError, "first must be an integer", dict(first=0.5)),
        (TypeError, "key must be a PRNG key", dict(sampling="random")),
        (ValueError, "sampling must be one of 'top', 'random', got 'rand'", dict(sampling="rand")),
        (ValueError, "similarity must be one of .*; did you mean 'cosine'", dict(similarity="cosinus")),
        (TypeError, "where must be None or a function", dict(where=KEY_IDS > 0)),
        (TypeError, "max_score must be an array", dict(max_score="0.5")),
        (ValueError, "axis_name='data' is not mapped here", dict(axis_name="data")),
    ],
)
def test_bad_input_is_named(error, text, options):
    with pytest.raises(error, match=text):
        samplers.mine_negatives(QUERIES, KEYS, **(dict(k=3) | options))


@pytest.mark.errors
def test_bad_input_of_the_other_miners_is_named():
    with pytest.raises(TypeError, match="positives must be an array, got None"):
        samplers.semi_hard_negatives(QUERIES, KEYS, positives=None)
    with pytest.raises(ValueError, match="margin must be greater than 0"):
        samplers.semi_hard_negatives(QUERIES, KEYS, positives=np.arange(B), margin=-0.1)
    with pytest.raises(ValueError, match="cutoff must be greater than 0"):
        samplers.distance_weighted_negatives(KEY, QUERIES, KEYS, cutoff=0)
    with pytest.raises(ValueError, match="the dimension of queries must be at least 2, got 1"):
        samplers.distance_weighted_negatives(KEY, QUERIES[:, :1], KEYS[:, :1])
