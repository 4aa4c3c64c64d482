"""Entropic optimal transport, in compiled code."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int32, Num

from cljax.core import check
from cljax.core.compat import vary, varying_axes


class Transport(NamedTuple):
    """What `sinkhorn` finds.

    Attributes:
      plan: float32 `[R, C]`, how much goes from each row to each column.
      cost: float32 scalar, the sum of plan times cost, without the entropy.
      steps: int32 scalar, how many iterations were made.
    """

    plan: Float[Array, "R C"]
    cost: Float[Array, ""]
    steps: Int32[Array, ""]


def sinkhorn(
    cost: Float[ArrayLike, "R C"],
    epsilon: Num[ArrayLike, ""],
    *,
    row_weights: Float[ArrayLike, " R"] | None = None,
    column_weights: Float[ArrayLike, " C"] | None = None,
    iterations: int = 1000,
    tolerance: Num[ArrayLike, ""] = 1e-4,
) -> Transport:
    r"""The cheapest way to move the rows' masses to the columns, smoothed by an entropy (Sinkhorn's algorithm).

    $$\min_\pi \sum_{ij} \pi_{ij} C_{ij} + \epsilon \sum_{ij} \pi_{ij} (\log \pi_{ij} - 1), \qquad \pi 1 = a, \quad \pi^\top 1 = b$$
    An iteration scales the rows to their masses and then the columns to theirs, so that the columns always have them exactly and the rows where it
    has converged. It works on logarithms: no epsilon overflows. It runs under jit and vmap; nothing has a gradient.

    Args:
      cost: `[R, C]`; computed in float32 at least.
      epsilon: above 0, in units of the cost: small makes the plan sharp, and slow to converge; large makes it the product of the masses.
      row_weights: a, `[R]`, not negative; 1 / R each by default. A row (or column) of mass 0 gets nothing.
      column_weights: b, `[C]`, of the same sum; 1 / C each by default.
      iterations: the most that are made.
      tolerance: it ends once the row potentials, in units of the cost, have changed by less than this in all; with 0 all iterations are made.

    Returns:
      `Transport`; NaN where a cost is NaN.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range.

    Reference: Cuturi, "Sinkhorn Distances: Lightspeed Computation of Optimal Transport", NIPS 2013; on logarithms: Peyré & Cuturi, "Computational
    Optimal Transport", 2019, section 4.4.

    >>> found = sinkhorn(jnp.array([[0.0, 1.0, 1.0], [1.0, 0.0, 0.2]]), 0.02)
    >>> [[f"{mass:.2f}" for mass in row] for row in found.plan]
    [['0.33', '0.00', '0.17'], ['0.00', '0.33', '0.17']]
    """
    sizes = check.arrays(cost=(cost, "R C"), row_weights=(row_weights, "R?"), column_weights=(column_weights, "C?"), epsilon=(epsilon, "", "number"))
    if not sizes["R"] or not sizes["C"]:
        raise ValueError(f"cost must have a row and a column at least, got shape [{sizes['R']}, {sizes['C']}]")
    check.positive("epsilon", epsilon)
    check.integer("iterations", iterations, at_least=1)
    check.number("tolerance", tolerance, at_least=0)
    dtype = jnp.promote_types(jnp.result_type(cost), jnp.float32)
    rows, columns = (
        jnp.full(sizes[axis], 1 / sizes[axis], dtype) if given is None else jnp.asarray(given, dtype)
        for axis, given in (("R", row_weights), ("C", column_weights))
    )
    epsilon, tolerance = jnp.asarray(epsilon, dtype), jnp.asarray(tolerance, dtype)
    return _sinkhorn(*lax.stop_gradient((jnp.asarray(cost, dtype), rows, columns, epsilon, tolerance)), iterations)


@partial(jax.jit, static_argnums=5)
def _sinkhorn(cost, rows, columns, epsilon, tolerance, iterations):
    log_rows, log_columns, scores = jnp.log(rows), jnp.log(columns), -cost / epsilon

    def improve(state):
        step, old, g, _ = state
        f = _scaled(log_rows, scores + g, axis=1)
        g = _scaled(log_columns, scores + f[:, None], axis=0)
        change = epsilon * jnp.sum(jnp.where(rows > 0, jnp.abs(f - old), 0))
        return step + 1, f, g, change

    def more(state):
        step, _, _, change = state
        return (step < iterations) & ~(change < tolerance)

    start = jnp.int32(0), jnp.zeros_like(rows), jnp.zeros_like(columns), jnp.full((), jnp.inf, cost.dtype)
    step, f, g, _ = lax.while_loop(more, improve, vary(start, varying_axes(cost, rows, columns, epsilon, tolerance)))
    plan = jnp.exp(scores + f[:, None] + g)
    return Transport(plan, jnp.sum(plan * cost), step)


def _scaled(log_mass, scores, axis):
    """The potentials (over epsilon) that give the sums along `axis` their masses; -inf where there is no mass."""
    largest = jnp.max(scores, axis=axis, keepdims=True)
    total = jnp.log(jnp.sum(jnp.exp(scores - largest), axis=axis)) + jnp.squeeze(largest, axis)
    return jnp.where(log_mass == -jnp.inf, -jnp.inf, log_mass - total)
