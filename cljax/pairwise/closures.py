"""A user's function of a block as a pure function of arrays: what it closes over becomes an argument."""

import jax
import jax.extend
import jax.numpy as jnp

from cljax.pairwise.terms import LogSumExp, reductions


def hoist(terms, mirrored, *example):
    """Turns `terms` into a function of all that it depends on.

    Args:
      terms: the `TermFn`.
      mirrored: whether a block stands for its mirror image too: `terms` is then asked a second time, with row and column exchanged.
      *example: a block's scores, rows, columns and params.

    Returns:
      function `(hoisted, scores, row, column, params) -> [(value, where or None)]`, the reductions of the block and then those of its mirror image;
      the closed-over values; `[(kind, axis)]` of the reductions; the structure of their tree; the pairs of positions in that list where one value
      is reduced to log-sum-exps along both axes; the traced operations.
    """
    found = []

    def flat(scores, row, column, params):
        leaves, structure = reductions(terms(scores, row, column, params), scores.shape)
        found[:] = [(type(leaf), leaf.axis) for leaf in leaves], structure, twins(leaves)
        if mirrored:
            leaves = leaves + reductions(terms(scores, column, row, params), scores.shape)[0]
        return [(jnp.asarray(leaf.value), None if leaf.where is None else jnp.asarray(leaf.where)) for leaf in leaves]

    closed, shapes = jax.make_jaxpr(flat, return_shape=True)(*example)
    pairs = jax.tree.structure(shapes)

    def call(hoisted, *arguments):
        closed_again = jax.extend.core.ClosedJaxpr(closed.jaxpr, hoisted)
        return jax.tree.unflatten(pairs, jax.extend.core.jaxpr_as_fun(closed_again)(*jax.tree.leaves(arguments)))

    return call, list(closed.consts), *found, closed.jaxpr


def twins(leaves):
    """The pairs of positions in a list of reductions where one value is reduced to log-sum-exps along both axes."""
    return [(p, q) for q, b in enumerate(leaves) for p, a in enumerate(leaves[:q]) if _are_twins(a, b)]


def _are_twins(a, b):
    return isinstance(a, LogSumExp) and isinstance(b, LogSumExp) and a.axis != b.axis and a.value is b.value and a.where is b.where


def partition(tree):
    """The float leaves, the other leaves, and the function that joins two such lists to a tree again."""
    leaves, structure = jax.tree.flatten(tree)
    kinds = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]

    def join(floats, others):
        sources = {True: iter(floats), False: iter(others)}
        return jax.tree.unflatten(structure, [next(sources[bool(kind)]) for kind in kinds])

    return [x for x, kind in zip(leaves, kinds, strict=True) if kind], [x for x, kind in zip(leaves, kinds, strict=True) if not kind], join
