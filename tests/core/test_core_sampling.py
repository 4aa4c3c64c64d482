"""Gumbel top-k: draws without replacement in the proportions of the weights."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cljax import core

KEY = jax.random.key(0)
WEIGHTS = np.array([4.0, 0.0, 1.0, 2.0, 1.0])


@pytest.fixture(scope="module")
def draws():
    log_weights = np.broadcast_to(np.log(WEIGHTS, where=WEIGHTS > 0, out=np.full(5, -np.inf)), (20_000, 5)).astype(np.float32)
    return np.asarray(jax.jit(lambda key: core.gumbel_top_k(key, log_weights, 5))(KEY))


def test_first_draws_follow_the_weights_and_the_pairs_those_that_are_left(draws):
    share = WEIGHTS / WEIGHTS.sum()
    counts = np.bincount(draws[:, 0], minlength=5)
    assert counts[1] == 0 and stats.chisquare(counts[share > 0], share[share > 0] * len(draws)).pvalue > 1e-3
    pairs = list(itertools.permutations(np.flatnonzero(share), 2))
    seen = [((draws[:, 0] == a) & (draws[:, 1] == b)).sum() for a, b in pairs]
    assert stats.chisquare(seen, [len(draws) * share[a] * share[b] / (1 - share[a]) for a, b in pairs]).pvalue > 1e-3


def test_nothing_comes_twice_and_what_has_no_weight_never(draws):
    assert (np.sort(draws, axis=1) == [-1, 0, 2, 3, 4]).all() and (draws[:, 4] == -1).all()


def test_leading_axes_and_narrow_dtypes():
    assert core.gumbel_top_k(KEY, jnp.zeros((2, 3, 4), jnp.bfloat16), 2).shape == (2, 3, 2)


@pytest.mark.errors
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="k must be at least 1 and at most 5, got 6"):
        core.gumbel_top_k(KEY, np.float32(WEIGHTS), 6)
    with pytest.raises(TypeError, match="log_weights must have dtype float"):
        core.gumbel_top_k(KEY, np.arange(3), 1)
    with pytest.raises(TypeError, match="key must be a PRNG key"):
        core.gumbel_top_k(0, np.float32(WEIGHTS), 1)
