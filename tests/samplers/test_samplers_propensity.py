"""Inverse propensities and draws from pools: the worked numbers of the specification, frequencies, devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cljax import samplers

KEY = jax.random.key(1)
SIMILARITY, SURFACE = np.float32([[0.9, 0.8, 0.6, 0.2, -0.1]]), np.float32([[0.8, 0.3, 0.1, 0.5, 0.0]])
POSITIVE = [0.287793, 0.392750, 0.288969, 0.013036, 0.017452]
NEGATIVE = [0.100503, 0.075377, 0.120603, 0.402010, 0.301508]


def weights(kind, clip=0.1, surface=SURFACE, **options):
    return np.exp(np.asarray(samplers.inverse_propensity(SIMILARITY, surface, kind=kind, temperature=0.2, clip=clip, **options), np.float64))[0]


def share(w):
    return w / w.sum()


def test_weights_of_positives_and_of_negatives():
    np.testing.assert_allclose(weights("positive"), [100.019035, 136.495375, 100.427685, 4.530470, 6.065307], rtol=1e-5)
    np.testing.assert_allclose(share(weights("positive")), POSITIVE, atol=1e-6)
    np.testing.assert_allclose(weights("negative"), [0.333333, 0.25, 0.4, 1.333333, 1.0], rtol=1e-5)
    np.testing.assert_allclose(share(weights("negative")), NEGATIVE, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "plain"),
    [("positive", [0.535735, 0.324939, 0.119539, 0.016178, 0.003610]), ("negative", [0.038462, 0.076923, 0.153846, 0.307692, 0.423077])],
)
def test_a_large_clip_or_an_even_surface_turns_the_correction_off(kind, plain):
    np.testing.assert_allclose(share(weights(kind, clip=1e5)), plain, atol=1e-5)
    np.testing.assert_allclose(share(weights(kind, surface=np.full_like(SURFACE, 0.4))), plain, atol=1e-6)


def test_without_a_clip_the_weights_undo_the_propensities():
    chance, values = np.float32([[0.5, 0.25, 0.125, 0.125]]), np.arange(1.0, 5.0)
    inverse = np.exp(samplers.inverse_propensity(0 * chance, chance, kind="positive", clip=1e-9))[0]
    np.testing.assert_allclose((chance[0] * inverse * values).sum() / 4, 2.5, rtol=1e-6)
    assert (chance[0] * values).sum() == 1.875


def test_what_may_not_be_drawn_has_no_weight():
    assert weights("negative", where=SIMILARITY < 0.3).tolist()[:3] == [0, 0, 0]
    same = samplers.inverse_propensity(np.float32([[1.0, 1.0001]]), np.float32([[0.5, 0.5]]), kind="negative")
    assert np.asarray(same).tolist() == [[-np.inf, -np.inf]]  # no negative means the same; rounding makes no NaN
    narrow = samplers.inverse_propensity(jnp.asarray(SIMILARITY, jnp.bfloat16), SURFACE, kind="positive")
    assert narrow.dtype == jnp.float32


@pytest.fixture(scope="module")
def draw():
    return jax.jit(samplers.draw_weighted, static_argnames="n")


@pytest.mark.parametrize(("kind", "expected"), [("positive", POSITIVE), ("negative", NEGATIVE)])
def test_draws_follow_the_weights(draw, kind, expected):
    log_weights = np.broadcast_to(samplers.inverse_propensity(SIMILARITY, SURFACE, kind=kind, temperature=0.2, clip=0.1), (10_000, 5))
    found = np.asarray(draw(KEY, log_weights))
    assert found.shape == (10_000, 1)
    assert stats.chisquare(np.bincount(found[:, 0], minlength=5), 10_000 * share(np.array(expected))).pvalue > 1e-3


POOL = np.array([[10, 11, 12, 13], [20, -1, 22, -1], [-1, -1, -1, -1]])


def test_negatives_are_drawn_evenly_without_replacement():
    rows = np.tile(POOL, (3000, 1))
    found = np.asarray(jax.jit(lambda key: samplers.draw_negatives(key, rows, 3))(KEY)).reshape(3000, 3, 3)
    assert (np.diff(np.sort(found[:, 0], axis=1)) > 0).all() and stats.chisquare(np.bincount(found[:, 0].ravel())[10:]).pvalue > 1e-3
    for place in range(3):
        assert stats.chisquare(np.bincount(found[:, 0, place])[10:]).pvalue > 1e-3
    assert (np.sort(found[:, 1], axis=1) == [-1, 20, 22]).all() and (found[:, 1, 2] == -1).all()
    assert stats.binomtest(int((found[:, 1, 0] == 20).sum()), 3000).pvalue > 1e-3
    assert (found[:, 2] == -1).all()


def test_hard_negatives_come_with_their_share_and_random_ones_else():
    pool = np.full((4000, 3), -1)
    pool[:2000] = 100 + np.arange(3)  # of the others nothing was mined
    found = np.asarray(samplers.draw_hard_or_random(KEY, pool, 50, 2, share=0.25))
    hard = found >= 100
    assert found.shape == (4000, 2) and stats.binomtest(int(hard[:2000].sum()), 4000, 0.25).pvalue > 1e-3 and not hard[2000:].any()
    assert stats.chisquare(np.bincount(found[~hard], minlength=50)).pvalue > 1e-3
    both = found[hard.all(axis=1)]
    assert len(both) > 60 and np.all(both[:, 0] != both[:, 1])
    assert np.asarray(samplers.draw_hard_or_random(KEY, pool[:2000], 50, 3, share=1.0)).min() == 100
    assert np.asarray(samplers.draw_hard_or_random(KEY, pool, 50, share=0.0)).max() < 50


@pytest.mark.parametrize(
    ("draw", "given"),
    [
        (lambda given, index: samplers.draw_weighted(KEY, given, 3, index=index), np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)),
        (lambda given, index: samplers.draw_hard_or_random(KEY, given, 1000, 2, share=0.5, index=index), 1000 + np.arange(24).reshape(8, 3)),
    ],
)
def test_draws_hang_on_the_index_alone_on_any_number_of_devices(draw, given):
    index = np.array([3, 9, 1, 4, 0, 7, 5, 2])
    found = draw(given, index)
    np.testing.assert_array_equal(draw(given[::-1], index[::-1]), found[::-1])
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.jit(jax.shard_map(draw, mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P("data")))(given, index)
    np.testing.assert_array_equal(split, found)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: weights("negativ"), ValueError, "kind must be one of 'positive', 'negative', got 'negativ'; did you mean 'negative'"),
        (lambda: weights("positive", clip=0.0), ValueError, "clip must be greater than 0, got 0.0"),
        (lambda: weights("positive", surface=SURFACE[:, :2]), ValueError, r"surface must have shape \[B, K\] with K = 5 as in similarity"),
        (lambda: weights("positive", where=np.ones((1, 5))), TypeError, "where must have dtype bool"),
        (lambda: samplers.draw_weighted(KEY, SIMILARITY, 6), ValueError, "n must be at least 1 and at most 5, got 6"),
        (lambda: samplers.draw_weighted(KEY, SIMILARITY, index=np.arange(2)), ValueError, r"index must have shape \[B\] with B = 1"),
        (lambda: samplers.draw_negatives(KEY, POOL, 5), ValueError, "n must be at least 1 and at most 4, got 5"),
        (lambda: samplers.draw_negatives(KEY, POOL * 1.0, 1), TypeError, "pool must have dtype int"),
        (lambda: samplers.draw_hard_or_random(KEY, POOL, 9, share=1.5), ValueError, "share must be at least 0 and at most 1, got 1.5"),
        (lambda: samplers.draw_hard_or_random(KEY, POOL, 0, share=0.5), ValueError, "total must be at least 1, got 0"),
        (lambda: samplers.draw_hard_or_random(KEY, POOL, 9, 5, share=0.5), ValueError, "n must be at least 1 and at most 4, got 5"),
    ],
)
def test_bad_input_is_named(call, error, match):
    with pytest.raises(error, match=match):
        call()
