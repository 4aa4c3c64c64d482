"""Losses that ask for a margin between distances: of an anchor's negatives beyond its positives, or of each kind of pair on its own."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import ArrayLike, Bool, Float, Integer

from cljax.core import check, vary, varying_axes
from cljax.losses import _pairs
from cljax.losses._pairs import Collective, Ids, Implementation, Scalar, Where
from cljax.losses.averaging import Masked
from cljax.pairwise import Max, Sum, arguments
from cljax.pairwise import similarity as sim

Distance = Literal["euclidean", "sqeuclidean", "cosine"]

_PAIRS = 2**20  # of a block of rows


def triplet_margin(
    embeddings: Float[ArrayLike, "B D"],
    labels: Integer[ArrayLike, "B ..."],
    *,
    margin: Scalar,
    mining: Literal["all", "semi_hard", "hard"] = "all",
    references: Float[ArrayLike, "M D"] | None = None,
    reference_labels: Integer[ArrayLike, "M ..."] | None = None,
    in_batch: bool = True,
    ids: Ids = None,
    reference_ids: Integer[ArrayLike, "M ..."] | None = None,
    reference_where: Bool[ArrayLike, " M"] | None = None,
    references_axis_name: str | None = None,
    where: Where = None,
    distance: Distance = "euclidean",
    axis_name: str | None = None,
    collective: Collective = "gather",
    block_size: int | None = None,
    implementation: Implementation = "auto",
) -> Masked:
    r"""How far an anchor's negatives fail to be a margin farther than its positives: the mean over triplets of $[m + d_{ip} - d_{in}]_+$.

    `mining` says which triplets (i, p, n) of an anchor i, another row p of its class and a row n of another class:
      "all";
      "semi_hard": for each positive the nearest negative that is farther than it, where there is one;
      "hard": the farthest positive and the nearest negative.
    The mean is over those of the anchor's triplets whose loss is above 0, as over all of them it vanishes when most are satisfied; where all are, the
    value is 0. `losses.mean(found, found.values > 0)` leaves such anchors out.

    `pytorch-metric-learning` takes the mean over the non-zero triplets of the whole batch at once, so that anchors with more of them weigh more; its
    miner of "semihard" triplets keeps every negative within the margin, not the nearest alone; and it normalises embeddings first. TensorFlow Addons
    gives a positive without a farther negative the farthest one.

    >>> import jax.numpy as jnp
    >>> from cljax import losses
    >>> x = jnp.array([[0.0], [1.0], [1.5], [4.0]])
    >>> values, where = losses.triplet_margin(x, jnp.array([0, 0, 1, 2]), margin=1.0)
    >>> values.tolist(), where.tolist()
    ([0.5, 1.5, 0.0, 0.0], [True, True, False, False])

    Args:
      embeddings: `[B, D]`.
      labels: integers `[B]`, or sets `[B, R]` padded with -1: rows whose labels meet are positives.
      margin: $m$, not below 0, in the unit of the distance.
      mining: "all", "semi_hard" or "hard". Which triplets are taken has no gradient.
      references, reference_labels, in_batch, reference_ids, reference_where, references_axis_name: further rows, as said in `cljax.losses`.
      ids: integers `[B]`, or sets `[B, R]` padded with -1: rows whose ids meet are never each other's negatives.
      where: `[B]` booleans, the valid rows: any other counts nowhere.
      distance: "euclidean" of the embeddings as they are (normalise them first to compare directions), with a zero gradient where two are equal;
        "sqeuclidean", its square; "cosine", 1 minus the cosine.
      axis_name, collective, block_size, implementation: as in `pairwise.reduce`. "all" and "semi_hard" sort the distances of an anchor: they gather
        all rows whatever the collective, and hold `block_size` anchors against them at once; by default 2^20 pairs.

    Returns:
      `Masked` of float32 values `[B]` and booleans `[B]`: an anchor without a positive or without a negative has no triplet, value 0, and is left out
      by `losses.mean`.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree, a negative margin, an unknown `mining` or `distance`, arguments of references without them.

    Reference: Schroff et al., "FaceNet: A Unified Embedding for Face Recognition and Clustering", CVPR 2015, equations 3 and 4 (semi-hard); Hermans
    et al., "In Defense of the Triplet Loss for Person Re-Identification", 2017, equations 5 (hard) and 6 (all, over the non-zero ones).
    """
    check.choice("mining", mining, ("all", "semi_hard", "hard"))
    _check_margin("margin", margin)
    sides = dict(ids=ids, reference_ids=reference_ids, reference_where=reference_where, references_axis_name=references_axis_name)
    sides |= dict(in_batch=in_batch, where=where, axis_name=axis_name)
    embeddings, rows, sources = _pairs.labelled(embeddings, labels, references, reference_labels, **sides)
    how = dict(similarity=_similarity(distance), collective=collective, block_size=block_size, implementation=implementation)
    triplets = _hardest if mining == "hard" else functools.partial(_sorted, semi_hard=mining == "semi_hard")
    values, exists = triplets(embeddings, rows, sources, _pairs.float_array(margin), distance, how)
    where = _pairs.both(exists, where)
    return Masked(jnp.where(where, values, 0), where)


def pairwise_contrastive(
    embeddings: Float[ArrayLike, "B D"],
    labels: Integer[ArrayLike, "B ..."],
    *,
    positive_margin: Scalar = 0.0,
    negative_margin: Scalar,
    references: Float[ArrayLike, "M D"] | None = None,
    reference_labels: Integer[ArrayLike, "M ..."] | None = None,
    in_batch: bool = True,
    ids: Ids = None,
    reference_ids: Integer[ArrayLike, "M ..."] | None = None,
    reference_where: Bool[ArrayLike, " M"] | None = None,
    references_axis_name: str | None = None,
    where: Where = None,
    distance: Distance = "euclidean",
    axis_name: str | None = None,
    collective: Collective = "gather",
    block_size: int | None = None,
    implementation: Implementation = "auto",
) -> Masked:
    r"""Positives nearer than one margin, negatives farther than another.

    $$\frac{1}{|P_i|} \sum_{p \in P_i} \tfrac12 [d_{ip} - m_+]_+^2 + \frac{1}{|N_i|} \sum_{n \in N_i} \tfrac12 [m_- - d_{in}]_+^2$$

    A mean for each kind, as an anchor has far more negatives; where it has none of a kind the term is 0. `pytorch-metric-learning` takes the hinges
    themselves, not half their squares, and each mean over the non-zero pairs of the whole batch.

    >>> import jax.numpy as jnp
    >>> from cljax import losses
    >>> values, _ = losses.pairwise_contrastive(jnp.array([[0.0], [1.0], [1.5]]), jnp.array([0, 0, 1]), negative_margin=2.0)
    >>> values.tolist()
    [0.625, 1.625, 0.625]

    Args:
      embeddings: `[B, D]`.
      labels: integers `[B]`, or sets `[B, R]` padded with -1: the positives $P_i$ are the other rows whose labels meet those of row i.
      positive_margin: $m_+$, not below 0, the distance within which positives may lie.
      negative_margin: $m_-$, not below 0, the distance beyond which negatives count no more.
      references, reference_labels, in_batch, reference_ids, reference_where, references_axis_name: further rows, as said in `cljax.losses`.
      ids: integers `[B]`, or sets `[B, R]` padded with -1: rows whose ids meet are never each other's negatives.
      where: `[B]` booleans, the valid rows: any other counts nowhere.
      distance: as in `triplet_margin`.
      axis_name, collective, block_size, implementation: as in `pairwise.reduce`.

    Returns:
      `Masked` of float32 values `[B]` and booleans `[B]`: an anchor without any pair has value 0 and is left out by `losses.mean`.

    Raises:
      TypeError: an argument of a wrong kind or dtype.
      ValueError: shapes that disagree, a negative margin, an unknown `distance`, arguments of references without them.

    Reference: Hadsell et al., "Dimensionality Reduction by Learning an Invariant Mapping", CVPR 2006, equation 4 (which sums over pairs).
    """
    _check_margin("positive_margin", positive_margin)
    _check_margin("negative_margin", negative_margin)
    sides = dict(ids=ids, reference_ids=reference_ids, reference_where=reference_where, references_axis_name=references_axis_name)
    sides |= dict(in_batch=in_batch, where=where, axis_name=axis_name)
    embeddings, rows, sources = _pairs.labelled(embeddings, labels, references, reference_labels, **sides)
    how = dict(similarity=_similarity(distance), collective=collective, block_size=block_size, implementation=implementation)

    def terms(scores, row, column, margins):
        positive, negative = _kinds(row, column)
        distances = _distances(scores, distance)
        pull, push = jax.nn.relu(distances - margins[0]) ** 2 / 2, jax.nn.relu(margins[1] - distances) ** 2 / 2
        return {
            "pull": Sum(pull, positive),
            "positives": Sum(1.0, positive),
            "push": Sum(push, negative),
            "negatives": Sum(1.0, negative),
        }

    margins = _pairs.float_array(positive_margin), _pairs.float_array(negative_margin)
    found = functools.reduce(_pairs.join, _pairs.over(sources, embeddings, terms, rows, how, margins))
    values = found["pull"] / jnp.maximum(found["positives"], 1) + found["push"] / jnp.maximum(found["negatives"], 1)
    where = _pairs.both(found["positives"] + found["negatives"] > 0, where)
    return Masked(jnp.where(where, values, 0), where)


def _check_margin(name, margin):
    check.number(name, margin, at_least=0)
    check.arrays(**{name: (margin, "", "number")})


def _similarity(distance):
    """The similarity of `pairwise.reduce` that orders pairs as the distance does."""
    check.choice("distance", distance, ("euclidean", "sqeuclidean", "cosine"))
    return "cosine" if distance == "cosine" else "sqeuclidean"


def _distances(scores, distance):
    """The distances from those similarities; a root with zero gradient at 0."""
    if distance == "cosine":
        return 1 - scores
    return -scores if distance == "sqeuclidean" else jnp.where(scores == 0, 0, jnp.sqrt(jnp.where(scores == 0, 1, -scores)))


def _kinds(row, column):
    """Which pairs are positives, which negatives."""
    positive = _pairs.positives(row, column)
    return positive, _pairs.both(_pairs.kept(row, column, positive), ~positive)


def _hardest(embeddings, rows, sources, margin, distance, how):
    """The loss of each anchor's farthest positive and nearest negative, and whether it has both."""

    def terms(scores, row, column, _):
        positive, negative = _kinds(row, column)
        return Max(-scores, positive), Max(scores, negative), Sum(1.0, positive), Sum(1.0, negative)

    positive, negative, positives, negatives = zip(*_pairs.over(sources, embeddings, terms, rows, how), strict=True)
    exists = (sum(positives) > 0) & (sum(negatives) > 0)
    farthest, nearest = (functools.reduce(_larger, [value for value, _ in found]) for found in (positive, negative))
    farthest, nearest = (_distances(jnp.where(exists, scores, 0), distance) for scores in (-farthest, nearest))
    return jax.nn.relu(margin + farthest - nearest), exists


