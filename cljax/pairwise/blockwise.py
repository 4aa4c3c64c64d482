"""Reductions block by block: the score matrix is never held, and is computed a second time for the gradient.

Two nested scans visit the blocks, keys outside and queries inside. Where the block size does not divide an axis its last block starts early enough
to be whole and masks what was seen before: nothing is padded, and `terms` sees real rows alone.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.extend
import jax.numpy as jnp
from jax import lax

from cljax.core import vary, varying_axes
from cljax.pairwise import blocks
from cljax.pairwise import similarity as sim
from cljax.pairwise.dense import maximum, spread
from cljax.pairwise.terms import Max, Sum, reductions


class _Inputs(NamedTuple):
    queries: Any
    keys: Any
    rows: Any
    columns: Any
    params: Any
    hoisted: Any  # the traced values that `terms` closes over


class _Plan(NamedTuple):
    """What both passes know before they start."""

    terms: Callable  # (hoisted, scores, row, column, params) -> [(value, where)] in the order of `layout`
    layout: list  # [(kind of reduction, axis)]
    similarity: str
    sizes: tuple[int, int]  # of a block
    dtype: Any
    axes: frozenset  # mesh axes over which the blocks vary


def reduce(queries, keys, terms, rows, columns, params, similarity, centre, block_size):
    """As `dense.reduce`, in blocks of at most `block_size` rows and columns."""
    sizes = min(block_size, len(queries)), min(block_size, len(keys))
    dtype = sim.accumulator(queries, keys)
    axes = varying_axes(queries, keys, rows, columns, params)
    block = vary(jnp.zeros(sizes, dtype), axes)
    terms, hoisted, layout, structure = _hoist(terms, block, blocks.row(rows, 0, sizes[0]), blocks.column(columns, 0, sizes[1]), params)
    # What `terms` closes over keeps its type: its derivative is summed over the mesh where the closure itself mixed it in.
    axes |= varying_axes(hoisted)
    plan = _Plan(terms, layout, similarity, sizes, dtype, axes)
    *inputs, centre = vary((queries, keys, rows, columns, params, centre), axes)
    floats, others, join = _partition(_Inputs(*inputs, hoisted))

    @jax.custom_vjp
    def run(floats, others, centre):
        return _forward(plan, join(floats, others), centre)

    def forward(*arguments):
        results = run(*arguments)  # by this rule again: second derivatives then go through it too
        return results, (arguments, results)

    def backward(saved, cotangents):
        (floats, others, centre), results = saved
        return _backward(plan, join(floats, others), centre, results, cotangents), None, jax.tree.map(jnp.zeros_like, centre)

    run.defvjp(forward, backward)
    return run(floats, others, centre), structure, layout


def _forward(plan, inputs, centre):
    queries, keys, rows, columns, params, hoisted = inputs
    lengths = len(queries), len(keys)

    def over_keys(seen, j):
        column_at, new_columns = blocks.span(j, plan.sizes[1], lengths[1])
        column = blocks.column(columns, column_at, plan.sizes[1])
        right = sim.right(plan.similarity, blocks.cut(keys, column_at, plan.sizes[1]), centre)

        def over_queries(seen, i):
            row_at, new_rows = blocks.span(i, plan.sizes[0], lengths[0])
            left = sim.left(plan.similarity, blocks.cut(queries, row_at, plan.sizes[0]), centre)
            scores = sim.finish(plan.similarity, sim.product(left, right))
            found = plan.terms(hoisted, scores, blocks.row(rows, row_at, plan.sizes[0]), column, params)
            kept = new_rows[:, None] & new_columns
            at = column_at, row_at  # where an axis's results stand, and `at[1 - axis]` where its entries do
            for n, ((kind, axis), term) in enumerate(zip(plan.layout, found, strict=True)):
                value, where = spread(term, plan.sizes, plan.dtype)
                part = blocks.cut(seen[n], at[axis], plan.sizes[1 - axis])
                seen[n] = blocks.put(seen[n], at[axis], _merge(kind, part, value, where & kept, axis, at[1 - axis]))
            return seen, None

        return lax.scan(over_queries, seen, blocks.numbers(lengths[0], plan.sizes[0]))

    start = [vary(_start(kind, lengths[1 - axis], plan.dtype), plan.axes) for kind, axis in plan.layout]
    seen, _ = lax.scan(over_keys, start, blocks.numbers(lengths[1], plan.sizes[1]))
    return [_finish(kind, part) for (kind, _), part in zip(plan.layout, seen, strict=True)]


def _backward(plan, inputs, centre, results, cotangents):
    queries, keys, rows, columns, params, hoisted = inputs
    lengths = len(queries), len(keys)
    row_floats, row_others, join_row = _partition(rows)
    column_floats, column_others, join_column = _partition(columns)
    shared, shared_others, join_shared = _partition((params, hoisted))

    def over_keys(gradients, j):
        column_at, new_columns = blocks.span(j, plan.sizes[1], lengths[1])
        column, fixed_column = blocks.column((column_floats, column_others), column_at, plan.sizes[1])
        right = sim.right(plan.similarity, blocks.cut(keys, column_at, plan.sizes[1]), centre)

        def over_queries(carry, i):
            gradients, right_gradient = carry
            row_at, new_rows = blocks.span(i, plan.sizes[0], lengths[0])
            row, fixed_row = blocks.row((row_floats, row_others), row_at, plan.sizes[0])
            left = sim.left(plan.similarity, blocks.cut(queries, row_at, plan.sizes[0]), centre)
            kept = new_rows[:, None] & new_columns
            at = column_at, row_at

            def values(products, row, column, shared):
                scores = sim.finish(plan.similarity, products)
                params, hoisted = join_shared(shared, shared_others)
                found = plan.terms(hoisted, scores, join_row(row, fixed_row), join_column(column, fixed_column), params)
                pairs = [spread(term, plan.sizes, plan.dtype) for term in found]
                return vary([value for value, _ in pairs], plan.axes), [where for _, where in pairs]

            found, pull, masks = jax.vjp(values, sim.product(left, right), row, column, shared, has_aux=True)
            pushed = []
            for (kind, axis), value, where, result, cotangent in zip(plan.layout, found, masks, results, cotangents, strict=True):
                result, cotangent = blocks.cut((result, cotangent[0] if kind is Max else cotangent), at[axis], plan.sizes[1 - axis])
                pushed.append(_share(kind, value, where & kept, result, axis, at[1 - axis]) * jnp.expand_dims(cotangent, axis))
            scores_part, row_part, column_part, shared_part = pull(pushed)
            # The keys' gradient is summed transposed: XLA:CPU multiplies `left.T @ part` faster than `part.T @ left`.
            right_gradient = right_gradient + sim.product(left, scores_part, (0, 0))
            left_sum, right_sum, row_sum, column_sum, shared_sum = gradients
            gradients = (
                blocks.add(left_sum, row_at, sim.product(scores_part, right, (1, 0))),
                right_sum,
                [blocks.add(total, row_at, jnp.squeeze(part, 1)) for total, part in zip(row_sum, row_part, strict=True)],
                [blocks.add(total, column_at, jnp.squeeze(part, 0)) for total, part in zip(column_sum, column_part, strict=True)],
                [total + part for total, part in zip(shared_sum, shared_part, strict=True)],
            )
            return (gradients, right_gradient), None

        nothing = vary(jnp.zeros((right.shape[1], plan.sizes[1]), plan.dtype), plan.axes)
        (gradients, right_gradient), _ = lax.scan(over_queries, (gradients, nothing), blocks.numbers(lengths[0], plan.sizes[0]))
        left_sum, right_sum, *rest = gradients
        return (left_sum, blocks.add(right_sum, column_at, right_gradient.T), *rest), None

    wide = jax.eval_shape(lambda x: sim.left(plan.similarity, x, centre), queries).shape[1]
    sums = [jnp.zeros((length, wide), plan.dtype) for length in lengths]
    start = (*vary(sums, plan.axes), *jax.tree.map(_zeros_like, (row_floats, column_floats, shared)))
    (left_sum, right_sum, *rest), _ = lax.scan(over_keys, start, blocks.numbers(lengths[1], plan.sizes[1]))
    left, pull_left = jax.vjp(lambda x: sim.left(plan.similarity, x, centre), queries)
    right, pull_right = jax.vjp(lambda x: sim.right(plan.similarity, x, centre), keys)
    return [*pull_left(left_sum.astype(left.dtype)), *pull_right(right_sum.astype(right.dtype)), *jax.tree.leaves(rest)]


# One reduction, from its first block to its result.


def _start(kind, size, dtype):
    if kind is Sum:
        return jnp.zeros(size, dtype)
    return jnp.full(size, -jnp.inf, dtype), jnp.zeros(size, jnp.int32 if kind is Max else dtype)


def _merge(kind, seen, value, where, axis, first):
    """Joins a block's entries to what was seen of the same rows (axis 1) or columns (axis 0); `first` is the index of the block's first entry."""
    if kind is Sum:
        return seen + jnp.sum(jnp.where(where, value, 0), axis=axis)
    value = jnp.where(where, value, -jnp.inf)
    highest, second = seen
    if kind is Max:
        found, index = maximum(value, axis)
        better = (found > highest) | (jnp.isnan(found) & ~jnp.isnan(highest))
        return jnp.where(better, found, highest), jnp.where(better, index + first, second)
    top = jnp.maximum(highest, jnp.max(value, axis=axis))
    before = jnp.where(highest == top, second, second * jnp.exp(highest - top))
    return top, before + jnp.sum(jnp.exp(value - jnp.expand_dims(_finite(top), axis)), axis=axis)


def _finish(kind, seen):
    if kind is Sum or kind is Max:
        return seen
    highest, total = seen
    return jnp.where(total == 0, -jnp.inf, jnp.log(total) + _finite(highest))


def _share(kind, value, where, result, axis, first):
    """The derivative of a result with respect to the entries of a block."""
    if kind is Sum:
        return where.astype(value.dtype)
    if kind is Max:
        index = first + lax.broadcasted_iota(jnp.int32, value.shape, axis)
        return jnp.where(where & (index == jnp.expand_dims(result[1], axis)), 1, 0).astype(value.dtype)
    total = jnp.expand_dims(jnp.where(result == -jnp.inf, 0, result), axis)
    return jnp.exp(jnp.where(where, value, -jnp.inf) - total)


def _finite(x):
    return jnp.where(jnp.isfinite(x), x, 0)


def _zeros_like(leaf):
    return vary(jnp.zeros(leaf.shape, leaf.dtype), varying_axes(leaf))


def _partition(tree):
    """The float leaves, the other leaves, and the function that joins two such lists to a tree again."""
    leaves, structure = jax.tree.flatten(tree)
    kinds = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]

    def join(floats, others):
        sources = {True: iter(floats), False: iter(others)}
        return jax.tree.unflatten(structure, [next(sources[bool(kind)]) for kind in kinds])

    return [x for x, kind in zip(leaves, kinds, strict=True) if kind], [x for x, kind in zip(leaves, kinds, strict=True) if not kind], join


def _hoist(terms, *example):
    """Turns what `terms` closes over into an argument: `(function, closed-over values, [(kind, axis)], structure of the results)`."""
    found = []

    def flat(*arguments):
        leaves, structure = reductions(terms(*arguments), arguments[0].shape)
        found[:] = [(type(leaf), leaf.axis) for leaf in leaves], structure
        return [(jnp.asarray(leaf.value), jnp.asarray(True if leaf.where is None else leaf.where)) for leaf in leaves]

    closed, shapes = jax.make_jaxpr(flat, return_shape=True)(*example)
    pairs = jax.tree.structure(shapes)

    def call(hoisted, *arguments):
        closed_again = jax.extend.core.ClosedJaxpr(closed.jaxpr, hoisted)
        return jax.tree.unflatten(pairs, jax.extend.core.jaxpr_as_fun(closed_again)(*jax.tree.leaves(arguments)))

    return call, list(closed.consts), *found
