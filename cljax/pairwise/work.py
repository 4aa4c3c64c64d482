"""The work on one block of scores, by plain operations or by the GPU kernel, which does the same on one tile of the block after the other."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from cljax.core import vary
from cljax.pairwise import accumulate, kernel
from cljax.pairwise import similarity as sim
from cljax.pairwise.dense import spread


class Line(NamedTuple):
    """What is known of a block's rows, each leaf `[b, 1, ...]`, or of its columns, `[1, n, ...]`."""

    leaves: Any
    units: Any
    new: Any  # those that no earlier block holds; None where all are new
    results: Any = ()


class Block(NamedTuple):
    at: Any  # where its columns and its rows start: `at[axis]` is where a reduction along `axis` stands, `at[1 - axis]` where its entries do
    left: Any  # the queries' factor of the product
    right: Any
    row: Line
    column: Line
    off_diagonal: Any  # whether its mirror image is another block; None where blocks have none
    first: Any  # the indices of its first key and of its first query, among those of all devices


def parts(plan, block, products, shared):
    """What the reductions find in the block, one for each of `plan.entries`."""

    def make():
        found = plan.terms(shared[1], _scores(plan, block, products), block.row.leaves, block.column.leaves, shared[0])
        pairs = zip(plan.entries, found, strict=True)
        return [spread((value, _kept(block, where, mirror)), products.shape, plan.dtype) for (*_, mirror), (value, where) in pairs]

    found, new = make(), {}
    for entries in plan.of_one_exponential:
        made = accumulate.log_sum_exps(lambda entry=entries[0]: make()[entry], [plan.entries[entry][2] for entry in entries], plan.exp)
        new |= dict(zip(entries, made, strict=True))
    for entry, (_, kind, axis, _) in enumerate(plan.entries):
        if entry not in new:
            new[entry] = accumulate.reduced(kind, *found[entry], axis, block.first[1 - axis], plan.exp)
    return [new[entry] for entry in range(len(found))]


def pull(plan, block, products, shared, joins):
    """The derivatives of the results with respect to the block's products, to the float leaves of its rows and columns, and to what is shared."""
    if not plan.twins:
        return _pull(plan, block, products, shared, joins)
    results = [result for result, _ in _results(plan, block)]
    near = functools.reduce(jnp.logical_and, [accumulate.near(results[p], results[q]) for p, q in plan.twins])
    # XLA merges nothing across a condition: each case has all of its own from the products to their derivative.
    return lax.cond(near, *(functools.partial(_pull, plan, block, products, shared, joins) for plan in (plan, plan._replace(twins=[]))))


def _pull(plan, block, products, shared, joins):
    (row, fixed_row), (column, fixed_column), (shared, fixed_shared) = block.row.leaves, block.column.leaves, shared
    join_row, join_column, join_shared = joins

    def values(products, row, column, shared):
        params, hoisted = join_shared(shared, fixed_shared)
        found = plan.terms(hoisted, _scores(plan, block, products), join_row(row, fixed_row), join_column(column, fixed_column), params)
        pairs = [spread(term, products.shape, plan.dtype) for term in found]
        return vary([value for value, _ in pairs], plan.axes), [where for _, where in pairs]

    found, pull_back, masks = jax.vjp(values, products, row, column, shared, has_aux=True)
    results, pushed = _results(plan, block), [None] * len(found)
    for p, q in plan.twins:
        pushed[p] = accumulate.both_shares(found[p], _kept(block, masks[p], False), results[p], results[q])
        pushed[q] = jnp.zeros_like(found[q])
    for entry, (_, kind, axis, mirror) in enumerate(plan.entries):
        if pushed[entry] is None:
            (result, cotangent), where = results[entry], _kept(block, masks[entry], mirror)
            share = accumulate.share(kind, found[entry], where, result, axis, block.first[1 - axis], plan.exp)
            pushed[entry] = jnp.broadcast_to(share * cotangent, products.shape)
    return pull_back(pushed)


def _results(plan, block):
    """(result, cotangent) of every entry."""
    lines = {1: iter(block.row.results), 0: iter(block.column.results)}
    return [next(lines[axis]) for _, _, axis, _ in plan.entries]


def _scores(plan, block, products):
    return sim.finish(plan.similarity, products, block.row.units, block.column.units, plan.narrow)


def _kept(block, where, mirror):
    """A term's mask without the pairs that an earlier block holds and, for a mirror image, without the diagonal, which is its own."""
    masks = [where, block.row.new, block.column.new, block.off_diagonal if mirror else None]
    masks = [mask for mask in masks if mask is not None]
    return functools.reduce(jnp.logical_and, masks) if masks else None


# The same by the GPU kernel, which never writes the products. Its derivative, for those who differentiate twice, is that of the plain operations.


def parts_by_kernel(plan, block, _, shared):
    def task(*of_block):
        return [
            jax.tree.map(lambda x, axis=axis: jnp.expand_dims(x, axis), part)
            for (_, _, axis, _), part in zip(plan.entries, parts(*of_block), strict=True)
        ]

    def join(made):
        return [accumulate.joined(kind, part) for (_, kind, _, _), part in zip(plan.entries, made, strict=True)]

    found = _by_kernel(plan, block, shared, task, join, kernel.FORWARD)
    return [jax.tree.map(lambda x, axis=axis: jnp.squeeze(x, axis), part) for (_, _, axis, _), part in zip(plan.entries, found, strict=True)]


def pull_by_kernel(plan, block, _, shared, joins):
    plan = plan._replace(twins=[])  # an exponential costs less than to find out whether one serves for two

    def task(*of_block):
        part, *others = pull(*of_block, joins)
        return part.astype(block.left.dtype), *others

    def join(made):
        return made[0], *jax.tree.map(lambda x: jnp.sum(x, axis=0), made[1:])

    return _by_kernel(plan, block, shared, task, join, kernel.backward(block.left.shape[1]))


def _by_kernel(plan, block, shared, task, join, how):
    """`task(plan, block, products, shared)`; `join` makes what it returns from what `kernel.tiles` makes of it, with programs as `how` says."""
    small = plan._replace(terms=plan.tile_terms, axes=frozenset(), exp=kernel.exp)

    @jax.custom_jvp
    def run(left, right, row, column, rest):
        (rows, of_row), (columns, of_column), (scalars, of_rest) = map(jax.tree.flatten, (row, column, rest))

        def of_tile(products, rows, columns, scalars):
            lines = jax.tree.unflatten(of_row, rows), jax.tree.unflatten(of_column, columns)
            off_diagonal, shared = jax.tree.unflatten(of_rest, scalars)
            return task(small, Block(None, None, None, *lines, off_diagonal, (0, 0)), products, shared)

        return join(kernel.tiles(of_tile, left, right, rows, columns, scalars, *how))

    @run.defjvp
    def by_plain_operations(primals, tangents):
        def same(left, right, row, column, rest):
            return task(plan, Block(None, left, right, row, column, rest[0], (0, 0)), sim.product(left, right), rest[1])

        return jax.jvp(same, primals, tangents)

    return run(block.left, block.right, block.row, block.column, (block.off_diagonal, shared))
