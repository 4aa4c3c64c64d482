"""Reductions block by block: each block of scores is made once forward and, unless all fit into a budget and are kept, once more for the gradient.

Scans visit the blocks, the queries' fastest. Where the block size does not divide an axis its last block starts early enough to be whole and
masks what was seen before: nothing is padded, and `terms` sees real rows alone. Where the queries are their own keys half of the blocks do for all.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from cljax.core import vary, varying_axes
from cljax.pairwise import accumulate, blocks, kernel, work
from cljax.pairwise import similarity as sim
from cljax.pairwise.closures import hoist, partition
from cljax.pairwise.ring import around
from cljax.pairwise.terms import LogSumExp, Max

_BLOCK_ON_CPU = 1024  # rows and columns: 4 MB of scores, which stay in the cache
_BLOCK = 8192  # elsewhere: on an H200 smaller ones don't fill the device


class _Inputs(NamedTuple):
    queries: Any
    keys: Any  # None where the queries are their own keys
    rows: Any
    columns: Any
    params: Any
    hoisted: Any  # the traced values that `terms` closes over


class _Side(NamedTuple):
    """The queries or the keys, and what goes with them."""

    vectors: Any
    units: Any
    leaves: Any
    results: Any = ()  # in the backward pass: (result, cotangent) of every reduction that stands on this side


class _Plan(NamedTuple):
    """What both passes know before they start."""

    terms: Callable  # (hoisted, scores, row, column, params) -> [(value, where)], see `entries`
    layout: list  # [(kind of reduction, axis)]
    twins: list  # [(p, q)], entries that are log-sum-exps of one value along the two axes and share its exponential
    similarity: str
    sizes: tuple[int, int]  # of a block
    lengths: tuple[int, int]  # of the queries and of the keys that are at hand at once
    dtype: Any
    axes: frozenset  # mesh axes over which the blocks vary
    ring: str | None  # the mapped axis over which the keys travel
    mirrored: bool  # whether the queries are their own keys, so that a block also stands for its mirror image
    narrow: bool  # whether products are made in bfloat16
    keep: bool  # whether the products of the forward pass are kept for the backward pass
    tile_terms: Callable | None  # `terms` of a tile of the GPU kernel; None: plain operations do the work
    exp: Callable = jnp.exp  # of a block

    @property
    def entries(self):
        """What `terms` gives: [(number of the reduction, its kind, the axis of the block that it goes along, whether it is of the mirror image)]."""
        direct = [(n, kind, axis, False) for n, (kind, axis) in enumerate(self.layout)]
        return direct + [(n, kind, 1 - axis, True) for n, kind, axis, _ in direct] if self.mirrored else direct

    @property
    def of_one_exponential(self):
        """The entries whose exponentials are made together, by a bound instead of the maximum of each row or column."""
        if self.tile_terms is not None or jax.default_backend() != "cpu":
            return self.twins
        twins = {entry for pair in self.twins for entry in pair}
        return self.twins + [(entry,) for entry, (_, kind, _, _) in enumerate(self.entries) if kind is LogSumExp and entry not in twins]

    @property
    def rows(self):
        """How many blocks there are down the queries."""
        return -(-self.lengths[0] // self.sizes[0])

    @property
    def places(self):
        """Which block of rows meets which of columns, to scan over: `[columns, rows]` each, or `[pairs]` where half of them do for all."""
        if self.mirrored:
            number = jnp.arange(self.rows * (self.rows + 1) // 2, dtype=jnp.int32)
            i, further = number % self.rows, number // self.rows
            return i, (i + further) % self.rows  # i and the one that stands some places further, round and round: every pair once
        shape = -(-self.lengths[1] // self.sizes[1]), self.rows
        return tuple(lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (1, 0))


def reduce(queries, keys, terms, rows, columns, params, similarity, centre, *, block_size, keep=False, ring=None):
    """As `dense.reduce`, in blocks of at most `block_size` rows and columns, or None to choose.

    `keys=None` where the queries are their own keys. `keep` holds all scores for the gradient. `ring` is the axis over which the keys
    travel, if they do.
    """
    narrow = sim.narrow(similarity, queries, queries if keys is None else keys)
    by_kernel = narrow and kernel.at_hand() and not (keep and len(queries) * len(queries if keys is None else keys) < kernel.PAIRS)
    tile_terms = _tile_terms(queries, keys, terms, rows, columns, params, block_size) if by_kernel else None
    keep = keep and tile_terms is None
    size = block_size or (kernel.BLOCK if tile_terms else _BLOCK_ON_CPU if jax.default_backend() == "cpu" else _BLOCK)
    mirrored = keys is None and len(queries) > size  # a single block has no mirror image
    keys, columns = (queries, rows) if keys is None else (keys, columns)
    lengths, dtype = (len(queries), len(keys)), sim.accumulator(queries, keys)
    sizes = tuple(min(size, length) for length in lengths)
    axes = varying_axes(queries, keys, rows, columns, params)
    block = vary(jnp.zeros(sizes, dtype), axes)
    terms, hoisted, layout, structure, twins, _ = hoist(
        terms, mirrored, block, blocks.row(rows, 0, sizes[0]), blocks.column(columns, 0, sizes[1]), params
    )
    # What `terms` closes over keeps its type: its derivative is summed over the mesh where the closure itself mixed it in.
    axes |= varying_axes(hoisted)
    if tile_terms is None and jax.default_backend() != "cpu":
        twins = []  # exponentials cost less than the pass over memory that sharing them takes
    plan = _Plan(terms, layout, twins, similarity, sizes, lengths, dtype, axes, ring, mirrored, narrow, keep, tile_terms)
    inputs = (queries, None, rows, None, params) if mirrored else (queries, keys, rows, columns, params)
    *inputs, centre = vary((*inputs, centre), axes)
    floats, others, join = partition(_Inputs(*inputs, hoisted))

    @jax.custom_vjp
    def run(floats, others, centre):
        return _forward(plan._replace(keep=False), join(floats, others), centre)[0]

    @jax.custom_vjp
    def run_and_keep(floats, others, centre):
        return _forward(plan, join(floats, others), centre)

    def forward(*arguments):
        results, products = run_and_keep(*arguments)  # by its own rule: second derivatives then go through it too
        return results, (arguments, results, products)

    def forward_and_keep(*arguments):
        results, products = run_and_keep(*arguments)
        return (results, products), (arguments, results, products)

    def backward(saved, cotangents, of_products=None):
        (floats, others, centre), results, products = saved
        gradients = _backward(plan, join(floats, others), centre, results, cotangents, products, of_products)
        return gradients, None, jax.tree.map(jnp.zeros_like, centre)

    run.defvjp(forward, backward)
    run_and_keep.defvjp(forward_and_keep, lambda saved, cotangents: backward(saved, *cotangents))
    return run(floats, others, centre), structure, layout


def _tile_terms(queries, keys, terms, rows, columns, params, block_size):
    """`terms` for the tiles of the GPU kernel; None where it can't do what they ask for."""
    size = block_size or kernel.BLOCK
    mirrored = keys is None and len(queries) > size
    keys, columns = (queries, rows) if keys is None else (keys, columns)
    if not kernel.fits(queries.shape[1], min(size, len(queries)), min(size, len(keys))):
        return None
    tile = jnp.zeros(kernel.TILE), blocks.row(rows, 0, kernel.TILE[0]), blocks.column(columns, 0, kernel.TILE[1]), params
    terms, hoisted, layout, *_, traced = hoist(terms, mirrored, *vary(tile, varying_axes(queries, keys, rows, columns, params)))
    return terms if all(kind is not Max for kind, _ in layout) and kernel.takes(traced, (rows, columns), (params, hoisted)) else None


