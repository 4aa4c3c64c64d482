"""Active selection: which examples of a pool to have labelled next, from what a model says of them now and said a round before.

Arrays have the size of the whole pool in every round, and `where` says which examples may still be chosen: one compiled program serves all rounds.
Nothing has a gradient. A NaN ranks first in every selection, so that it comes to light.
"""

from typing import Literal

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int32, Integer, Num

from cljax.core import check, permuted
from cljax.core.check import KeyLike
from cljax.samplers import _runs

Space = Literal["prob", "log"]


def contrastive_margin(
    probabilities: Float[ArrayLike, "N K"],
    previous: Float[ArrayLike, "N K"] | None = None,
    *,
    contrast: Num[ArrayLike, ""] = 0.03,
    space: Space = "prob",
) -> Float[Array, " N"]:
    r"""How far the best class is ahead of the second best, once what the model has learnt since the round before is added: small is informative.

    $$u_i = s_{i(1)} - s_{i(2)}, \qquad s_i = p_i + \alpha (p_i - p_i')$$
    with $p'$ of the round before. Without it, or with $\alpha = 0$, it is the margin between the best and the second best class (BvSB). The paper
    contrasts logarithms, `space="log"`; the default is what the released code does. A probability of 0 counts as the least positive float32 there.

    Args:
      probabilities: `[N, K]`, of K classes, at least two.
      previous: `[N, K]`, those of the round before, or None.
      contrast: alpha.
      space: whether probabilities ("prob") or their logarithms ("log") are contrasted and compared.

    Returns:
      float32 `[N]`, not below 0; NaN where a probability of the example is NaN.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range.

    Reference:
      Lyu et al., "Learn from the Learnt: Source-Free Active Domain Adaptation via Contrastive Sampling and Visual Persistence", ECCV 2024; Joshi et
      al., "Multi-Class Active Learning for Image Classification", CVPR 2009, section 3 (BvSB).

    >>> now, before = jnp.array([[0.5, 0.3, 0.2], [0.4, 0.35, 0.25]]), jnp.array([[0.6, 0.2, 0.2], [0.4, 0.35, 0.25]])
    >>> print(", ".join(f"{u:.3f}" for u in contrastive_margin(now, before, contrast=0.5)))
    0.100, 0.050
    """
    _check(probabilities, previous, contrast, space)
    now, before = _placed(probabilities, space), None if previous is None else _placed(previous, space)
    scores = now if before is None else now + jnp.asarray(contrast, now.dtype) * (now - before)
    best = lax.top_k(scores, 2)[0]
    return jnp.where(jnp.isnan(scores).any(axis=1), jnp.nan, best[:, 0] - best[:, 1])


def class_transferability(
    margins: Float[ArrayLike, " N"], labels: Integer[ArrayLike, " N"], classes: int, *, confident: int, where: Bool[ArrayLike, " N"] | None = None
) -> Float[Array, " classes"]:
    r"""How often each class is said of the examples of which a model is most sure, $w_c = n_c / \max_{c'} n_{c'}$.

    $n_c$ counts the pseudo labels c among the `confident` examples with the largest margins.

    Args:
      margins: `[N]`, as of `contrastive_margin`.
      labels: `[N]` integers from 0 to `classes` - 1, the pseudo labels.
      classes: K.
      confident: how many examples are looked at; all where there are fewer.
      where: `[N]` booleans, the examples that count.

    Returns:
      float32 `[K]`, from 0 to 1; 0 everywhere where nothing counts.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range.

    Reference:
      Lyu et al., "Learn from the Learnt", ECCV 2024.

    >>> class_transferability(jnp.array([0.1, 0.9, 0.8, 0.7]), jnp.array([2, 0, 0, 1]), 3, confident=3).tolist()
    [1.0, 0.5, 0.0]
    """
    total = check.arrays(margins=(margins, "N"), labels=(labels, "N", "int"), where=(where, "N?", "bool"))["N"]
    check.integer("classes", classes, at_least=1)
    check.integer("confident", confident, at_least=1)
    margins = _wide(margins)
    counts = ~jnp.isnan(margins) if where is None else ~jnp.isnan(margins) & where
    chosen = lax.top_k(jnp.where(counts, margins, -jnp.inf), min(confident, total))[1]
    number = jnp.zeros(classes).at[jnp.asarray(labels)[chosen]].add(counts[chosen], mode="drop")
    return number / jnp.maximum(jnp.max(number), 1)