def _larger(x, y):
    return jnp.where((x >= y) | jnp.isnan(x), x, y)


def _sorted(embeddings, rows, sources, margin, distance, how, semi_hard):
    """The mean loss of each anchor's non-zero triplets, and whether it has any; a block of anchors at a time, computed again for the gradient."""
    every, sides = [], []
    for keys, columns, axis in sources:
        keys, columns = (embeddings, rows) if keys is None else (keys, columns)
        checked = arguments.checked(embeddings, keys, rows, columns, axis_name=axis, **how)
        _, keys, _, columns, _ = arguments.gathered(*checked, None, axis)
        every.append(keys)
        sides.append(jax.tree.map(lambda leaf: leaf[None], columns))
    keys = jnp.concatenate(every)
    whole = jnp.asarray(embeddings), rows, margin, keys, sides, sim.centre(how["similarity"], keys)
    embeddings, rows, margin, keys, sides, centre = vary(whole, varying_axes(whole))

    def one(anchor):
        query, row = jax.tree.map(lambda leaf: leaf[None], anchor)
        row = jax.tree.map(lambda leaf: leaf[:, None], row)
        distances = _distances(sim.scores(how["similarity"], query, keys, centre), distance)[0]
        kinds = zip(*(_kinds(row, column) for column in sides), strict=True)
        positive, negative = (jnp.concatenate(kind, axis=1)[0] for kind in kinds)
        return (_semi_hard if semi_hard else _all)(_shifted(distances, positive | negative), positive, negative, margin)

    if how["implementation"] == "dense" or (how["implementation"] == "auto" and len(embeddings) * len(keys) <= _PAIRS):
        return jax.vmap(one)((embeddings, rows))
    at_once = how["block_size"] or _PAIRS // max(1, len(keys))
    return lax.map(jax.checkpoint(one), (embeddings, rows), batch_size=max(1, min(at_once, len(embeddings))))