def _forward(plan, inputs, centre):
    """The results, and the products of every block or None."""
    left, right, shared = _sides(plan, inputs, centre)
    parts = work.parts if plan.tile_terms is None else work.parts_by_kernel

    def visit(of_rows, of_columns, right, source):
        def within(seen, places, column=None):
            block = _block(plan, left, right, centre, places, source, column)
            products = None if plan.tile_terms else sim.product(block.left, block.right)
            for (n, kind, axis, _), new in zip(plan.entries, parts(plan, block, products, shared), strict=True):
                part = blocks.cut(seen[n], block.at[axis], plan.sizes[1 - axis])
                seen[n] = blocks.put(seen[n], block.at[axis], accumulate.join(kind, part, new))
            return seen, products if plan.keep else None

        def over(seen, places):
            column = _strip(plan, "right", right, centre, places[1][0])
            return lax.scan(partial(within, column=column), seen, places)

        seen, products = lax.scan(within if plan.mirrored else over, _together(plan, of_rows, of_columns), plan.places)
        return *_apart(plan, seen), products

    def join(one, other):
        return [accumulate.join(kind, a, b) for kind, a, b in zip(_apart(plan, [kind for kind, _ in plan.layout])[1], one, other, strict=True)]

    start = _apart(plan, [vary(accumulate.start(kind, plan.lengths[1 - axis], plan.dtype), plan.axes) for kind, axis in plan.layout])
    if plan.ring is not None:
        seen, products = around(plan.ring, lambda *at: visit(*at)[:2], *start, right, join), None
    else:
        *seen, products = visit(*start, right, None)
    return [accumulate.finish(kind, part) for (kind, _), part in zip(plan.layout, _together(plan, *seen), strict=True)], products


