"""Generations of a model as samples: a Markov chain over rationales, pairs to compare, few terms of a long sum."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Int32, Integer, PyTree

from cljax.core import check, systematic_resample
from cljax.core.check import KeyLike


class Chain(NamedTuple):
    """One rationale an example.

    Attributes:
      state: a tree of arrays `[M, ...]`, such as tokens.
      correct: `[M]` booleans, whether it leads to the right answer.
    """

    state: Any
    correct: Bool[Array, " M"]


class Terms(NamedTuple):
    """Few terms that stand for a long sum.

    Attributes:
      index: int32 `[count]`, which terms.
      weights: float32 `[count]`, what each counts in their mean.
    """

    index: Int32[Array, " count"]
    weights: Float[Array, " count"]


def independence_step(state: PyTree, correct: Bool[ArrayLike, " M"], proposal: PyTree, proposal_correct: Bool[ArrayLike, " M"]) -> Chain:
    r"""One step of each example's Markov chain over rationales: the proposal if it is right, else what was there, right or not.

    Its stationary distribution is the posterior $p(z | x, y) \propto p(z | x)\, c(z, y)$ of rationales that lead to the right answer, where the
    proposals come from the model $p(z | x)$ itself: their densities cancel in the ratio of Metropolis and Hastings, and what is left is c.

    Args:
      state: a tree of arrays `[M, ...]`, the rationales in memory.
      correct: `[M]` booleans, whether they are right.
      proposal: a like tree, one draw of the model for each example.
      proposal_correct: `[M]` booleans, whether that is right.

    Returns:
      `Chain` of the rationales after the step and whether they are right, which is so where either was.

    Raises:
      TypeError, ValueError: arrays of another kind or shape, trees of different structure.

    Reference: Phan et al., "Training Chain-of-Thought via Latent-Variable Inference" (TRICE), NeurIPS 2023; Tierney, "Markov Chains for
    Exploring Posterior Distributions", 1994 (independence chains).

    >>> found = independence_step(jnp.array([7, 8, 9]), jnp.array([True, True, False]), jnp.array([1, 2, 3]), jnp.array([True, False, False]))
    >>> found.state.tolist(), found.correct.tolist()
    ([1, 8, 9], [True, True, False])
    """
    size = check.arrays(correct=(correct, "M", "bool"), proposal_correct=(proposal_correct, "M", "bool"))["M"]
    if jax.tree.structure(state) != jax.tree.structure(proposal):
        raise ValueError(f"proposal must have the structure of state, {jax.tree.structure(state)}, got {jax.tree.structure(proposal)}")
    for name, tree in (("state", state), ("proposal", proposal)):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            check.arrays(**{f"{name}{jax.tree_util.keystr(path)}": (leaf, "...", None)})
            if jnp.shape(leaf)[:1] != (size,):
                raise ValueError(f"{name}{jax.tree_util.keystr(path)} must have a row for each of {size} examples, got {list(jnp.shape(leaf))}")

    def choose(old, new):
        if jnp.shape(old) != jnp.shape(new):
            raise ValueError(f"proposal must have the shape of state, {list(jnp.shape(old))}, got {list(jnp.shape(new))}")
        return jnp.where(jnp.reshape(proposal_correct, (-1,) + (1,) * (jnp.ndim(old) - 1)), new, old)

    return Chain(jax.tree.map(choose, state, proposal), jnp.asarray(correct) | jnp.asarray(proposal_correct))


def generation_pairs(
    key: KeyLike, where: Bool[ArrayLike, "B K"], *, index: Integer[ArrayLike, " B"] | None = None, ids: Integer[ArrayLike, "B K"] | None = None
) -> Int32[Array, "B 2"]:
    """Two different ones of each prompt's generations, every ordered pair alike often.

    Args:
      key: a PRNG key.
      where: `[B, K]` booleans, the generations that exist: K of each of B prompts, at least two.
      index: `[B]` integers, which prompts they are: folded into the key, so that a prompt's pair is the same in any batch. None: 0 to B - 1. ids:
        `[B, K]` integers, equal where two generations of a prompt are one and the same text: the second differs from the first then. The first is
        any.

    Returns:
      int32 `[B, 2]`, columns of `where`; -1 in both where there are no two.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range.

    >>> pairs = generation_pairs(jax.random.key(0), jnp.array([[True, True, False], [False, True, False]]))
    >>> sorted(pairs[0].tolist()), pairs[1].tolist()
    ([0, 1], [-1, -1])
    """
    check.key("key", key)
    sizes = check.arrays(where=(where, "B K", "bool"), index=(index, "B?", "int"), ids=(ids, "B K?", "int"))
    check.integer("the number of generations", sizes["K"], at_least=2)
    index, where = jnp.arange(sizes["B"]) if index is None else jnp.asarray(index), jnp.asarray(where)
    ids = jnp.broadcast_to(jnp.arange(sizes["K"]), where.shape) if ids is None else jnp.asarray(ids)

    def pair(number, exists, ids):
        order = jax.random.uniform(jax.random.fold_in(key, number), exists.shape)
        first = jnp.argmax(jnp.where(exists, order, -1))
        others = exists & (ids != ids[first])
        second = jnp.argmax(jnp.where(others, order, -1))
        return jnp.where(jnp.any(others), jnp.stack([first, second]), -1).astype(jnp.int32)

    return jax.vmap(pair)(index, where, ids)


def majority(answers: Int[ArrayLike, "B S A"], *, where: Bool[ArrayLike, "B S"] | None = None) -> Int32[Array, " B"]:
    """The sample whose answer most samples of a question give: self-consistency.

    Args:
      answers: integers `[B, S, A]`, the answers of S samples a question, such as `metrics.answer_behind` reads; two are one where all their tokens
        are.
      where: `[B, S]` booleans, the samples that vote, such as those that have an answer. None: all.

    Returns:
      int32 `[B]`, the first sample with that answer, of equally frequent ones the one that comes first; -1 where none votes.

    Raises:
      TypeError, ValueError: an argument of another shape or dtype.

    Reference: Wang et al., "Self-Consistency Improves Chain of Thought Reasoning in Language Models", ICLR 2023.

    >>> majority(jnp.array([[[4], [2], [7], [2]]])).tolist()
    [1]
    """
    sizes = check.arrays(answers=(answers, "B S A", "int"), where=(where, "B S?", "bool"))
    check.integer("the number of samples", sizes["S"], at_least=1)
    answers, voting = jnp.asarray(answers), jnp.ones((sizes["B"], sizes["S"]), bool) if where is None else jnp.asarray(where)
    same = jnp.all(answers[:, :, None] == answers[:, None], axis=-1)
    votes = jnp.where(voting, jnp.sum(same & voting[:, None], axis=2), 0)
    return jnp.where(jnp.any(voting, axis=1), jnp.argmax(votes, axis=1), -1).astype(jnp.int32)


def subsample_terms(key: KeyLike, coefficients: Float[ArrayLike, " N"], count: int) -> Terms:
    r"""Few terms whose weighted mean is an unbiased estimate of a sum, $E[\frac1L \sum_l v_l x_{i_l}] = \sum_i a_i x_i$.

    Terms are drawn by `core.systematic_resample` in proportion to $|a_i|$, and $v_l = \operatorname{sign}(a_{i_l}) \sum_j |a_j|$. So the gradient of
    TRICE costs L backward passes instead of two an example, and those that have no weight cost nothing.

    Args:
      key: a PRNG key.
      coefficients: `[N]`, of any sign. No gradient goes to them.
      count: L.

    Returns:
      `Terms`; where all coefficients are 0 the weights are 0 and the indices -1, where one is NaN the weights are NaN.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range.

    Reference: Phan et al., "Training Chain-of-Thought via Latent-Variable Inference" (TRICE), NeurIPS 2023. The released notebook draws in proportion
    to the exponentials of the coefficients instead, which is biased.

    >>> terms = subsample_terms(jax.random.key(0), jnp.array([0.5, 0.0, -0.25]), 3)
    >>> terms.index.tolist(), terms.weights.tolist()
    ([0, 0, 2], [0.75, 0.75, -0.75])
    """
    check.key("key", key)
    check.arrays(coefficients=(coefficients, "N"))
    coefficients = lax.stop_gradient(jnp.asarray(coefficients, jnp.promote_types(jnp.result_type(coefficients), jnp.float32)))
    size = jnp.abs(coefficients)
    index = systematic_resample(key, size, count)
    return Terms(index, jnp.sign(coefficients[index]) * jnp.sum(size))
