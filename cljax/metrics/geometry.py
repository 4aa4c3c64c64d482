"""How embeddings lie on the sphere, and how a softmax loss weighs what lies near."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Integer, Num

from cljax import losses, pairwise
from cljax.core import check, safe_normalize
from cljax.losses import uniformity as uniformity  # a scalar already
from cljax.pairwise import Max, Sum


def alignment(
    a: Float[ArrayLike, "B D"], b: Float[ArrayLike, "B D"], *, power: Num[ArrayLike, ""] = 2, where: Bool[ArrayLike, " B"] | None = None
) -> Float[Array, ""]:
    r"""The mean distance of the two embeddings of an example, $\operatorname{mean}_i \lVert a_i - b_i \rVert^{\text{power}}$, of unit vectors.

    With `power` = 2 it is $2 - 2\cos$: the mean similarity of the positives is 1 minus half of it.

    Args:
      a: `[B, D]` embeddings; they are normalised.
      b: `[B, D]` embeddings; row i belongs to row i of `a`.
      power: at least 1.
      where: `[B]` booleans, the rows that count.

    Returns:
      A float32 scalar; 0 where no row counts.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference:
      Wang & Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the Hypersphere", ICML 2020, section 4.1.

    >>> print(f"{alignment(jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 1.0]])):.4f}")
    2.0000
    """
    check.arrays(a=(a, "B D"), b=(b, "B D"), where=(where, "B?", "bool"))
    return losses.mean(losses.alignment(a, b, power=power), where)


def tolerance(embeddings: Float[ArrayLike, "B D"], labels: Integer[ArrayLike, " B"], where: Bool[ArrayLike, " B"] | None = None) -> Float[Array, ""]:
    r"""The mean cosine of two examples of one class, $\operatorname{mean}_{i \ne j,\, y_i = y_j} \cos(x_i, x_j)$.

    Every ordered pair counts the same, so a class of n examples weighs n (n - 1).

    Args:
      embeddings: `[B, D]`.
      labels: `[B]` integers.
      where: `[B]` booleans, the rows that count.

    Returns:
      A float32 scalar; 0 where no two examples share a class.

    Raises:
      TypeError, ValueError: an argument of another shape or dtype.

    Reference:
      Wang & Liu, "Understanding the Behaviour of Contrastive Loss", CVPR 2021, equation 11. Read literally, that is an average over all pairs, with
      zeros for those of two classes; the paper's prose and its numbers are of the conditional mean, which is followed.

    >>> import numpy as np
    >>> angles = np.deg2rad([0, 30, 90, 180])
    >>> print(f"{tolerance(np.stack([np.cos(angles), np.sin(angles)], 1), np.array([0, 0, 1, 1])):.4f}")
    0.4330
    """
    batch = check.arrays(embeddings=(embeddings, "B D"), labels=(labels, "B", "int"), where=(where, "B?", "bool"))["B"]
    rows = {"label": jnp.asarray(labels), "index": pairwise.index(batch), "where": jnp.ones(batch, bool) if where is None else jnp.asarray(where)}

    def terms(scores, row, column, params):
        pairs = (row["label"] == column["label"]) & (row["index"] != column["index"]) & row["where"] & column["where"]
        return {"cosine": Sum(scores, pairs), "pairs": Sum(1.0, pairs)}

    total = jax.tree.map(jnp.sum, pairwise.reduce(jnp.asarray(embeddings), None, terms, rows=rows, similarity="cosine"))
    return jnp.where(total["pairs"] == 0, 0, total["cosine"] / jnp.maximum(total["pairs"], 1))


def relative_penalty(negatives: Float[ArrayLike, "*B M"], temperature: Num[ArrayLike, "*b"]) -> Float[Array, "*B M"]:
    r"""How the gradient of the softmax loss is shared among an anchor's negatives, $r_k = \exp(s_k / \tau) / \sum_j \exp(s_j / \tau)$.

    $r_k = |\partial L / \partial s_k| \,/\, |\partial L / \partial s_\text{positive}|$: a distribution over the negatives alone, sharper at a low
    temperature.

    Args:
      negatives: `[..., M]` similarities of the negatives; -inf for none.
      temperature: a positive scalar, or one value an anchor `[...]`.

    Returns:
      float32 `[..., M]`, with sum 1 over the last axis.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference:
      Wang & Liu, "Understanding the Behaviour of Contrastive Loss", CVPR 2021, equation 5.

    >>> import numpy as np
    >>> np.asarray(relative_penalty(jnp.array([0.5, 0.2, -0.4]), 0.3)).round(4)
    array([0.7054, 0.2595, 0.0351], dtype=float32)
    """
    return jnp.exp(_log_penalty(negatives, temperature))


def penalty_entropy(negatives: Float[ArrayLike, "*B M"], temperature: Num[ArrayLike, "*b"]) -> Float[Array, "*B"]:
    r"""The entropy of the relative penalty, $H(r) = -\sum_k r_k \log r_k$, in nats: it falls as the temperature falls, from $\log M$.

    Args:
      negatives: `[..., M]` similarities of the negatives; -inf for none.
      temperature: a positive scalar, or one value an anchor `[...]`.

    Returns:
      float32 `[...]`.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference:
      Wang & Liu, "Understanding the Behaviour of Contrastive Loss", CVPR 2021, section 3.2.

    >>> print(f"{penalty_entropy(jnp.array([0.5, 0.2, -0.4]), 0.3):.4f}")
    0.7139
    """
    log_penalty = _log_penalty(negatives, temperature)
    return -jnp.sum(jnp.where(log_penalty == -jnp.inf, 0, jnp.exp(log_penalty) * log_penalty), axis=-1)


def softmax_entropy(scores: Num[ArrayLike, "*B N"], *, k: int | None = None, temperature: Num[ArrayLike, ""] = 1.0) -> Float[Array, "*B"]:
    r"""The entropy of the softmax over the k highest scores, $-\sum_j p_j \log p_j$, in nats: how many candidates a retriever wavers between.

    From 0 (one has all) to $\log k$ (all alike).

    Args:
      scores: `[..., N]`; -inf for none.
      k: how many, from 1 to N; None is all.
      temperature: divides the scores; above 0.

    Returns:
      float32 `[...]`.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference:
      Zhang et al., "Adversarial Retriever-Ranker for Dense Text Retrieval" (AR2), ICLR 2022, section 4.3 (k = 15).

    >>> print(f"{softmax_entropy(jnp.array([1.0, 1.0, -9.0]), k=2):.4f}")
    0.6931
    """
    total = check.arrays(scores=(scores, "... N", "number"), temperature=(temperature, "", "number"))["N"]
    check.integer("k", total if k is None else k, at_least=1, at_most=total)
    scores = jnp.asarray(scores, jnp.promote_types(jnp.result_type(scores), jnp.float32))
    return penalty_entropy(scores if k is None else lax.top_k(scores, k)[0], temperature)


def contrast_accuracy(
    a: Float[ArrayLike, "B D"],
    b: Float[ArrayLike, "B D"],
    *,
    similarity: str = "cosine",
    axis_name: str | None = None,
) -> Float[Array, " B"]:
    r"""Whether each row of `a` is nearer to its own row of `b` than to any other of the batch: how far the contrastive task is solved.

    Args:
      a, b: `[B, D]` embeddings; row i belongs to row i.
      similarity: as in `pairwise.reduce`.
      axis_name: the mapped axis over which the batch is split; each row is compared with those of all devices.

    Returns:
      float32 `[B]`, 1 where it is, 0 where another is as near, NaN where either embedding or another of `b` is.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or kind.

    Reference: a diagnostic in the released code of Qian et al., "Spatiotemporal Contrastive Video Representation Learning", CVPR 2021.

    >>> contrast_accuracy(jnp.array([[1.0, 0.0], [0.6, 0.8]]), jnp.array([[0.8, 0.6], [0.9, 0.1]])).tolist()
    [0.0, 0.0]
    """
    check.arrays(a=(a, "B D"), b=(b, "B D"))
    index = pairwise.index(jnp.shape(a)[0], axis_name)

    def terms(scores, row, column, _):
        return {"own": Sum(scores, where=row == column), "others": Max(scores, where=row != column)}

    found = pairwise.reduce(a, b, terms, rows=index, columns=index, similarity=similarity, axis_name=axis_name)
    ahead = found["own"] - found["others"][0]
    return jnp.where(jnp.isnan(ahead), jnp.nan, ahead > 0)


def contrast_entropy(
    a: Float[ArrayLike, "B D"],
    b: Float[ArrayLike, "B D"],
    *,
    temperature: Num[ArrayLike, ""],
    axis_name: str | None = None,
) -> Float[Array, " B"]:
    r"""How sure the contrastive task is: the entropy of the softmax over the cosines of each row of `a` with all of `b`, in nats.

    It falls from $\log N$, where all rows are alike, to 0.

    Args:
      a, b: `[B, D]` embeddings; row i belongs to row i.
      temperature: divides the cosines; above 0.
      axis_name: the mapped axis over which the batch is split; each row is compared with those of all devices.

    Returns:
      float32 `[B]`.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference: a diagnostic in the released code of Qian et al., "Spatiotemporal Contrastive Video Representation Learning", CVPR 2021.

    >>> print(contrast_entropy(jnp.eye(2), jnp.ones((2, 2)), temperature=0.1).round(4))
    [0.6931 0.6931]
    """
    check.arrays(a=(a, "B D"), b=(b, "B D"))
    check.axis("axis_name", axis_name)
    keys = safe_normalize(b)
    keys = keys if axis_name is None else lax.all_gather(keys, axis_name, tiled=True)
    return softmax_entropy(jnp.matmul(safe_normalize(a), keys.T, precision=lax.Precision.HIGHEST), temperature=temperature)


def length_bias(
    similarity: Float[ArrayLike, " P"],
    lengths: Num[ArrayLike, " P"],
    other_lengths: Num[ArrayLike, " P"],
    *,
    where: Bool[ArrayLike, " P"] | None = None,
) -> Float[Array, ""]:
    r"""How far pairs of texts are found similar because they are equally long: Pearson's correlation of similarity with $-|l_a - l_b|$.

    Over pairs that have nothing else in common it is 0 for an encoder that does not see the length.

    Args:
      similarity: `[P]`, the similarity of each pair.
      lengths, other_lengths: `[P]`, the lengths of its two texts.
      where: `[P]` booleans, the pairs that count: those without a common meaning.

    Returns:
      A float32 scalar from -1 to 1; 0 where either does not vary.

    Raises:
      TypeError, ValueError: an argument of another shape or dtype.

    Reference:
      After the abstract of Miao et al., "DebCSE: Rethinking Unsupervised Contrastive Sentence Embedding Learning in the Debiasing Perspective", CIKM
      2023; the measure is a reconstruction.

    >>> print(f"{length_bias(jnp.array([0.9, 0.1, 0.5]), jnp.array([4, 9, 7]), jnp.array([4, 5, 5])):.4f}")
    1.0000
    """
    check.arrays(
        similarity=(similarity, "P"), lengths=(lengths, "P", "number"), other_lengths=(other_lengths, "P", "number"), where=(where, "P?", "bool")
    )
    kept = jnp.ones(jnp.shape(similarity), bool) if where is None else jnp.asarray(where)
    difference = jnp.asarray(lengths, jnp.float32) - jnp.asarray(other_lengths, jnp.float32)
    x, y = (_centred(jnp.asarray(values, jnp.float32), kept) for values in (similarity, -jnp.abs(difference)))
    return jnp.sum(safe_normalize(x) * safe_normalize(y))


def topk_similarity_profile(embeddings: Float[ArrayLike, "B D"], k: int = 10) -> Float[Array, " k"]:
    """The mean cosine of an example with its nearest other example, with the second nearest, and so on to the k-th.

    Beside the mean similarity of the positives, `1 - alignment(a, b) / 2`, it shows how far a temperature pushes the hardest negatives away.

    Args:
      embeddings: `[B, D]`, of different examples.
      k: how many neighbours, at most B - 1.

    Returns:
      float32 `[k]`, falling.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range.

    Reference:
      Wang & Liu, "Understanding the Behaviour of Contrastive Loss", CVPR 2021, section 5.2.

    >>> import numpy as np
    >>> np.asarray(topk_similarity_profile(jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), k=2)).round(3)
    array([ 0.   , -0.667], dtype=float32)
    """
    batch = check.arrays(embeddings=(embeddings, "B D"))["B"]
    check.integer("k", k, at_least=1, at_most=batch - 1)
    embeddings, index = jnp.asarray(embeddings), pairwise.index(batch)
    others = dict(rows=index, columns=index, where=lambda row, column: row != column)
    return jnp.mean(pairwise.top_k(embeddings, embeddings, k, similarity="cosine", **others)[0], axis=0)


def _centred(values, kept):
    values = jnp.where(kept, values - values[jnp.argmax(kept)], 0)  # so that rounding makes no difference between equal values
    return jnp.where(kept, values - jnp.sum(values) / jnp.maximum(jnp.sum(kept), 1), 0)


def _log_penalty(negatives, temperature):
    check.arrays(negatives=(negatives, "... M"), temperature=(temperature, "...", "number"))
    check.positive("temperature", temperature, several=True)
    if jnp.ndim(temperature) and jnp.shape(temperature) != jnp.shape(negatives)[:-1]:
        raise ValueError(f"temperature must be a scalar or have shape {list(jnp.shape(negatives)[:-1])}, got {list(jnp.shape(temperature))}")
    negatives = jnp.asarray(negatives)
    negatives = negatives.astype(jnp.promote_types(negatives.dtype, jnp.float32))
    return jax.nn.log_softmax(negatives / jnp.expand_dims(jnp.asarray(temperature, negatives.dtype), -1), axis=-1)