def _shifted(distances, kept):
    """The distances, less their mean: only differences count, and sums of small numbers are sharper. The mean also carries a NaN to all."""
    return distances - lax.stop_gradient(jnp.sum(jnp.where(kept, distances, 0)) / jnp.maximum(jnp.sum(kept), 1))


def _all(distances, positive, negative, margin):
    """For one anchor and all triplets: the mean of the losses above 0, and whether there is a triplet. `[N]` in, scalars out.

    In the order of distances, with each positive moved a margin outwards, the negatives before a positive are those that violate its margin.
    """
    moved, is_positive, is_negative = _in_order(distances + margin, positive, distances, negative)
    count, total = jnp.cumsum(jnp.where(is_negative, 1.0, 0.0)), jnp.cumsum(jnp.where(is_negative, moved, 0))
    losses = jnp.where(is_positive, jax.nn.relu(count * moved - total), 0)
    violated = jnp.sum(jnp.where(is_positive, count, 0))
    return jnp.sum(losses) / jnp.maximum(violated, 1), jnp.any(positive) & jnp.any(negative)


def _semi_hard(distances, positive, negative, margin):
    """As `_all`, with the negative next after each positive in the order of distances alone."""
    ordered, is_negative, is_positive = _in_order(distances, negative, distances, positive)  # on ties the negative first: it is not farther
    places = jnp.arange(len(ordered), dtype=jnp.int32)
    following = lax.cummin(jnp.where(is_negative, places, len(ordered)), reverse=True)  # the index, not the distance: it needs no derivative
    nearest = jnp.where(following < len(ordered), ordered[following], jnp.inf)
    losses = jnp.where(is_positive, jax.nn.relu(margin + ordered - nearest), 0)
    return jnp.sum(losses) / jnp.maximum(jnp.sum(losses > 0), 1), jnp.any(positive) & jnp.any(negative)


def _in_order(first, is_first, second, is_second):
    """Two lists of numbers with the marks of each as one list in rising order, on ties the first list's first."""
    nothing = jnp.zeros_like(is_first)
    numbers, first_marks, second_marks = (jnp.concatenate(pair) for pair in ((first, second), (is_first, nothing), (nothing, is_second)))
    return lax.sort((numbers, first_marks, second_marks), num_keys=1)