def cas_scores(
    probabilities: Float[ArrayLike, "N K"],
    previous: Float[ArrayLike, "N K"] | None = None,
    *,
    contrast: Num[ArrayLike, ""] = 0.03,
    class_weight: Num[ArrayLike, ""] = 0.1,
    confident: int = 200,
    where: Bool[ArrayLike, " N"] | None = None,
    space: Space = "prob",
) -> Float[Array, " N"]:
    r"""The scores of contrastive active sampling (CAS): a contrastive margin, plus a handicap for classes that are known well.

    $$S_i = u_i / \max_j u_j + \lambda \, w_{c_i}, \qquad c_i = \arg\max_k p_{ik}$$
    with u of `contrastive_margin` and w of `class_transferability`. With `contrast=0` and `class_weight=0` the order is that of the plain margin.

    Args:
      probabilities: `[N, K]`, of the whole pool.
      previous: `[N, K]`, those of the round before; None in the first round.
      contrast: alpha.
      class_weight: lambda, not below 0.
      confident: how many of the surest examples tell the frequent classes.
      where: `[N]` booleans, the examples that may be chosen: the others count nowhere.
      space: as in `contrastive_margin`.

    Returns:
      float32 `[N]`, of which the smallest are to be chosen; +inf outside of `where`, NaN where a probability is NaN.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range.

    Reference:
      Lyu et al., "Learn from the Learnt", ECCV 2024. Published commands: contrast 0.03, class_weight 0.1, confident 100 (Office) and 500 (VisDA-C).

    >>> probabilities = jnp.array([[0.5, 0.3, 0.2], [0.9, 0.05, 0.05], [0.2, 0.6, 0.2]])
    >>> print(", ".join(f"{score:.3f}" for score in cas_scores(probabilities, confident=1)))
    0.335, 1.100, 0.471
    """
    sizes = _check(probabilities, previous, contrast, space)
    check.arrays(where=(where, f"{sizes['N']}?", "bool"))
    check.number("class_weight", class_weight, at_least=0)
    margins = contrastive_margin(probabilities, previous, contrast=contrast, space=space)
    labels = jnp.argmax(jnp.asarray(probabilities), axis=1)
    weights = class_transferability(margins, labels, sizes["K"], confident=confident, where=where)
    known = jnp.isnan(margins) if where is None else jnp.isnan(margins) | ~where
    largest = jnp.max(jnp.where(known, 0, margins), initial=0)
    scores = margins / jnp.where(largest > 0, largest, 1) + jnp.asarray(class_weight, margins.dtype) * weights[labels]
    return scores if where is None else jnp.where(where, scores, jnp.inf)


def cas_select(
    probabilities: Float[ArrayLike, "N K"],
    previous: Float[ArrayLike, "N K"] | None,
    count: int,
    *,
    contrast: Num[ArrayLike, ""] = 0.03,
    class_weight: Num[ArrayLike, ""] = 0.1,
    confident: int = 200,
    where: Bool[ArrayLike, " N"] | None = None,
    space: Space = "prob",
) -> Int32[Array, " count"]:
    """The examples that contrastive active sampling would have labelled: `select_smallest` of `cas_scores`.

    Args:
      probabilities, previous, contrast, class_weight, confident, where, space: as in `cas_scores`.
      count: how many are chosen, at most N.

    Returns:
      int32 `[count]`, indices by rising score; -1 where fewer may be chosen.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range.

    Reference:
      Lyu et al., "Learn from the Learnt", ECCV 2024.

    >>> probabilities = jnp.array([[0.5, 0.3, 0.2], [0.9, 0.05, 0.05], [0.2, 0.6, 0.2]])
    >>> cas_select(probabilities, None, 2, where=jnp.array([True, True, False])).tolist()
    [0, 1]
    """
    how = dict(contrast=contrast, class_weight=class_weight, confident=confident, where=where, space=space)
    return select_smallest(cas_scores(probabilities, previous, **how), count, where=where)


