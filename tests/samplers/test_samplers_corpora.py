"""Mixtures of corpora, and chunks of a stream of tokens."""

import jax
import numpy as np
import pytest
from scipy import stats

from cljax import samplers

SIZES = np.array([800, 150, 50])


def test_exponent_one_is_proportional_and_zero_is_uniform():
    np.testing.assert_allclose(samplers.corpus_mixture(SIZES, 1), [0.8, 0.15, 0.05], rtol=1e-6)
    np.testing.assert_allclose(samplers.corpus_mixture(SIZES, 0), np.full(3, 1 / 3), rtol=1e-6)
    np.testing.assert_allclose(samplers.corpus_mixture(SIZES, 0.7), SIZES**0.7 / (SIZES**0.7).sum(), rtol=1e-5)


def test_an_empty_corpus_is_never_drawn_and_large_counts_do_not_overflow():
    np.testing.assert_allclose(samplers.corpus_mixture(np.float32([0, 1, 3e38]), 0), [0, 0.5, 0.5])
    np.testing.assert_allclose(samplers.corpus_mixture(np.float32([3e38, 3e38]), 2.0), [0.5, 0.5])


def test_rows_draw_their_corpus_first_and_then_any_of_its_rows():
    sizes = np.array([40, 0, 8, 2])
    rows = np.asarray(jax.jit(samplers.mixture_rows, static_argnums=2)(jax.random.key(0), sizes, 12_000, exponent=0.5))
    counts, shares = np.bincount(rows, minlength=50), np.asarray(samplers.corpus_mixture(sizes, 0.5))
    expected = np.repeat(shares / np.maximum(sizes, 1), sizes) * len(rows)
    assert len(counts) == 50 and stats.chisquare(counts, expected / expected.sum() * len(rows)).pvalue > 1e-3
    even = np.asarray(samplers.mixture_rows(jax.random.key(1), sizes, 6000))
    assert abs(np.mean(even >= 48) - 1 / 3) < 0.03  # by default corpora are alike
    assert samplers.mixture_rows(jax.random.key(0), sizes, 0).shape == (0,)


def test_chunks_follow_each_other_from_any_offset_in_one_program():
    tokens = np.arange(20)
    chunks = jax.jit(lambda offset: samplers.chunk_stream(tokens, 6, offset))
    for offset in range(6):
        np.testing.assert_array_equal(chunks(offset), (np.arange(12) + offset).reshape(2, 6))
    np.testing.assert_array_equal(samplers.chunk_stream(tokens > 3, 10), (tokens[:10] > 3)[None])  # of any dtype


def test_windows_begin_anywhere():
    found = np.asarray(samplers.stream_windows(jax.random.key(0), np.arange(10) * 2, 4000, 4))
    assert (np.diff(found) == 2).all() and stats.chisquare(np.bincount(found[:, 0] // 2, minlength=7)).pvalue > 1e-3
    np.testing.assert_array_equal(samplers.stream_windows(jax.random.key(0), np.arange(5) > 2, 2, 5), [np.arange(5) > 2] * 2)


def test_a_batch_is_of_one_corpus_whose_rows_come_in_epochs():
    sizes, order = np.array([12, 0, 8]), jax.random.key(1)
    batches = jax.jit(jax.vmap(lambda key, t: samplers.corpus_batch(key, order, sizes, 4, t, exponent=0.5)))
    found = np.asarray(batches(jax.random.split(jax.random.key(0), 600), np.arange(600)))
    second = found[:, 0] >= 12
    assert np.array_equal(found >= 12, np.repeat(second[:, None], 4, axis=1)) and found.min() >= 0 and found.max() < 20
    share = 8**0.5 / (8**0.5 + 12**0.5)
    assert abs(second.mean() - share) < 4 * (share * (1 - share) / 600) ** 0.5
    alone = [samplers.corpus_batch(jax.random.key(3), order, sizes[2:], 4, t) for t in range(4)]
    assert [sorted(np.concatenate(alone[t : t + 2]).tolist()) for t in (0, 2)] == [[*range(8)]] * 2  # an epoch and the next one
    for t in range(4):
        assert not second[t] or np.array_equal(found[t], 12 + np.asarray(alone[t]))  # at the places of that step


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: samplers.corpus_mixture(SIZES[:, None], 1), ValueError, r"sizes must have shape \[C\], got \[3, 1\]"),
        (lambda: samplers.corpus_mixture(-SIZES, 1), ValueError, "sizes must be at least 0, got -800"),
        (lambda: samplers.corpus_mixture(0 * SIZES, 1), ValueError, r"sizes must hold one above 0, got \[0, 0, 0\]"),
        (lambda: samplers.corpus_mixture(SIZES, "1"), TypeError, "exponent must be an array, got '1'"),
        (lambda: samplers.mixture_rows(jax.random.key(0), np.float32(SIZES), 3), TypeError, "sizes must have dtype int"),
        (lambda: samplers.mixture_rows(jax.random.key(0), SIZES, -1), ValueError, "count must be at least 0, got -1"),
        (lambda: samplers.mixture_rows(0, SIZES, 1), TypeError, "key must be a PRNG key"),
        (lambda: samplers.mixture_rows(jax.random.key(0), 0 * SIZES, 1), ValueError, "sizes must hold one above 0"),
        (lambda: samplers.corpus_batch(jax.random.key(0), jax.random.key(0), SIZES, 2, -1), ValueError, "step must be at least 0, got -1"),
        (lambda: samplers.corpus_batch(jax.random.key(0), 0, SIZES, 2, 0), TypeError, "order must be a PRNG key"),
        (lambda: samplers.corpus_batch(jax.random.key(0), jax.random.key(0), SIZES, 0, 0), ValueError, "batch must be at least 1, got 0"),
        (lambda: samplers.corpus_batch(jax.random.key(0), jax.random.key(0), SIZES, 2, 0.5), TypeError, "step must have dtype int"),
        (lambda: samplers.chunk_stream(np.arange(10), 6), ValueError, "length must be at least 1 and at most 5, got 6"),
        (lambda: samplers.chunk_stream(np.arange(10), 4, 4), ValueError, "offset must be at least 0 and at most 3, got 4"),
        (lambda: samplers.stream_windows(jax.random.key(0), np.arange(10), 2, 11), ValueError, "length must be at least 1 and at most 10, got 11"),
        (lambda: samplers.stream_windows(jax.random.key(0), np.arange(10), -1, 2), ValueError, "count must be at least 0, got -1"),
        (lambda: samplers.stream_windows(0, np.arange(10), 2, 2), TypeError, "key must be a PRNG key"),
    ],
)
def test_bad_input_is_named(call, error, match):
    with pytest.raises(error, match=match):
        call()
