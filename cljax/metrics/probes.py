"""Linear classifiers on frozen embeddings."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, ArrayLike, Float, Integer, Num

from cljax.core import check

_SMALL = 2**30  # products of fewer multiplications: the threads of BLAS would wait for each other for longer than they compute


def linear_probe(
    embeddings: Float[ArrayLike, "B D"],
    labels: Integer[ArrayLike, " B"],
    reference: Float[ArrayLike, "N D"],
    reference_labels: Integer[ArrayLike, " N"],
    *,
    standardise: bool = False,
    penalty: float = 1.0,
    max_iter: int = 1000,
    measure: Literal["accuracy", "macro_f1"] = "accuracy",
) -> float:
    r"""The accuracy, or the macro F1, of a logistic regression that was fitted on the reference embeddings.

    Minimises $\sum_n -\log p(y_n | x_n) + \tfrac{\lambda}{2} \lVert W \rVert^2$ with scikit-learn (L-BFGS, softmax over the classes, intercept not
    penalised). It runs outside jit; `ridge_probe` traces.

    Args:
      embeddings: `[B, D]`, on which the accuracy is measured, taken as they are.
      labels: `[B]` integers.
      reference: `[N, D]`, on which the classifier is fitted.
      reference_labels: `[N]` integers, of two classes at least.
      standardise: whether each dimension is first brought to mean 0 and variance 1 over the reference.
      penalty: lambda, above 0; scikit-learn's C is its inverse.
      max_iter: the most iterations of the solver.
      measure: "accuracy", or "macro_f1", the mean over the classes that occur of $2 \, \text{tp} / (2 \, \text{tp} + \text{fp} + \text{fn})$: a rare
        class counts as much as a frequent one.

    Returns:
      A Python float from 0 to 1.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range; a traced argument; values that are not finite; one class only.

    >>> import numpy as np
    >>> points, labels = np.array([[0.0], [1.0], [4.0], [5.0]]), np.array([0, 0, 1, 1])
    >>> linear_probe(np.array([[1.5], [3.5], [9.0]]), np.array([0, 1, 0]), points, labels)
    0.6666666666666666
    """
    _check(embeddings, labels, reference, reference_labels)
    check.positive("penalty", penalty)
    check.integer("max_iter", max_iter, at_least=1)
    check.choice("measure", measure, ("accuracy", "macro_f1"))
    given = dict(embeddings=embeddings, labels=labels, reference=reference, reference_labels=reference_labels)
    for name, value in given.items():
        if isinstance(value, jax.core.Tracer):
            raise TypeError(f"{name} is traced, and linear_probe runs scikit-learn outside jit; ridge_probe works under jit")
        if not np.isfinite(np.asarray(value, np.float64)).all():
            raise ValueError(f"{name} must be finite, got NaN or inf")
    embeddings, labels, reference, reference_labels = (np.asarray(x, np.float64 if np.ndim(x) == 2 else None) for x in given.values())
    classes = len(np.unique(reference_labels))
    if classes < 2:
        raise ValueError(f"reference_labels must hold at least two classes, got {np.unique(reference_labels).tolist()}")
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, f1_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    steps = [StandardScaler()] * standardise + [LogisticRegression(C=1 / penalty, max_iter=max_iter)]
    with threadpool_limits(1 if reference.size * classes < _SMALL else None, user_api="blas"):
        predicted = make_pipeline(*steps).fit(reference, reference_labels).predict(embeddings)
    return float(accuracy_score(labels, predicted) if measure == "accuracy" else f1_score(labels, predicted, average="macro"))


def ridge_probe(
    embeddings: Float[ArrayLike, "B D"],
    labels: Integer[ArrayLike, " B"],
    reference: Float[ArrayLike, "N D"],
    reference_labels: Integer[ArrayLike, " N"],
    *,
    penalty: Num[ArrayLike, ""] = 1e-3,
    num_classes: int | None = None,
) -> Float[Array, ""]:
    r"""The accuracy of a ridge regression on one-hot labels, in closed form: it works under jit and vmap, labels traced too.

    $W = \arg\min \lVert X W + b - Y \rVert^2 + \lambda \lVert W \rVert^2$ (the intercept b is not penalised); the class is the largest entry of $x W
    + b$, the lowest label where they tie. Solved by a QR of $[X; \sqrt{\lambda} I]$: the normal equations would square the condition number, too much
    for float32 at a small penalty.

    Args:
      embeddings: `[B, D]`, on which the accuracy is measured, taken as they are.
      labels: `[B]` integers.
      reference: `[N, D]`, on which W is fitted.
      reference_labels: `[N]` integers, any values.
      penalty: lambda, above 0; may be traced.
      num_classes: at least the number of different reference labels: then scores of that many classes are made. None counts the labels where they are
        concrete; under jit it makes room for N classes, which costs a product `[B, D] x [D, N]`.

    Returns:
      A float32 scalar from 0 to 1; NaN where embeddings are NaN.

    Raises:
      TypeError, ValueError: an argument of another shape, dtype or range; `num_classes` smaller than the number of labels where they are concrete.

    >>> import jax
    >>> points, labels = jnp.array([[0.0], [1.0], [4.0], [5.0]]), jnp.array([3, 3, 8, 8])
    >>> print(f"{jax.jit(ridge_probe)(jnp.array([[1.5], [3.5], [9.0]]), jnp.array([3, 8, 3]), points, labels):.4f}")
    0.6667
    """
    total = _check(embeddings, labels, reference, reference_labels)["N"]
    check.positive("penalty", penalty)
    concrete = None if isinstance(reference_labels, jax.core.Tracer) else len(np.unique(np.asarray(reference_labels)))
    if num_classes is not None:
        check.integer("num_classes", num_classes, at_least=1 if concrete is None else concrete)
    classes = num_classes or concrete or total
    dtype = jnp.promote_types(jnp.result_type(embeddings, reference), jnp.float32)
    x, test = jnp.asarray(reference, dtype), jnp.asarray(embeddings, dtype)
    centre = jnp.mean(x, axis=0)
    width = x.shape[1]
    ridge = jnp.sqrt(jnp.asarray(penalty, dtype)) * jnp.eye(width, dtype=dtype)
    q, r = jnp.linalg.qr(jnp.concatenate([x - centre, ridge]))

    # Sums over classes need no one-hot labels: the labels are numbered in sorted order, and with traced labels there is room for as many as rows.
    order = jnp.argsort(jnp.asarray(reference_labels))
    known = jnp.asarray(reference_labels)[order]
    number = jnp.cumsum(jnp.concatenate([jnp.zeros(1, jnp.int32), (known[1:] != known[:-1]).astype(jnp.int32)]))
    size = jax.ops.segment_sum(jnp.ones(total, dtype), number, classes)
    projected = jax.ops.segment_sum(q[:total][order], number, classes)  # Y^T Q: the columns of Q are centred as those of X
    weights = solve_triangular(r, projected.T)
    scores = jnp.matmul(test - centre, weights, precision=lax.Precision.HIGHEST) + size / total
    chosen = jnp.argmax(jnp.where(size > 0, scores, -jnp.inf), axis=1)
    predicted = jax.ops.segment_max(known, number, classes)[chosen]
    finite = jnp.isfinite(scores[:, 0])  # a NaN in the reference is in all scores, one in an example in all of its own
    return jnp.mean(jnp.where(finite, predicted == jnp.asarray(labels), jnp.nan))


def _check(embeddings, labels, reference, reference_labels):
    return check.arrays(
        embeddings=(embeddings, "B D"), labels=(labels, "B", "int"), reference=(reference, "N D"), reference_labels=(reference_labels, "N", "int")
    )