def _backward(plan, inputs, centre, results, cotangents, products, of_products):
    """The gradients of the inputs' float leaves."""
    left, right, shared = _sides(plan, inputs, centre)
    (*row_leaves, join_row), (*column_leaves, join_column) = partition(left.leaves), partition(right.leaves)
    shared, shared_others, join_shared = partition(shared)
    results = [
        (result, cotangent[0] if kind is Max else cotangent) for (kind, _), result, cotangent in zip(plan.layout, results, cotangents, strict=True)
    ]
    of_rows, of_columns = _apart(plan, results)
    left, right = left._replace(leaves=row_leaves, results=of_rows), right._replace(leaves=column_leaves, results=of_columns)

    joins = join_row, join_column, join_shared
    pull = work.pull if plan.tile_terms is None else work.pull_by_kernel

    def visit(local, gathered, right, source):
        results = _together(plan, left.results, right.results)

        def within(carry, step, column=None):
            places, products, of_products = step
            (left_sum, row_sum, shared_sum), (right_sum, column_sum) = carry
            block = _block(plan, left, right, centre, places, source, column, results)
            if products is None and plan.tile_terms is None:
                products = sim.product(block.left, block.right)
            part, row_part, column_part, shared_part = pull(plan, block, products, (shared, shared_others), joins)
            part = part if of_products is None else part + of_products
            part = part.astype(block.left.dtype) if plan.narrow else part
            row_at = block.at[1]
            local = (
                blocks.add(left_sum, row_at, sim.product(part, block.right, (1, 0))),
                [blocks.add(total, row_at, jnp.squeeze(leaf, 1)) for total, leaf in zip(row_sum, row_part, strict=True)],
                [total + leaf for total, leaf in zip(shared_sum, shared_part, strict=True)],
            )
            # The keys' gradient is summed transposed: XLA:CPU multiplies `left.T @ part` faster than `part.T @ left`.
            parts = sim.product(block.left, part, (0, 0)), [jnp.squeeze(leaf, 0) for leaf in column_part]
            at = block.at[0] if plan.mirrored else 0
            return (local, _added((right_sum, column_sum), parts, at, axis=1)), None

        def over(carry, steps):
            local, gathered = carry
            column = _strip(plan, "right", right, centre, steps[0][1][0], results)
            start = vary(jnp.zeros((gathered[0].shape[1], plan.sizes[1]), plan.dtype), plan.axes)
            start = start, [jnp.zeros_like(total[: plan.sizes[1]]) for total in gathered[1]]
            (local, (part, column_part)), _ = lax.scan(partial(within, column=column), (local, start), steps)
            part = lax.optimization_barrier(part) if plan.rows == 1 else part  # alone, XLA would turn the product round again
            return (local, _added(gathered, (part.T, column_part), column[0])), None

        steps = plan.places, products, of_products
        if plan.mirrored:
            right_sum, column_sum = gathered
            local, (right_sum, column_sum) = lax.scan(within, (local, (right_sum.T, column_sum)), steps)[0]
            return local, (right_sum.T, column_sum)
        return lax.scan(over, (local, gathered), steps)[0]

    def zeros(tree):
        return jax.tree.map(lambda leaf: vary(jnp.zeros(leaf.shape, leaf.dtype), varying_axes(leaf)), tree)

    wide = jax.eval_shape(lambda: _load(plan, "left", left, centre)).shape[1]
    local = vary(jnp.zeros((plan.lengths[0], wide), plan.dtype), plan.axes), zeros(row_leaves[0]), zeros(shared)
    gathered = vary(jnp.zeros((plan.lengths[1], wide), plan.dtype), plan.axes), zeros(column_leaves[0])
    if plan.ring is not None:
        local, gathered = around(plan.ring, visit, local, gathered, right, lambda one, other: jax.tree.map(jnp.add, one, other))
    else:
        local, gathered = visit(local, gathered, right, None)
    (left_sum, row_sum, shared_sum), (right_sum, column_sum) = local, gathered
    if plan.mirrored and plan.similarity != "sqeuclidean":  # what pulls the gradient back is linear in the sum, and the same on both sides
        left_sum, right_sum = left_sum + right_sum, None
    of_queries = _pulled(plan, "left", left, left_sum, centre)
    of_keys = None if right_sum is None else _pulled(plan, "right", right, right_sum, centre)
    if plan.mirrored:
        leaves = [a + b for a, b in zip(row_sum, column_sum, strict=True)]
        both = of_queries if of_keys is None else of_queries + of_keys
        return [both.astype(left.vectors.dtype), *leaves, *shared_sum]
    return [of_queries.astype(left.vectors.dtype), of_keys.astype(right.vectors.dtype), *row_sum, *column_sum, *shared_sum]


