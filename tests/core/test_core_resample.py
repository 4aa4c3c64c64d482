"""Systematic resampling: the worked numbers, how often each entry comes, what is never drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import core

KEY = jax.random.key(0)
WEIGHTS = np.float32([0.1, 0.4, 0.2, 0.3])


@pytest.fixture
def comb(monkeypatch):
    """`comb(u, weights, count)`: the draws whose one random number is u."""

    def draw(u, weights, count):
        monkeypatch.setattr(jax.random, "uniform", lambda key, shape, dtype: jnp.asarray(u, dtype))
        return core.systematic_resample(KEY, weights, count)

    return draw


@pytest.mark.parametrize("count, u, expected", [(5, 0.25, [0, 1, 1, 2, 3]), (4, 0.1, [0, 1, 2, 3]), (3, 0.9, [1, 2, 3])])
def test_worked_numbers(comb, count, u, expected):
    assert comb(u, WEIGHTS, count).tolist() == expected
    assert comb(u, 7 * WEIGHTS, count).tolist() == expected


@pytest.mark.parametrize("weights, count", [(WEIGHTS, 5), (np.float32([2, 0, 5, 0.5, 0]), 3), (np.float32([1, 1, 1]), 7), (np.float32([3]), 2)])
def test_each_entry_comes_as_often_as_its_weight_says(comb, weights, count):
    """By enumeration: the draws change only at finitely many u, between which they are constant."""
    weights = weights.astype(np.float64)
    expected = count * weights / weights.sum()
    borders = np.concatenate([[0, 1], (np.cumsum(weights) / weights.sum() * count) % 1])
    borders = np.unique(np.round(borders, 9))
    middles, lengths = (borders[1:] + borders[:-1]) / 2, np.diff(borders)
    counts = [np.bincount(comb(u, np.float32(weights), count), minlength=len(weights)) for u in middles]
    np.testing.assert_allclose(lengths @ np.array(counts), expected, atol=1e-6)
    for number in counts:
        assert (number >= np.floor(expected - 1e-6)).all() and (number <= np.ceil(expected + 1e-6)).all()


def test_a_tooth_on_the_end_does_not_fall_on_an_entry_without_weight(comb):
    assert comb(np.nextafter(np.float32(1), np.float32(0)), np.float32([0, 1, 1, 0, 0]), 4).tolist()[-1] == 2
    assert comb(0.0, np.float32([0, 1, 1, 0]), 2).tolist() == [1, 2]


def test_keys_give_different_combs_and_many_may_be_mapped():
    draws = jax.vmap(lambda key: core.systematic_resample(key, WEIGHTS, 2))(jax.random.split(KEY, 4000))
    np.testing.assert_allclose(np.bincount(np.ravel(draws)) / 8000, WEIGHTS, atol=0.02)
    assert (np.diff(draws, axis=1) >= 0).all()


def test_nothing_to_draw():
    draw = jax.jit(lambda weights: core.systematic_resample(KEY, weights, 3))
    for weights in ([0, 0, 0], [1, np.nan, 1]):
        assert draw(np.float32(weights)).tolist() == core.systematic_resample(KEY, np.float32(weights), 3).tolist() == [-1, -1, -1]
    assert core.systematic_resample(KEY, jnp.ones(3, jnp.bfloat16), 3).tolist() == [0, 1, 2]


@pytest.mark.errors
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        core.systematic_resample(KEY, WEIGHTS, 0)
    with pytest.raises(ValueError, match="weights must be at least 0, got a minimum of -0.5"):
        core.systematic_resample(KEY, np.float32([1, -0.5]), 2)
    with pytest.raises(ValueError, match="weights must not be empty"):
        core.systematic_resample(KEY, WEIGHTS[:0], 2)
    with pytest.raises(TypeError, match="weights must have dtype float"):
        core.systematic_resample(KEY, np.arange(3), 2)
