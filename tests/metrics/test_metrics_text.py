"""How texts repeat themselves and how they stand to a model, against worked numbers, counting in Python, and float64."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import losses, metrics

ABC = np.array([[0, 1, 2, 0, 1, 2, 0, 1, 2, 3]])
RNG = np.random.default_rng(0)
TEXTS = RNG.integers(-2, 3, (6, 12))
WHERE = RNG.random((6, 12)) < np.linspace(0, 1, 6)[:, None]
LOGITS, TOKENS = RNG.normal(size=(3, 5, 7)).astype(np.float32) * 2, RNG.integers(0, 7, (3, 5))
rep_n, diversity, zipf = jax.jit(metrics.rep_n, static_argnums=1), jax.jit(metrics.diversity), jax.jit(metrics.zipf, static_argnames="top")
deviation = jax.jit(metrics.entropy_deviation)


def counted(texts, n):
    grams = [[tuple(text[i : i + n]) for i in range(len(text) - n + 1)] for text in texts]
    total = sum(map(len, grams))
    return 1 - sum(len(set(row)) for row in grams) / total if total else 0.0


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_the_worked_text():
    for n, every, dropped in ((2, 0.5556, 0.625), (3, 0.5, 0.5714), (4, 0.4286, 0.5)):
        np.testing.assert_allclose(rep_n(ABC, n), every, atol=5e-5)
        np.testing.assert_allclose(rep_n(ABC[:, :-1], n), dropped, atol=5e-5)  # the last n-gram is left out, as in the released code
    np.testing.assert_allclose(diversity(ABC), 0.126984, atol=1e-6)
    np.testing.assert_allclose(diversity(ABC[:, :-1]), 0.080357, atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 3, 12, 13])
def test_counts_are_summed_over_texts_and_masking_is_deletion(n):
    np.testing.assert_allclose(rep_n(TEXTS, n), counted(TEXTS.tolist(), n), atol=1e-6)
    kept = [text[where].tolist() for text, where in zip(TEXTS, WHERE, strict=True)]
    np.testing.assert_allclose(rep_n(TEXTS, n, where=WHERE), counted(kept, n), atol=1e-6)
    np.testing.assert_allclose(rep_n(TEXTS.reshape(2, 3, 12), n, where=WHERE.reshape(2, 3, 12)), counted(kept, n), atol=1e-6)


def test_diversity_is_one_without_a_pair_and_nearly_zero_in_circles():
    assert float(diversity(np.array([[5], [6]]))) == 1 and float(diversity(np.zeros((0, 1), int))) == 1
    found = jax.jit(jax.vmap(metrics.diversity))(np.stack([ABC, ABC % 3, ABC * 0, ABC * 0 + np.arange(10)]))
    np.testing.assert_allclose(found, [0.126984, 3**3 / 9 / 8 / 7, 1 / 9 / 8 / 7, 1], atol=1e-5)


def test_zipf_is_the_slope_of_the_line_through_ranks_and_counts():
    counts = [120, 60, 40, 30, 24, 20]  # 120 / rank
    text = np.repeat(np.arange(6), counts)
    np.testing.assert_allclose(zipf(RNG.permutation(text).reshape(2, 3, 49)), 1, atol=1e-5)
    kept = np.asarray(TEXTS)[WHERE].tolist()
    frequent = np.array(sorted(collections.Counter(kept).values(), reverse=True), float)
    for top in (None, 3):
        y = np.log(frequent[:top])
        slope = np.polyfit(np.log(np.arange(1, len(y) + 1)), y, 1)[0]
        np.testing.assert_allclose(zipf(TEXTS, where=WHERE, top=top), -slope, atol=1e-5)
    assert np.isnan(zipf(np.zeros((1, 5), int))) and float(zipf(np.arange(5)[None])) == 0


def test_entropy_deviation_is_entropy_minus_surprisal():
    log_p = log_softmax(LOGITS)
    wanted = -(np.exp(log_p) * log_p).sum(-1) + np.take_along_axis(log_p, TOKENS[..., None], -1)[..., 0]
    np.testing.assert_allclose(deviation(LOGITS, TOKENS), wanted, atol=1e-5)
    np.testing.assert_allclose(deviation(LOGITS + 50, TOKENS), wanted, atol=1e-4)


def test_the_mean_deviation_is_zero_under_the_model_itself():
    every = jnp.stack([deviation(LOGITS, np.full((3, 5), token)) for token in range(7)], axis=-1)
    np.testing.assert_allclose(jnp.sum(jax.nn.softmax(LOGITS) * every, axis=-1), np.zeros((3, 5)), atol=1e-5)
    for p, expected in (
        ([0.5, 0.2, 0.15, 0.1, 0.05], [0.639927, 0.276364, 0.564046, 0.969511, 1.662658]),
        ([0.3, 0.25, 0.15, 0.1, 0.08, 0.06, 0.04, 0.02], [0.596478, 0.414156, 0.096670, 0.502135, 0.725278, 1.012960, 1.418425, 2.111573]),
    ):
        each = deviation(np.tile(np.log(p).astype(np.float32), (len(p), 1)), np.arange(len(p)))
        np.testing.assert_allclose(np.abs(each), expected, atol=1e-5)


def test_impossible_tokens_have_no_part_in_the_entropy():
    logits = np.array([[0.0, 0.0, -np.inf]], np.float32)
    assert float(metrics.entropy_deviation(logits, np.array([0]))[0]) == 0
    assert np.isneginf(metrics.entropy_deviation(logits, np.array([2]))[0]) and np.isnan(metrics.entropy_deviation(logits, np.array([3]))[0])


def test_coherence_is_the_mean_over_the_tokens_of_a_text():
    log_p = np.take_along_axis(log_softmax(LOGITS), TOKENS[..., None], -1)[..., 0]
    where = np.arange(5) < np.array([5, 2, 0])[:, None]
    found = jax.jit(metrics.coherence)(np.where(where[..., None], LOGITS, np.nan), TOKENS, where=where)
    np.testing.assert_allclose(found.values, [log_p[0].mean(), log_p[1, :2].mean(), 0], atol=1e-5)
    assert found.where.tolist() == [True, True, False]
    np.testing.assert_allclose(losses.mean(metrics.coherence(LOGITS, TOKENS)), log_p.mean(), atol=1e-5)


def test_the_answer_stands_behind_the_first_mark():
    tokens = np.array([[[5, 1, 9, 4, 2], [9, 3, 9, 0, 0]], [[5, 5, 5, 5, 9], [1, 2, 3, 4, 5]]])
    found = jax.jit(metrics.answer_behind, static_argnums=(1, 2))(tokens, 9, 3)
    assert found.tolist() == [[[4, 2, -1], [3, 9, 0]], [[-1, -1, -1], [-1, -1, -1]]] and found.dtype == np.int32


def test_isotropy_of_batches_is_that_of_the_corpus():
    texts, there = np.zeros((2, 4, 2), np.float32), np.arange(4) < np.array([[4], [3]])
    texts[0], texts[1, :3] = [(1, 0), (0.6, 0.8), (0, 1), (-1, 0)], [(3, 4), (4, 3), (1, 1)]
    sums = [metrics.isotropy_sums(text[None], where=where[None]) for text, where in zip(texts, there, strict=True)]
    cosines, pairs = map(sum, zip(*sums, strict=True))
    assert float(pairs) == 18
    np.testing.assert_allclose(1 - cosines / pairs, 0.695567, atol=1e-6)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.rep_n(TEXTS, 0), "n must be at least 1"),
        (lambda: metrics.rep_n(TEXTS * 1.0, 2), "tokens must have dtype int"),
        (lambda: metrics.rep_n(TEXTS, 2, where=WHERE[0]), "where must have shape"),
        (lambda: metrics.diversity(3), "tokens must have shape"),
        (lambda: metrics.zipf(TEXTS, top=1), "top must be at least 2"),
        (lambda: metrics.coherence(LOGITS, TOKENS[0]), "tokens must have shape"),
        (lambda: metrics.entropy_deviation(TOKENS, TOKENS), "logits must have"),
        (lambda: metrics.coherence(LOGITS, TOKENS, where=TOKENS), "where must have dtype bool"),
        (lambda: metrics.coherence(LOGITS, TOKENS, where=TOKENS[:2] > 0), r"where must have shape \[3, 5\] as tokens, got \[2, 5\]"),
        (lambda: metrics.answer_behind(np.ones((2, 3)), 9, 2), "tokens must have dtype int"),
        (lambda: metrics.answer_behind(np.ones((2, 3), int), 9, 0), "length must be at least 1, got 0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
