"""The chain over rationales keeps its posterior, pairs are any two generations, few terms stand for a long sum without bias."""

import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import core, losses, samplers

KEY = jax.random.key(0)
f32 = np.float32


def test_a_right_proposal_is_taken_and_a_wrong_one_is_not():
    old, new = {"tokens": np.arange(8).reshape(4, 2), "length": np.arange(4)}, {"tokens": -np.arange(8).reshape(4, 2), "length": -np.arange(4)}
    correct, proposed = np.array([True, True, False, False]), np.array([True, False, True, False])
    chain = jax.jit(samplers.independence_step)(old, correct, new, proposed)
    assert chain.state["length"].tolist() == [0, 1, -2, 3]
    assert chain.state["tokens"].tolist() == [[0, -1], [2, 3], [-4, -5], [6, 7]]
    assert chain.correct.tolist() == [True, True, True, False]


def test_the_posterior_is_stationary():
    p, right = np.array([0.4, 0.3, 0.2, 0.1]), np.array([True, False, True, True])
    posterior = p * right / (p @ right)
    memory, proposal = np.array(list(itertools.product(range(4), range(4)))).T
    state = samplers.independence_step(memory, right[memory], proposal, right[proposal]).state
    np.testing.assert_allclose(np.bincount(state, posterior[memory] * p[proposal], minlength=4), posterior, atol=1e-12)


@pytest.mark.parametrize("exists", [[1, 1, 1, 1], [1, 0, 1, 1], [0, 1, 1, 0]])
def test_any_two_different_generations_make_a_pair(exists):
    count, columns = 12000, np.flatnonzero(exists)
    pairs = samplers.generation_pairs(KEY, np.broadcast_to(np.array(exists, bool), (count, 4)))
    found = Counter(map(tuple, pairs.tolist()))
    every = set(itertools.permutations(columns.tolist(), 2))
    assert set(found) == every
    expected = count / len(every)
    assert max(abs(number - expected) for number in found.values()) < 5 * np.sqrt(expected)


def test_a_prompt_has_its_pair_in_any_batch_and_none_where_there_are_not_two():
    where = np.random.default_rng(0).random((9, 5)) < 0.7
    where[3], where[4] = False, np.eye(5, dtype=bool)[2]
    whole = samplers.generation_pairs(KEY, where)
    assert whole[3].tolist() == whole[4].tolist() == [-1, -1]
    few = np.array([7, 4, 1])
    np.testing.assert_array_equal(samplers.generation_pairs(KEY, where[few], index=few), whole[few])
    assert (samplers.generation_pairs(jax.random.key(1), where) != whole).any()


def test_the_same_text_twice_is_no_pair():
    ids = np.broadcast_to(np.array([4, 4, 9]), (300, 3))
    pairs = np.asarray(samplers.generation_pairs(KEY, np.ones((300, 3), bool), ids=ids))
    assert set(map(tuple, pairs.tolist())) == {(0, 2), (1, 2), (2, 0), (2, 1)}
    assert (samplers.generation_pairs(KEY, np.ones((2, 3), bool), ids=ids[:2] * 0) == -1).all()


# Six examples of TRICE; their coefficients on memory and on proposals.
PROPOSED, KEPT = np.array([1, 0, 0, 1, 0, 0], bool), np.array([1, 1, 0, 1, 1, 0], bool)


def combs(monkeypatch, weights, count):
    """Every draw with the length of the interval of u on which it is the one."""
    borders = np.unique(np.round(np.concatenate([[0, 1], (np.cumsum(np.float64(weights)) / weights.sum(dtype=np.float64) * count) % 1]), 7))
    for start, end in itertools.pairwise(borders):
        if end - start > 1e-6:
            monkeypatch.setattr(jax.random, "uniform", lambda key, shape, dtype, u=(start + end) / 2: jnp.asarray(u, dtype))
            yield end - start


def test_the_answer_of_most_samples_wins():
    answers = np.array([[[4, 1], [2, 1], [4, 2], [2, 1]], [[3, 0], [5, 0], [5, 0], [3, 0]], [[7, 7], [1, 1], [1, 1], [7, 7]]])
    where = np.array([[True] * 4, [True] * 4, [True, True, False, False]])
    vote = jax.jit(samplers.majority)
    assert vote(answers).tolist() == [1, 0, 0]  # both tokens count, and of equally frequent ones the first
    assert vote(answers, where=where).tolist() == [1, 0, 0]
    assert vote(answers, where=~where).tolist() == [-1, -1, 2]
    assert samplers.majority(answers, where=np.arange(4) > np.zeros((3, 1))).tolist() == [1, 1, 1]


