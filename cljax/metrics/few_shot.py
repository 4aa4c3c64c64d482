"""Few-shot classification: many small tasks, each with a classifier of its own."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int, Integer, Num

from cljax import losses, pairwise
from cljax.core import check, safe_normalize, sinkhorn, vary, varying_axes


def nearest_centroid(support: Float[ArrayLike, "W S D"], queries: Float[ArrayLike, "Q D"]) -> Int[Array, " Q"]:
    """The way whose mean support embedding is nearest to each query, by Euclidean distance; the first where they tie.

    Args:
      support: `[W, S, D]`, the labelled embeddings of each way.
      queries: `[Q, D]` embeddings.

    Returns:
      int32 `[Q]`, a way from 0 to W - 1 each; -1 where a distance is NaN.

    Raises:
      TypeError, ValueError: an argument of another shape or dtype.

    Reference:
      Snell et al., "Prototypical Networks for Few-shot Learning", NIPS 2017, equations 1 and 2.

    >>> nearest_centroid(jnp.array([[[0.0], [2.0]], [[5.0], [7.0]]]), jnp.array([[3.0], [4.0]])).tolist()
    [0, 1]
    """
    check.arrays(support=(support, "W S D"), queries=(queries, "Q D"))
    support = jnp.asarray(support)
    centroids = jnp.mean(support.astype(jnp.promote_types(support.dtype, jnp.float32)), axis=1)
    scores, ways = pairwise.top_k(jnp.asarray(queries), centroids, 1, similarity="sqeuclidean")
    return jnp.where(jnp.isnan(scores), -1, ways)[:, 0]


def opta(
    prototypes: Float[ArrayLike, "W D"],
    queries: Float[ArrayLike, "Q D"],
    *,
    passes: int = 1,
    epsilon: Num[ArrayLike, ""] = 0.05,
    iterations: int = 1000,
    tolerance: Num[ArrayLike, ""] = 1e-4,
) -> Float[Array, "W D"]:
    r"""Prototypes moved onto the queries by optimal transport: a few shots are a biased sample of a class, and all queries together show by how much.

    $$s_i \leftarrow \sum_j \pi_{ij} q_j \Big/ \sum_j \pi_{ij}$$
    with $\pi$ of `core.sinkhorn` for the cost $\lVert s_i - q_j \rVert^2 / \max C$ and equal masses: it takes for granted that each way has as many
    queries as any other, and harms where it hasn't.

    Args:
      prototypes: `[W, D]`.
      queries: `[Q, D]`.
      passes: how often they are moved, each time by a plan of its own; 0 leaves them where they are.
      epsilon: of the transport, whose largest cost is 1.
      iterations, tolerance: of the transport, as in `core.sinkhorn`.

    Returns:
      float32 `[W, D]`; no gradient goes through the plan.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range.

    Reference:
      Poulakakis-Daktylidis & Jamali-Rad, "BECLR: Batch Enhanced Contrastive Few-Shot Learning", ICLR 2024, section 3.3 (OpTA).

    >>> queries = jnp.array([[0.5, 1.0], [0.3, 0.8], [0.4, 1.2], [2.5, 1.0], [2.3, 0.9], [2.6, 1.1]])
    >>> [[f"{x:.2f}" for x in row] for row in opta(jnp.array([[0.0, 0.0], [2.0, 0.0]]), queries)]
    [['0.40', '1.00'], ['2.46', '1.00']]
    """
    check.arrays(prototypes=(prototypes, "W D"), queries=(queries, "Q D"))
    check.integer("passes", passes, at_least=0)
    prototypes, queries = _wide(prototypes), _wide(queries)

    def move(_, prototypes):
        cost = jnp.sum((prototypes[:, None] - queries) ** 2, axis=-1)
        largest = jnp.max(cost)
        plan = sinkhorn(cost / jnp.where(largest == 0, 1, largest), epsilon, iterations=iterations, tolerance=tolerance).plan
        return jnp.matmul(plan, queries, precision=lax.Precision.HIGHEST) / jnp.sum(plan, axis=1, keepdims=True)

    prototypes, queries = vary((prototypes, queries), varying_axes(prototypes, queries))
    return lax.fori_loop(0, passes, move, prototypes.astype(jnp.promote_types(prototypes.dtype, queries.dtype)))


def prototype_logits(
    prototypes: Float[ArrayLike, "W D"], queries: Float[ArrayLike, "Q D"], *, penalty: Num[ArrayLike, ""] = 1.0, iterations: int = 30
) -> Float[Array, "Q W"]:
    r"""The logits of a logistic regression whose training points are the prototypes, one a way.

    Minimises $\sum_i -\log p(i | s_i) + \tfrac{\lambda}{2} \lVert W \rVert^2$, the intercept not penalised, as scikit-learn's with C = 1 / lambda; by
    Newton steps in the space that the prototypes span, so that many episodes are fitted in one compiled program.

    Args:
      prototypes: `[W, D]`, at least two.
      queries: `[Q, D]`.
      penalty: lambda, above 0.
      iterations: the most steps that are made.

    Returns:
      float32 `[Q, W]`.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range.

    >>> logits = prototype_logits(jnp.array([[0.0], [1.0], [4.0]]), jnp.array([[-1.0], [5.0]]))
    >>> logits.argmax(axis=1).tolist()
    [0, 2]
    """
    ways = check.arrays(prototypes=(prototypes, "W D"), queries=(queries, "Q D"))["W"]
    if ways < 2:
        raise ValueError(f"prototypes must be of two ways at least, got {ways}")
    check.positive("penalty", penalty)
    check.integer("iterations", iterations, at_least=1)
    prototypes, queries = _wide(prototypes), _wide(queries)
    middle = jnp.mean(prototypes, axis=0)  # only moves the intercept, and keeps the numbers small
    known, asked = prototypes - middle, queries - middle
    product = partial(jnp.matmul, precision=lax.Precision.HIGHEST)
    # The weights lie in the span of the prototypes: coordinates there are as good as the whole space.
    squares, axes = jnp.linalg.eigh(product(known, known.T))
    kept = squares > 1e-6 * jnp.max(squares)
    lengths = jnp.sqrt(jnp.where(kept, squares, 1))
    points = axes * jnp.where(kept, lengths, 0)
    places = product(product(asked, known.T), axes) * jnp.where(kept, 1 / lengths, 0)

    points, places = (jnp.concatenate([x, jnp.ones((len(x), 1), x.dtype)], axis=1) for x in (points, places))
    ridge = jnp.append(jnp.full(ways, penalty, points.dtype), 1e-5)  # a little on the intercepts, of which only differences matter

    def value(weights):
        return jnp.sum(ridge[:, None] * weights**2) / 2 - jnp.sum(jnp.diagonal(jax.nn.log_softmax(product(points, weights))))

    def improve(state):
        turn, weights, _ = state
        p = jax.nn.softmax(product(points, weights))
        gradient = product(points.T, p - jnp.eye(ways, dtype=p.dtype)) + ridge[:, None] * weights
        curvature = jnp.eye(ways, dtype=p.dtype) * p[:, None] - p[:, :, None] * p[:, None]
        hessian = jnp.einsum("nkl,ni,nj->ikjl", curvature, points, points, precision=lax.Precision.HIGHEST)
        hessian = hessian.reshape(gradient.size, -1) + jnp.diag(jnp.repeat(ridge, ways))
        step = jnp.linalg.solve(hessian, gradient.ravel()).reshape(gradient.shape)
        tried = weights - step * 2.0 ** -jnp.arange(6.0)[:, None, None]
        return turn + 1, tried[jnp.argmin(jax.vmap(value)(tried))], jnp.max(jnp.abs(gradient))

    def more(state):
        turn, _, slope = state
        return (turn < iterations) & ~(slope < 1e-5)

    start = 0, jnp.zeros((ways + 1, ways), points.dtype), jnp.full((), jnp.inf, points.dtype)
    return product(places, lax.while_loop(more, improve, vary(start, varying_axes(prototypes, penalty)))[1])


def opta_classifier(
    support: Float[ArrayLike, "W S D"],
    queries: Float[ArrayLike, "Q D"],
    *,
    passes: int | None = None,
    share: Num[ArrayLike, ""] | None = None,
    epsilon: Num[ArrayLike, ""] = 0.05,
    iterations: int = 1000,
    penalty: Num[ArrayLike, ""] = 1.0,
) -> Int[Array, " Q"]:
    r"""Classifies queries by a logistic regression on prototypes that optimal transport has moved onto them, as `few_shot_accuracy` takes it.

    Each embedding is standardised by its own mean and (unbiased) standard deviation over its dimensions; the prototypes are the means of the shots,
    moved by `opta`, of which $\text{share}$ is kept and the rest taken from where they were; `prototype_logits` tells the way.

    Args:
      support: `[W, S, D]`, the labelled embeddings of each way.
      queries: `[Q, D]`.
      passes: of the transport; 5 for one shot and 1 for several by default, 0 for no transport.
      share: of the moved prototypes, from 0 to 1; by default 1 for one shot and 0.7 for several.
      epsilon, iterations: of the transport.
      penalty: of the logistic regression.

    Returns:
      int32 `[Q]`, a way from 0 to W - 1 each.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range.

    Reference:
      Poulakakis-Daktylidis & Jamali-Rad (BECLR), ICLR 2024, section 3.3, in the steps of its released code.

    >>> support = jnp.array([[[0.0, 1.0, 2.0]], [[2.0, 1.0, 0.5]]])
    >>> opta_classifier(support, jnp.array([[0.1, 0.9, 2.1], [1.9, 1.2, 0.1]])).tolist()
    [0, 1]
    """
    sizes = check.arrays(support=(support, "W S D"), queries=(queries, "Q D"))
    if sizes["D"] < 2:
        raise ValueError(f"support must have two dimensions at least to be standardised over, got {sizes['D']}")
    passes = (5 if sizes["S"] == 1 else 1) if passes is None else passes
    share = (1.0 if sizes["S"] == 1 else 0.7) if share is None else share
    check.number("share", share, at_least=0, at_most=1)
    start, queries = jnp.mean(_standardised(support), axis=1), _standardised(queries)
    moved = opta(start, queries, passes=passes, epsilon=epsilon, iterations=iterations)
    return jnp.argmax(prototype_logits(share * moved + (1 - share) * start, queries, penalty=penalty), axis=1).astype(jnp.int32)


def _standardised(x):
    """Vectors with mean 0 and standard deviation 1 over their own dimensions; a constant one is 0."""
    x = _wide(x)
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    return safe_normalize(centred) * (x.shape[-1] - 1) ** 0.5


def _wide(x):
    return jnp.asarray(x, jnp.promote_types(jnp.result_type(x), jnp.float32))


def few_shot_accuracy(
    embeddings: Float[ArrayLike, "N D"],
    support: Integer[ArrayLike, "E W S"],
    queries: Integer[ArrayLike, "E Q"],
    ways: Integer[ArrayLike, " Q"],
    *,
    classify: Callable = nearest_centroid,
) -> Float[Array, " E"]:
    r"""The accuracy of each of many few-shot tasks, as `samplers.few_shot_episodes` draws them; all run in one compiled program.

    Over E tasks the mean has the 95 % interval $\pm 1.96 \, \text{std} / \sqrt{E}$. The same episodes serve all embeddings that are to be compared.

    Args:
      embeddings: `[N, D]`, of all examples.
      support: `[E, W, S]`, indices of the labelled examples of each way.
      queries: `[E, Q]`, indices of the examples to be classified.
      ways: `[Q]`, the way to which each query belongs.
      classify: `classify(support [W, S, D], queries [Q, D]) -> [Q]`, the way that each query is given; it must trace.

    Returns:
      float32 `[E]`, from 0 to 1; NaN where an embedding of the task is NaN.

    Raises:
      TypeError, ValueError: an argument of another shape or dtype, `classify` is no function or gives another shape.

    Reference:
      Vinyals et al., "Matching Networks for One Shot Learning", NIPS 2016, section 4.1.

    >>> x = jnp.array([[0.0], [1.0], [5.0], [6.0], [2.9]])
    >>> few_shot_accuracy(x, jnp.array([[[0], [2]]]), jnp.array([[1, 4, 3]]), jnp.array([0, 0, 1])).tolist()
    [0.6666666865348816]
    """
    specs = dict(embeddings=(embeddings, "N D"), support=(support, "E W S", "int"), queries=(queries, "E Q", "int"), ways=(ways, "Q", "int"))
    size = check.arrays(**specs)["Q"]
    if not callable(classify):
        raise TypeError(f"classify must be a function of (support, queries), got {type(classify).__name__}")
    embeddings, ways = jnp.asarray(embeddings), jnp.asarray(ways)

    def accuracy(episode):
        known, asked = embeddings[episode[0]], embeddings[episode[1]]
        chosen = classify(known, asked)
        check.arrays(**{"what classify returns": (chosen, f"{size}", "int")})
        finite = ~(jnp.isnan(asked).any() | jnp.isnan(known).any())
        return jnp.where(finite, losses.mean((chosen == ways).astype(jnp.float32)), jnp.nan)

    return jax.lax.map(accuracy, (jnp.asarray(support), jnp.asarray(queries)), batch_size=64)
