"""Two clips of a video: how far apart, where, in which order; and clips spread over the whole of it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cljax import samplers
from cljax.samplers import clips

KEY = jax.random.key(0)
ROWS = jnp.arange(20000)


def cdf(k, total, power=1.0):
    return k * (power + 1) / (power * total) - k ** (power + 1) / (power * total ** (power + 1))


def bisected(u, total):
    """The largest k with F(k) <= u, as the released code finds it."""
    low, high = 0, total
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cdf(middle, total) <= u else (low, middle)
    return low


def fits(values, probabilities):
    """Whether values 0, 1, ... come as often as these probabilities say."""
    counts, probabilities = np.bincount(values, minlength=len(probabilities)), np.asarray(probabilities, np.float64)
    return len(counts) == len(probabilities) and stats.chisquare(counts, counts.sum() * probabilities / probabilities.sum()).pvalue > 1e-3


def test_probabilities_are_those_of_the_formula():
    found = np.asarray(samplers.interval_pmf(14))
    np.testing.assert_allclose(found[[0, 13]], [0.137755, 0.005102], atol=1e-6)
    np.testing.assert_allclose(found, (2 * 14 - 2 * np.arange(14) - 1) / 14**2, rtol=1e-6)
    np.testing.assert_allclose([found.sum(), found @ np.arange(14)], [1, 4.178571], rtol=1e-6)
    np.testing.assert_allclose(samplers.interval_pmf(14, "increasing"), found[::-1])
    np.testing.assert_allclose(samplers.interval_pmf(14, "uniform"), np.full(14, 1 / 14), rtol=1e-6)
    assert samplers.interval_pmf(14, "zero").tolist() == [1] + [0] * 13


@pytest.mark.parametrize(("power", "mean"), [(1, 1 / 3), (2, 3 / 8), (1e6, 1 / 2)])
def test_the_mean_interval_grows_with_the_power(power, mean):
    total = 5000
    found = np.asarray(samplers.interval_pmf(total, power=power), np.float64)
    np.testing.assert_allclose(found, np.diff(cdf(np.arange(total + 1) / total, 1, power)), rtol=1e-5)
    np.testing.assert_allclose(found @ np.arange(total) / total, mean, atol=2e-4)


@pytest.mark.parametrize(("kind", "power"), [("decreasing", 1.0), ("decreasing", 3.0), ("uniform", 1.0), ("increasing", 1.0), ("increasing", 0.5)])
def test_draws_have_these_probabilities(kind, power):
    drawn = jax.jit(partial(samplers.sample_interval, total=14, kind=kind))(KEY, power=power, index=ROWS)  # the power is traced
    assert drawn.dtype == jnp.int32 and fits(drawn, samplers.interval_pmf(14, kind, power))


def test_the_closed_form_is_the_bisection_of_the_released_code():
    uniform = np.append(np.random.default_rng(0).uniform(size=2000), [0, 0.5, 0.999]).astype(np.float32)
    for total in (1, 14, 250):
        expected = [bisected(float(u), total) for u in uniform]
        got = np.asarray(clips._interval((uniform, np.float32(0.3)), total, "decreasing", 1.0))
        near = np.abs(np.subtract.outer(uniform.astype(np.float64), cdf(np.arange(total + 1), total))).min(1) < 1e-6  # there rounding decides
        np.testing.assert_array_equal(got[~near], np.array(expected)[~near])
        assert near.sum() < 20
    assert [int(clips._interval((jnp.float32(u), 0.3), 14, "decreasing", 1.0)) for u in (0, 0.5, 0.999)] == [0, 4, 13]
    assert int(clips._interval((jnp.float32(1), jnp.float32(1)), 14, "decreasing", 2.0)) == 13  # a share that was rounded up to all of it


def test_intervals_and_places_are_those_of_the_published_sampler():
    first, second = jax.jit(partial(samplers.sample_clip_pair, length=20, frames=4, stride=2))(KEY, index=ROWS)
    assert first.shape == second.shape == (20000, 4) and first.dtype == jnp.int32
    assert np.all(np.diff(first) == 2) and np.all(np.diff(second) == 2)
    interval = np.asarray(second[:, 0] - first[:, 0])
    assert np.abs(interval).max() == 13 and min(first.min(), second.min()) == 0 and max(first.max(), second.max()) == 19
    assert abs(np.abs(interval).mean() - 4.178571) < 0.1
    assert fits(np.abs(interval), samplers.interval_pmf(14))
    assert abs(np.mean(interval[interval != 0] > 0) - 0.5) < 0.02  # swapped half of the time
    start = np.minimum(first, second)[np.abs(interval) == 3, 0]
    assert fits(start, np.full(11, 1 / 11))


@pytest.mark.parametrize("kind", clips.KINDS)
def test_a_clip_of_a_short_video_goes_on_at_its_beginning(kind):
    first, second = samplers.sample_clip_pair(KEY, 6, 4, 2, kind, index=ROWS[:4000])
    np.testing.assert_array_equal(first, (np.asarray(first[:, :1]) + [0, 2, 4, 6]) % 6)
    for clip in (first, second):
        assert fits(clip[:, 0], np.full(6, 1 / 6))
    together = np.mean(first == second)
    assert together == 1 if kind == "zero" else abs(together - 1 / 6) < 0.03


def test_videos_of_any_lengths_stand_side_by_side():
    lengths = jnp.array([7, 8, 100, 3, 1])
    first, second = jax.jit(partial(samplers.sample_clip_pair, frames=4, stride=2))(KEY, lengths, index=jnp.full(5, 9))
    for i, length in enumerate(lengths.tolist()):
        alone = samplers.sample_clip_pair(KEY, length, 4, 2, index=jnp.array([9]))
        np.testing.assert_array_equal([first[i], second[i]], [alone.first[0], alone.second[0]])
        np.testing.assert_array_equal(first[i], (first[i, 0] + 2 * np.arange(4)) % length)
    one = samplers.sample_clip_pair(jax.random.fold_in(KEY, 9), 100, 4, 2)
    np.testing.assert_array_equal(first[2], one.first)
    np.testing.assert_array_equal(first[0], [0, 2, 4, 6])  # one place alone


def test_a_draw_hangs_on_the_key_and_the_index_alone():
    order = jnp.array([5, 2, 8])
    pair = samplers.sample_clip_pair(KEY, 30, 4, index=ROWS[:10])
    np.testing.assert_array_equal(samplers.sample_clip_pair(KEY, 30, 4, index=order).first, pair.first[order])
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    draw = jax.shard_map(lambda i: samplers.sample_interval(KEY, 30, index=i), mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P("data"))
    np.testing.assert_array_equal(jax.jit(draw)(ROWS[:10]), samplers.sample_interval(KEY, 30, index=ROWS[:10]))
    keys = jax.random.split(KEY, 3)
    every = jax.vmap(lambda key: samplers.sample_interval(key, 30))(keys)
    assert every.tolist() == [int(samplers.sample_interval(key, 30)) for key in keys]


def test_clips_are_spread_from_the_first_to_the_last_frame():
    assert samplers.spread_clips(10, 4, clips=3).tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert samplers.spread_clips(11, 3, 2, clips=1).tolist() == [[3, 5, 7]]
    found = samplers.spread_clips(jnp.array([10, 3]), 4, clips=2)  # the second is too short
    assert found.tolist() == [[[0, 1, 2, 3], [6, 7, 8, 9]], [[0, 1, 2, 0], [2, 0, 1, 2]]]
    ten = np.asarray(samplers.spread_clips(250, 32, 2, clips=10))
    assert ten.shape == (10, 32) and (ten.min(), ten.max()) == (0, 249) and np.ptp(np.diff(ten[:, 0])) <= 1


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: samplers.interval_pmf(0), ValueError, "total must be at least 1, got 0"),
        (lambda: samplers.interval_pmf(3, "falling"), ValueError, "kind must be one of 'decreasing', 'uniform', 'increasing', 'zero', got 'falling'"),
        (lambda: samplers.interval_pmf(3, power=0), ValueError, "power must be greater than 0, got 0"),
        (lambda: samplers.sample_interval(KEY, 3, power=np.ones(2, np.float32)), ValueError, r"power must have shape \[\], got \[2\]"),
        (lambda: samplers.sample_interval(KEY, 0), ValueError, "total must be at least 1, got 0"),
        (lambda: samplers.sample_interval(3, 4), TypeError, "key must be a PRNG key"),
        (lambda: samplers.sample_interval(KEY, 4.0), TypeError, "total must have dtype int, got float32"),
        (lambda: samplers.sample_clip_pair(KEY, jnp.array([9, 9]), 3), ValueError, r"length must have shape \[\], got \[2\]"),
        (lambda: samplers.sample_clip_pair(KEY, jnp.array([9]), 3, index=ROWS[:2]), ValueError, r"length must have shape \[2\], got \[1\]"),
        (lambda: samplers.sample_clip_pair(KEY, 9, 0), ValueError, "frames must be at least 1, got 0"),
        (lambda: samplers.sample_clip_pair(KEY, 9, 3, 1.5), TypeError, "stride must be an integer, got 1.5"),
        (lambda: samplers.sample_clip_pair(KEY, jnp.array([9, 0]), 3, index=ROWS[:2]), ValueError, "length must be at least 1, got 0"),
        (lambda: samplers.spread_clips(9, 3, clips=0), ValueError, "clips must be at least 1, got 0"),
    ],
)
def test_bad_input_is_named(call, error, match):
    with pytest.raises(error, match=match):
        call()