def select_smallest(scores: Float[ArrayLike, " N"], count: int, *, where: Bool[ArrayLike, " N"] | None = None) -> Int32[Array, " count"]:
    """The `count` examples with the smallest scores, each once; of equal ones those with the lower index.

    Any rule of active learning is a score and this: minus the entropy of the prediction, the margin, uniform numbers for a random choice.

    Args:
      scores: `[N]`; NaN ranks first.
      count: how many are chosen, at most N.
      where: `[N]` booleans, the examples that may be chosen.

    Returns:
      int32 `[count]`, indices by rising score; -1 where fewer may be chosen.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range.

    >>> select_smallest(jnp.array([0.3, 0.1, 0.2, 0.0]), 3, where=jnp.array([True, True, False, False])).tolist()
    [1, 0, -1]
    """
    total = check.arrays(scores=(scores, "N"), where=(where, "N?", "bool"))["N"]
    check.integer("count", count, at_least=1, at_most=total)
    ranks = -_wide(scores)
    ranks = jnp.where(jnp.isnan(ranks), jnp.inf, jnp.maximum(ranks, jnp.finfo(ranks.dtype).min))
    chosen = lax.top_k(ranks if where is None else jnp.where(where, ranks, -jnp.inf), count)[1].astype(jnp.int32)
    return chosen if where is None else jnp.where(jnp.asarray(where)[chosen], chosen, -1)


def shuffled_rows(key: KeyLike, count: Integer[ArrayLike, ""], places: Integer[ArrayLike, "..."]) -> Int32[Array, "..."]:
    r"""Rows at places of an endless stream of shuffled epochs, of a number of rows that may be traced: there are more labelled ones after each round.

    The stream is $\pi_0, \pi_1, \ldots$, each a random permutation of `range(count)`. Step t of B rows takes the places $tB, \ldots, tB + B - 1$.
    Where the number of rows is fixed, `shuffled_batch` does it in less time.

    Args:
      key: a PRNG key.
      count: the number of rows, at least 1; may be traced.
      places: integers, not below 0.

    Returns:
      int32, of the shape of `places`.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range.

    >>> import jax
    >>> rows = jax.jit(shuffled_rows)(jax.random.key(0), 3, jnp.arange(6))
    >>> sorted(rows[:3].tolist()), sorted(rows[3:].tolist())
    ([0, 1, 2], [0, 1, 2])
    """
    check.key("key", key)
    check.arrays(count=(count, "", "int"), places=(places, "...", "int"))
    check.number("count", count, at_least=1)
    check.number("places", places, at_least=0, several=True)
    count, places = jnp.asarray(count), jnp.asarray(places)
    return permuted(_runs.fold(key, places // count), count, places % count)


def _check(probabilities, previous, contrast, space):
    sizes = check.arrays(probabilities=(probabilities, "N K"), previous=(previous, "N K?"), contrast=(contrast, "", "number"))
    if sizes["K"] < 2:
        raise ValueError(f"probabilities must be of two classes at least, got {sizes['K']}")
    check.number("contrast", contrast)
    check.choice("space", space, ("prob", "log"))
    return sizes


def _wide(x):
    return lax.stop_gradient(jnp.asarray(x, jnp.promote_types(jnp.result_type(x), jnp.float32)))


def _placed(x, space):
    x = _wide(x)
    return x if space == "prob" else jnp.log(jnp.maximum(x, jnp.finfo(x.dtype).tiny))