def test_few_terms_of_trice_have_its_mean(monkeypatch):
    coefficients = np.concatenate(losses.trice_coefficients(PROPOSED, KEPT)) / 6
    size = np.abs(coefficients)
    np.testing.assert_allclose(size.sum(), 1.166667, atol=1e-6)
    probabilities = [0.142857, 0.214286, 0, 0.142857, 0.214286, 0, 0, 0.142857, 0, 0, 0.142857, 0]
    np.testing.assert_allclose(size / size.sum(), probabilities, atol=1e-6)
    mean, total = np.zeros(12), 0.0
    for length in combs(monkeypatch, size, 5):
        terms = samplers.subsample_terms(KEY, f32(coefficients), 5)
        mean += length * np.bincount(terms.index, terms.weights, minlength=12) / 5
        total += length
    np.testing.assert_allclose(total, 1, atol=1e-5)
    np.testing.assert_allclose(mean, coefficients, atol=1e-5)
    np.testing.assert_allclose(coefficients, [0.166667, 0.25, 0, 0.166667, 0.25, 0, 0, -0.166667, 0, 0, -0.166667, 0], atol=1e-6)


def test_the_notebooks_softmax_of_the_weights_is_biased():
    """What the released notebook does, as a fact about it: the probabilities are those of softmax(w), the scale is that of w."""
    w = np.array([2 / 3, 1, 0, 2 / 3, 1, 0, 0, 2 / 3, 0, 0, 2 / 3, 0])
    softmax = np.exp(w) / np.exp(w).sum()
    expected = [0.101299, 0.141375, 0.052009, 0.101299, 0.141375, 0.052009, 0.052009, 0.101299, 0.052009, 0.052009, 0.101299, 0.052009]
    np.testing.assert_allclose(softmax, expected, atol=1e-6)
    mask = np.tile(KEPT, 2)
    signs = np.repeat([1, -1], 6) * mask
    biased = signs * softmax * w.sum() / KEPT.sum()
    np.testing.assert_allclose(biased[[0, 1]], [0.118183, 0.164937], atol=1e-6)
    np.testing.assert_allclose(biased[[7, 10]], -0.118183, atol=1e-6)
    np.testing.assert_allclose(biased[[6, 9]], -0.060677, atol=1e-6)  # on proposals that were accepted


def test_terms_without_weight_are_never_drawn_and_nothing_gives_nothing():
    terms = jax.vmap(lambda key: samplers.subsample_terms(key, f32([0, -1, 0, 3, 0]), 4))(jax.random.split(KEY, 50))
    assert set(np.ravel(terms.index).tolist()) == {1, 3}
    np.testing.assert_array_equal(np.where(terms.index == 1, -4, 4), terms.weights)
    none = samplers.subsample_terms(KEY, f32([0, 0]), 3)
    assert none.weights.tolist() == [0, 0, 0]
    assert np.isnan(samplers.subsample_terms(KEY, f32([1, np.nan]), 3).weights).all()
    assert core.systematic_resample(KEY, f32([1, 3]), 4).tolist() == samplers.subsample_terms(KEY, f32([1, -3]), 4).index.tolist()


@pytest.mark.errors
@pytest.mark.parametrize(
    "call, error, match",
    [
        (lambda: samplers.generation_pairs(KEY, np.ones((2, 1), bool)), ValueError, "the number of generations must be at least 2, got 1"),
        (lambda: samplers.generation_pairs(KEY, np.ones((2, 3))), TypeError, "where must have dtype bool"),
        (lambda: samplers.generation_pairs(KEY, np.ones((2, 3), bool), index=np.arange(3)), ValueError, r"index must have shape \[B\] with B = 2"),
        (lambda: samplers.subsample_terms(KEY, np.arange(3), 2), TypeError, "coefficients must have dtype float"),
        (
            lambda: samplers.independence_step(np.ones((3, 2)), KEPT[:3], np.ones((3, 4)), KEPT[:3]),
            ValueError,
            r"proposal must have the shape of state, \[3, 2\], got \[3, 4\]",
        ),
        (lambda: samplers.independence_step(np.ones(2), KEPT[:3], np.ones(3), KEPT[:3]), ValueError, "state must have a row for each of 3 examples"),
        (lambda: samplers.independence_step({"a": KEPT}, KEPT, KEPT, KEPT), ValueError, "proposal must have the structure of state"),
        (lambda: samplers.majority(np.ones((2, 0, 1), int)), ValueError, "the number of samples must be at least 1, got 0"),
        (lambda: samplers.majority(np.ones((2, 3, 1))), TypeError, "answers must have dtype int"),
    ],
)
def test_bad_input_is_named(call, error, match):
    with pytest.raises(error, match=match):
        call()
