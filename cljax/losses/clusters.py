"""Losses of nodes of a graph and of their soft clusters."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Integer

from cljax import pairwise
from cljax.core import check, safe_normalize, vary
from cljax.losses import _pairs
from cljax.losses._pairs import Collective, Implementation, Scalar, Where
from cljax.pairwise import LogSumExp

Nodes = Integer[ArrayLike, " E"]
Weights = Float[ArrayLike, " E"]


def meta_node_contrast(
    embeddings: Float[ArrayLike, "B D"],
    labels: Integer[ArrayLike, " B"],
    rows: Nodes,
    columns: Nodes,
    weights: Weights,
    *,
    temperature: Scalar,
    num_clusters: int,
    epsilon: Scalar = 1e-10,
    where: Where = None,
    axis_name: str | None = None,
) -> Float[Array, " B"]:
    r"""How far each node is from its neighbours, and how near the K meta-nodes (sums of a cluster's nodes) are to each other: O(E + K^2).

    $$-\log\Big(\sum_j S_{ij} e^{s_{ij}/\tau} + \epsilon\Big) + \frac{1}{K'} \sum_k \log \sum_l e^{t_{kl}/\tau}$$
    with $s$ the cosines of nodes, $t$ those of meta-nodes $C_k = \sum_{i: y_i = k} z_i$, and $s_{ii} = t_{kk} = 0$. The second term is the same for
    all nodes; of its K clusters the K' that are not empty count, in rows and columns. With one cluster it is 0: positives alone.

    It stands for the negatives of `graph_info_nce` but does not estimate them: it cannot part nodes inside of a wrong cluster.

    Args:
      embeddings: `[B, D]`, a node each.
      labels: integers `[B]` from 0 to K - 1, the nodes' clusters.
      rows, columns, weights: `[E]`, the entries of S, such as `samplers.influence` gives: node `columns[e]` is a neighbour of node `rows[e]`. An
        entry of weight 0 (padding) adds nothing.
      temperature: divides the cosine; above 0 (the paper multiplies by its inverse).
      num_clusters: K.
      epsilon: added to the sum of a node, for nodes without neighbours; not below 0.
      where: `[B]` booleans, the valid nodes: others are in no cluster and have the value 0; entries of S that name them must have weight 0.
      axis_name: the mapped axis over which the nodes are split; rows and columns are then numbers of all nodes, and each entry stands on one device,
        whichever.

    Returns:
      float32 `[B]`; `losses.mean` of it is the paper's loss.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range.

    Reference: "Efficient block contrastive learning via parameter-free meta-node approximation", 2022 (arXiv 2209.14067). There an empty cluster is a
    zero vector of the sum, or NaN.
    """
    batch = check.arrays(embeddings=(embeddings, "B D"), labels=(labels, "B", "int"), where=(where, "B?", "bool"))["B"]
    check.integer("num_clusters", num_clusters, at_least=1)
    scale = _scale(temperature, epsilon)
    unit = safe_normalize(_pairs.drop(where, embeddings))
    attraction = _log_attraction(unit, rows, columns, weights, scale, axis_name)
    valid = jnp.ones(batch) if where is None else jnp.asarray(where, jnp.float32)

    def summed(x):
        total = jax.ops.segment_sum(x, jnp.asarray(labels), num_clusters)
        return total if axis_name is None else lax.psum(vary(total, {axis_name}), axis_name)

    meta, full = safe_normalize(summed(_pairs.float_array(_pairs.drop(where, embeddings)))), summed(valid) > 0
    cosines = jnp.where(jnp.eye(num_clusters, dtype=bool), 0, jnp.matmul(meta, meta.T, precision=lax.Precision.HIGHEST))
    repulsion = _pairs.log_sum_exp(scale * cosines, full)
    repulsion = jnp.sum(jnp.where(full, repulsion, 0)) / jnp.maximum(jnp.sum(full), 1)
    return _pairs.drop(where, repulsion - jnp.logaddexp(attraction, jnp.log(epsilon)))


def graph_info_nce(
    embeddings: Float[ArrayLike, "B D"],
    rows: Nodes,
    columns: Nodes,
    weights: Weights,
    *,
    temperature: Scalar,
    epsilon: Scalar = 1e-8,
    where: Where = None,
    axis_name: str | None = None,
    collective: Collective = "gather",
    block_size: int | None = None,
    implementation: Implementation = "auto",
) -> Float[Array, " B"]:
    r"""How badly each node picks its weighted neighbours among all nodes: the full pairwise loss, O(N^2).

    $$-\log\Big(\frac{\sum_j S_{ij} e^{s_{ij}/\tau}}{\sum_j e^{s_{ij}/\tau}} + \epsilon\Big), \qquad s_{ii} = 0$$ with $s$ the cosines. The weights of
    a row of S need not sum to 1, so the value may be negative.

    Args:
      embeddings, rows, columns, weights, temperature, where: as in `meta_node_contrast`.
      epsilon: added to the share of a node; not below 0.
      axis_name, collective, block_size, implementation: as in `pairwise.reduce`; entries of S as in `meta_node_contrast`.

    Returns:
      float32 `[B]`.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range.

    Reference: Hu et al., "Graph-MLP: Node Classification without Message Passing in Graph", 2021; the full loss SCGC* of arXiv 2209.14067.
    """
    batch = check.arrays(embeddings=(embeddings, "B D"), where=(where, "B?", "bool"))["B"]
    scale = _scale(temperature, epsilon)
    embeddings = _pairs.drop(where, embeddings)
    attraction = _log_attraction(safe_normalize(embeddings), rows, columns, weights, scale, axis_name)

    def terms(scores, row, column, scale):
        return LogSumExp(jnp.where(row["index"] == column["index"], 0, scale * scores), column.get("where"))

    how = dict(similarity="cosine", axis_name=axis_name, collective=collective, block_size=block_size, implementation=implementation)
    nodes = _pairs.present(index=pairwise.index(batch, axis_name), where=where)
    every = pairwise.reduce(embeddings, None, terms, rows=nodes, params=scale, **how)
    return _pairs.drop(where, -jnp.logaddexp(attraction - _pairs.drop(where, every), jnp.log(epsilon)))


def student_t_assign(embeddings: Float[ArrayLike, "B D"], centres: Float[ArrayLike, "K D"]) -> Float[Array, "B K"]:
    r"""Soft clusters by a Student-t kernel of one degree of freedom, $q_{ik} \propto (1 + \lVert z_i - m_k \rVert^2)^{-1}$.

    Args:
      embeddings: `[B, D]`.
      centres: `[K, D]`, often learned.

    Returns:
      float32 `[B, K]`; rows sum to 1.

    Raises:
      TypeError, ValueError: an argument of another kind or shape.

    Reference: Xie et al., "Unsupervised Deep Embedding for Clustering Analysis" (DEC), ICML 2016, equation 1.

    >>> print(student_t_assign(jnp.array([[1.0, 0.0]]), jnp.array([[1.0, 0.0], [-1.0, 0.5]])).round(2))
    [[0.84 0.16]]
    """
    check.arrays(embeddings=(embeddings, "B D"), centres=(centres, "K D"))
    z, m = _pairs.float_array(embeddings), _pairs.float_array(centres)
    middle = lax.stop_gradient(jnp.mean(m, axis=0))  # squared distances by a product are exact near the origin alone
    z, m = z - middle, m - middle
    products = jnp.matmul(z, m.T, precision=lax.Precision.HIGHEST)
    distances = jnp.maximum(jnp.sum(z * z, axis=1)[:, None] - 2 * products + jnp.sum(m * m, axis=1), 0)
    kernel = 1 / (1 + distances)
    return kernel / jnp.sum(kernel, axis=1, keepdims=True)


def target_distribution(assignment: Float[ArrayLike, "B K"], *, where: Where = None, axis_name: str | None = None) -> Float[Array, "B K"]:
    r"""Sharper soft clusters of evened sizes, $p_{ik} \propto q_{ik}^2 / \sum_j q_{jk}$: what soft clusters are trained towards; no gradient.

    Args:
      assignment: `[B, K]` soft clusters q, not below 0.
      where: `[B]` booleans, the valid rows; others are 0.
      axis_name: the mapped axis over which the rows are split.

    Returns:
      float32 `[B, K]`; rows sum to 1.

    Raises:
      TypeError, ValueError: an argument of another kind or shape.

    Reference: Xie et al., "Unsupervised Deep Embedding for Clustering Analysis" (DEC), ICML 2016, equation 3.

    >>> [f"{share:.3f}" for share in target_distribution(jnp.array([[0.8, 0.2], [0.4, 0.6]]))[0]]
    ['0.914', '0.086']
    """
    check.arrays(assignment=(assignment, "B K"), where=(where, "B?", "bool"))
    check.axis("axis_name", axis_name)
    q = lax.stop_gradient(_pairs.float_array(_pairs.drop(where, assignment)))
    size = _pairs.total(q, axis_name, axis=0)
    sharp = q * q / jnp.where(size == 0, 1, size)
    total = jnp.sum(sharp, axis=1, keepdims=True)
    return sharp / jnp.where(total == 0, 1, total)


def dec_kl(assignment: Float[ArrayLike, "B K"], target: Float[ArrayLike, "B K"]) -> Float[Array, " B"]:
    r"""The divergence of soft clusters from their target, $\sum_k p_{ik} \log(p_{ik} / q_{ik})$; no gradient goes to the target.

    Args:
      assignment: `[B, K]` soft clusters q.
      target: `[B, K]` soft clusters p, of which those that are 0 add nothing.

    Returns:
      float32 `[B]`.

    Raises:
      TypeError, ValueError: an argument of another kind or shape.

    Reference: Xie et al., "Unsupervised Deep Embedding for Clustering Analysis" (DEC), ICML 2016, equation 2.
    """
    check.arrays(assignment=(assignment, "B K"), target=(target, "B K"))
    q, p = _pairs.float_array(assignment), lax.stop_gradient(_pairs.float_array(target))
    none = p == 0
    return jnp.sum(jnp.where(none, 0, p * (jnp.log(jnp.where(none, 1, p)) - jnp.log(jnp.where(none, 1, q)))), axis=1)


def _scale(temperature, epsilon):
    check.arrays(temperature=(temperature, "", "number"))
    check.number("epsilon", epsilon, at_least=0)
    return _pairs.scale(temperature, 1)[0]


def _log_attraction(unit, rows, columns, weights, scale, axis_name):
    """The logarithm of the weighted sum over each node's neighbours of exp(cosine / temperature), `[B]`; a node's cosine with itself is 0."""
    check.arrays(rows=(rows, "E", "int"), columns=(columns, "E", "int"), weights=(weights, "E"))
    check.axis("axis_name", axis_name)
    rows, columns, weights = jnp.asarray(rows), jnp.asarray(columns), _pairs.float_array(weights)
    every = unit if axis_name is None else lax.all_gather(vary(unit, {axis_name}), axis_name, tiled=True)
    logits = scale * jnp.where(rows == columns, 0, jnp.sum(every[rows] * every[columns], axis=1))
    kept, least = weights != 0, jnp.finfo(logits.dtype).min
    highest = lax.stop_gradient(jax.ops.segment_max(jnp.where(kept, logits, least), rows, len(every)))
    if axis_name is not None:
        highest = lax.pmax(vary(highest, {axis_name}), axis_name)
    highest = jnp.where(highest > least, highest, 0)
    total = jax.ops.segment_sum(jnp.where(kept, weights * jnp.exp(jnp.where(kept, logits - highest[rows], 0)), 0), rows, len(every))
    if axis_name is not None:
        own = pairwise.index(len(unit), axis_name)
        total, highest = lax.psum(vary(total, {axis_name}), axis_name)[own], highest[own]
    return jnp.where(total == 0, least, jnp.log(jnp.where(total == 0, 1, total)) + highest)
