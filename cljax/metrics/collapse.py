"""Whether embeddings still fill their space: the signs of a collapse, as numbers that a step or a hook reports."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float

from cljax.core import check, safe_normalize, vary

Where = Bool[ArrayLike, " B"] | None


def effective_rank(embeddings: Float[ArrayLike, "B D"], *, centre: bool = False, where: Where = None) -> Float[Array, ""]:
    r"""Over how many dimensions embeddings are spread, $\exp\left(-\sum_i p_i \log p_i\right)$ of the singular values $p_i = \sigma_i / \sum_j
    \sigma_j$.

    From 1 (one direction) to min(B, D) (all alike). Of the embeddings as they are it is RankMe; of centred ones the mean is no direction of its
    own.

    Args:
      embeddings: `[B, D]`, taken as they are.
      centre: whether the mean of the rows is subtracted first.
      where: `[B]` booleans, the rows that count.

    Returns:
      A float32 scalar; 1 where all singular values are 0, NaN where an embedding is not finite.

    Raises:
      TypeError, ValueError: an argument of another shape or dtype, or no rows.

    Reference:
      Roy & Vetterli, "The Effective Rank: A Measure of Effective Dimensionality", EUSIPCO 2007, definition 1; Garrido et al., "RankMe: Assessing
      the Downstream Performance of Pretrained Self-Supervised Representations by Their Rank", ICML 2023, equation 1 (which adds 1e-7 to each p).

    >>> print(f"{effective_rank(jnp.array([[3.0, 0.0], [0.0, 1.0]])):.4f}")
    1.7548
    """
    x = _rows(embeddings, where)
    if centre:
        kept = jnp.ones(len(x), bool) if where is None else jnp.asarray(where)
        x = jnp.where(kept[:, None], x - jnp.sum(x, axis=0) / jnp.maximum(jnp.sum(kept), 1), 0)
    if len(x) > x.shape[1]:  # the singular values of a tall matrix are those of its triangular factor, which are found sooner
        x = jnp.linalg.qr(x, mode="r")
    values = jnp.linalg.svd(x, compute_uv=False)
    total = jnp.sum(values)
    share = values / jnp.where(total == 0, 1, total)
    return jnp.exp(-jnp.sum(jnp.where(share == 0, 0, share * jnp.log(jnp.where(share == 0, 1, share)))))


def isotropy(embeddings: Float[ArrayLike, "... S D"], *, where: Bool[ArrayLike, "... S"] | None = None) -> Float[Array, ""]:
    r"""How far vectors keep from pointing the same way, $1 - \operatorname{mean}_{i \ne j} \cos(x_i, x_j)$.

    0 where all are parallel, 1 where they are orthogonal on average, $1 + 1/(S - 1)$ at most. With leading axes (texts of S tokens) pairs are made
    within a text alone, and every pair of all texts counts the same: long texts weigh more. $1 - \text{isotropy}$ is the mean pairwise cosine. It
    costs O(S D): no pair is made. Of a corpus that comes in batches it is made of `isotropy_sums`.

    Args:
      embeddings: `[..., S, D]`; they are normalised, a zero vector has cosine 0 with all.
      where: `[..., S]` booleans, the vectors that count.

    Returns:
      A float32 scalar; 1 where there is no pair.

    Raises:
      TypeError, ValueError: an argument of another shape or dtype.

    Reference:
      Su & Collier, "Contrastive Search Is What You Need For Neural Text Generation", TMLR 2023, section 3 (as its code takes the mean over a
      corpus).

    >>> print(f"{isotropy(jnp.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]])):.6f}")
    1.033333
    """
    cosines, pairs = isotropy_sums(embeddings, where=where)
    return 1 - cosines / jnp.maximum(pairs, 1)


def isotropy_sums(
    embeddings: Float[ArrayLike, "... S D"], *, where: Bool[ArrayLike, "... S"] | None = None
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    r"""What `isotropy` divides, the sum of the cosines of all ordered pairs and their number, to be summed over the batches of a corpus.

    Args:
      embeddings, where: as in `isotropy`.

    Returns:
      `(cosines, pairs)`, float32 scalars: of all batches $1 - \sum \text{cosines} / \sum \text{pairs}$.

    Raises:
      TypeError, ValueError: an argument of another shape or dtype.

    >>> cosines, pairs = isotropy_sums(jnp.array([[[1.0, 0.0], [0.6, 0.8]], [[0.0, 1.0], [0.0, 2.0]]]))
    >>> print(f"{cosines:.4f} of {pairs:.0f} pairs")
    3.2000 of 4 pairs
    """
    check.arrays(embeddings=(embeddings, "... S D"), where=(where, "... S?", "bool"))
    shape = jnp.shape(embeddings)[:-1]
    if where is not None and jnp.shape(where) != shape:
        raise ValueError(f"where must have shape {list(shape)} as embeddings, got {list(jnp.shape(where))}")
    kept = jnp.ones(shape, bool) if where is None else jnp.asarray(where)
    x = safe_normalize(jnp.where(kept[..., None], embeddings, 0))
    cosines = jnp.sum(jnp.square(jnp.sum(x, axis=-2)), axis=-1) - jnp.sum(jnp.square(x), axis=(-2, -1))
    count = jnp.sum(kept, axis=-1).astype(x.dtype)
    return jnp.sum(cosines), jnp.sum(count * (count - 1))


def collapse_watch(embeddings: Float[ArrayLike, "B D"], *, where: Where = None, axis_name: str | None = None) -> dict[str, Float[Array, ""]]:
    r"""The three numbers that show a collapse of embeddings while they are trained, named to be returned among a step's or a hook's metrics.

    Args:
      embeddings: `[B, D]`.
      where: `[B]` booleans, the rows that count.
      axis_name: the mapped axis over which the rows are split: all of them are looked at, on each device, with the same result.

    Returns:
      float32 scalars by name: `"std"`, the standard deviation of a dimension of the normalised embeddings, mean over dimensions (0 where all
      coincide, about $1/\sqrt{D}$ where they are spread evenly); `"mean_cosine"` of two different rows (1 where all coincide); `"effective_rank"`,
      as the function of that name, of the embeddings as they are.

    Raises:
      TypeError, ValueError: an argument of another shape or dtype, no rows, an axis that is not mapped.

    Reference:
      Chen & He, "Exploring Simple Siamese Representation Learning", CVPR 2021, section 4.1 (the standard deviation).

    >>> {name: round(float(value), 4) for name, value in collapse_watch(jnp.array([[1.0, 0.0], [0.0, 2.0]])).items()}
    {'std': 0.5, 'mean_cosine': 0.0, 'effective_rank': 1.8899}
    """
    check.axis("axis_name", axis_name)
    x = _rows(embeddings, where)
    kept = jnp.ones(len(x), bool) if where is None else jnp.asarray(where)
    if axis_name is not None:
        x, kept = (lax.all_gather(vary(leaf, {axis_name}), axis_name, tiled=True) for leaf in (x, kept))
    unit = safe_normalize(x)
    count = jnp.maximum(jnp.sum(kept), 1)
    spread = jnp.where(kept[:, None], unit - jnp.sum(unit, axis=0) / count, 0)
    std = jnp.mean(jnp.sqrt(jnp.sum(jnp.square(spread), axis=0) / count))
    found = {"std": std, "mean_cosine": 1 - isotropy(x, where=kept), "effective_rank": effective_rank(x)}
    return found if axis_name is None else lax.pmean(found, axis_name)  # which says that they are the same on all devices


def _rows(embeddings, where):
    """The rows in float32 at least; those that don't count are zero."""
    batch = check.arrays(embeddings=(embeddings, "B D"), where=(where, "B?", "bool"))["B"]
    if batch == 0:
        raise ValueError(f"embeddings must have at least one row, got shape {list(jnp.shape(embeddings))}")
    x = jnp.asarray(embeddings)
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return x if where is None else jnp.where(jnp.asarray(where)[:, None], x, 0)