def _added(gathered, parts, at, axis=0):
    """The sums over the keys, and of their leaves, with those of some of them added."""
    (right_sum, column_sum), (right_part, column_part) = gathered, parts
    column_sum = [blocks.add(total, at, part) for total, part in zip(column_sum, column_part, strict=True)]
    return blocks.add(right_sum, at, right_part, axis=axis), column_sum


def _pulled(plan, name, side, total, centre):
    """The vectors' gradient from the sums over all blocks, some rows at a time, and in place of the sums where they have the vectors' dtype."""
    pull = partial(sim.pull, plan.similarity, name, centre=centre, narrow=plan.narrow)
    vectors, dtype = side.vectors, side.vectors.dtype
    if plan.similarity != "cosine":
        return pull(vectors, side.units, total)
    size = plan.sizes[name == "right"]
    whole = len(vectors) // size

    def some(found, at, size=size):
        known, part = blocks.cut(((vectors, side.units), found if total.dtype == dtype else total), at, size)
        return blocks.put(found, at, pull(*known, part).astype(dtype))

    found = total if total.dtype == dtype else vary(jnp.zeros(vectors.shape, dtype), plan.axes)
    found = lax.fori_loop(0, whole, lambda number, found: some(found, number * size), found)
    rest = len(vectors) - whole * size
    return some(found, whole * size, rest) if rest else found


# Sides and blocks.


def _sides(plan, inputs, centre):
    queries, keys, rows, columns, params, hoisted = inputs
    left = _Side(queries, sim.units(plan.similarity, queries, centre), rows)
    right = left if plan.mirrored else _Side(keys, sim.units(plan.similarity, keys, centre), columns)
    return left, right, (params, hoisted)


def _load(plan, name, side, centre):
    return sim.load(plan.similarity, name, side.vectors, side.units, centre, plan.narrow)


def _strip(plan, name, side, centre, number, results=()):
    """A block of rows ("left") or of columns ("right"): where it starts, its vectors as a factor of the product, what is known of it."""
    axis = int(name == "left")  # along which reductions stand on it
    size, length = plan.sizes[1 - axis], plan.lengths[1 - axis]
    at, new = blocks.span(number, size, length)
    whole = all(length % size == 0 for length, size in zip(plan.lengths, plan.sizes, strict=True))
    results = [results[n] for n, _, along, _ in plan.entries if along == axis] if results else ()
    vectors, units, *lines = blocks.cut((side.vectors, side.units, side.leaves, results), at, size)
    factor = _load(plan, name, side._replace(vectors=vectors, units=units), centre)
    leaves, results = jax.tree.map(lambda x: jnp.expand_dims(x, axis), lines)
    line = work.Line(leaves, units if name == "left" else jax.tree.map(jnp.transpose, units), None if whole else jnp.expand_dims(new, axis), results)
    return at, factor, blocks.held(line, at)


def _block(plan, left, right, centre, places, source, column=None, results=()):
    """The block that stands at `places`; `column` is its `_strip` of columns, or None to cut it."""
    row_at, left, row = _strip(plan, "left", left, centre, places[0], results)
    column_at, right, column = column or _strip(plan, "right", right, centre, places[1], results)
    first = column_at, row_at
    if source is not None:  # the keys travel
        first = column_at + source * plan.lengths[1], row_at + lax.axis_index(plan.ring).astype(jnp.int32) * plan.lengths[0]
    return work.Block((column_at, row_at), left, right, row, column, places[0] != places[1] if plan.mirrored else None, first)


def _apart(plan, parts):
    """What stands on the rows (reductions along axis 1), and what on the columns."""
    return tuple([part for part, (_, axis) in zip(parts, plan.layout, strict=True) if axis == wanted] for wanted in (1, 0))


def _together(plan, of_rows, of_columns):
    """The two in the order of the layout."""
    sources = {1: iter(of_rows), 0: iter(of_columns)}
    return [next(sources[axis]) for _, axis in plan.layout]
