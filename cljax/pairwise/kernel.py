"""Blocks of scores on a GPU, tile by tile: a tile is made, reduced and forgotten on the chip, and no score is written to memory.

One Pallas (Triton) kernel serves both passes: each of its programs multiplies two strips of vectors to a tile of products, hands it to a function,
and writes what that returns: sums along the rows and the columns of the tile, and an array of its shape. It is used on the devices on which it was
tested and found faster than plain operations, GPUs of compute capability 9 (H100), for products of bfloat16.
"""

import jax
import jax.numpy as jnp
from jax import lax

from cljax.core import vary, varying_axes

TILE = 128, 128  # rows and columns
_DEPTH, _STAGES = 64, 3  # entries of the vectors that are multiplied at once, and how many such pieces are on their way
BLOCK = 16384  # rows and columns of a block of them: what is written of a block is half a gigabyte of bfloat16, in the backward pass
PAIRS = 2**23  # of fewer, plain operations that keep the scores are as fast
INTERPRETED = False  # tests run the kernel as plain operations, on any device

_KINDS = (jnp.float32, jnp.int32, jnp.bool_)
_OPERATIONS = {
    *("add", "sub", "mul", "div", "neg", "abs", "sign", "square", "sqrt", "integer_pow", "exp", "log", "log1p", "tanh", "logistic", "max", "min"),
    *("eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor", "not", "select_n"),
    *("broadcast_in_dim", "reshape", "expand_dims", "squeeze", "convert_element_type", "copy", "stop_gradient"),
    *("jit", "pjit", "custom_jvp_call", "custom_vjp_call"),
}


def at_hand():
    """Whether this device is one of those on which the kernel was tested."""
    return INTERPRETED or (jax.default_backend() == "gpu" and str(getattr(jax.local_devices()[0], "compute_capability", "")).startswith("9."))


def fits(width, rows, columns):
    """Whether tiles divide blocks of so many rows and columns, and its steps vectors of this width."""
    return width % _DEPTH == rows % TILE[0] == columns % TILE[1] == 0


def takes(terms, leaves, scalars):
    """Whether the kernel can do these (traced) terms of these leaves of rows and columns."""
    return (
        all(leaf.ndim == 1 and leaf.dtype in _KINDS for leaf in jax.tree.leaves(leaves))
        and all(leaf.ndim == 0 and leaf.dtype in _KINDS for leaf in jax.tree.leaves(scalars))
        and _understood(terms)
    )


def _understood(jaxpr):
    """Whether all operations are among those that the kernel's compiler is known to take."""
    inner = [value for eqn in jaxpr.eqns for value in eqn.params.values()]
    inner = [getattr(value, "jaxpr", value) for value in inner if hasattr(getattr(value, "jaxpr", value), "eqns")]
    return all(eqn.primitive.name in _OPERATIONS for eqn in jaxpr.eqns) and all(map(_understood, inner))


def tiles(work, left, right, rows, columns, scalars, warps):
    """`work` on every tile `[m, n]` of `left @ right.T`.

    Args:
      work: function `(products [m, n], rows, columns, scalars) -> tree` of arrays.
      left: `[b, E]` bfloat16.
      right: `[c, E]` bfloat16.
      rows: a list of `[b, 1]`; `work` gets `[m, 1]` of each.
      columns: a list of `[1, c]`; `work` gets `[1, n]` of each.
      scalars: a list of arrays without axes.
      warps: of 32 threads, that share a tile.

    Returns:
      The tree of what all tiles gave: `[b, c]` where `work` returns `[m, n]`; else with one leading axis over the tiles that a row passes
      through (`[b, 1]` behind it where `work` returns `[m, 1]`), those that a column passes through (`[1, c]`), or over all.
    """
    from jax.experimental import pallas as pl  # here, as it takes a quarter of a second
    from jax.experimental.pallas import triton

    (b, width), c, (m, n), lines = left.shape, len(right), TILE, (rows, columns, scalars)
    grid, shapes = (b // m, c // n), ((m, 1), (1, n), ())
    example = [[jax.ShapeDtypeStruct(shape, leaf.dtype) for leaf in group] for group, shape in zip(lines, shapes, strict=True)]
    like, structure = jax.tree.flatten(jax.eval_shape(work, jax.ShapeDtypeStruct((m, n), jnp.float32), *example))
    axes = varying_axes(left, right, lines)
    inputs = [leaf.reshape(-1).astype(jnp.int32 if leaf.dtype == jnp.bool_ else leaf.dtype) for group in lines for leaf in group]
    left, right, *inputs = vary((left, right, *inputs), axes)
    ways = {  # by the shape that `work` returns: that of all, of what one program writes, and where it does
        (m, n): ((b, c), (m, n), lambda i, j: (i, j)),
        (m, 1): ((grid[1], b), (None, m), lambda i, j: (j, i)),
        (1, n): ((grid[0], c), (None, n), lambda i, j: (i, j)),
        (): ((grid[0] * grid[1], 1), (None, 1), lambda i, j: (i * grid[1] + j, 0)),
    }

    def program(left, right, *refs):
        def multiply(step, total):
            x, y = (side[:, pl.ds(step * _DEPTH, _DEPTH)] for side in (left, right))
            return total + lax.dot_general(x, y, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)

        products = lax.fori_loop(0, width // _DEPTH, multiply, jnp.zeros((m, n), jnp.float32))
        given, written = iter(refs[: len(inputs)]), refs[len(inputs) :]
        loaded = [[_load(next(given), leaf) for leaf in group] for group in example]
        for ref, value in zip(written, jax.tree.leaves(work(products, *loaded)), strict=True):
            ref[...] = value.reshape(ref.shape) if value.ndim else jnp.broadcast_to(value, ref.shape)

    made = pl.pallas_call(
        program,
        grid=grid,
        in_specs=[
            pl.BlockSpec((m, width), lambda i, j: (i, 0)),
            pl.BlockSpec((n, width), lambda i, j: (j, 0)),
            *(pl.BlockSpec((m,), lambda i, j: (i,)) for _ in rows),
            *(pl.BlockSpec((n,), lambda i, j: (j,)) for _ in columns),
            *(pl.BlockSpec((1,), lambda i, j: (0,)) for _ in scalars),
        ],
        out_specs=[pl.BlockSpec(*ways[leaf.shape][1:]) for leaf in like],
        out_shape=jax.eval_shape(lambda: [vary(jnp.zeros(ways[leaf.shape][0], leaf.dtype), axes) for leaf in like]),
        compiler_params=None if INTERPRETED else triton.CompilerParams(num_warps=warps, num_stages=_STAGES),
        interpret=INTERPRETED,
        name="pairwise",
    )(left, right, *inputs)
    shaped = {(m, 1): (grid[1], b, 1), (1, n): (grid[0], 1, c), (): (-1,)}
    return jax.tree.unflatten(structure, [x.reshape(shaped.get(leaf.shape, x.shape)) for x, leaf in zip(made, like, strict=True)])


def _load(ref, like):
    x = ref[...].reshape(like.shape) if like.shape else ref[0]
    return x != 0 if like.dtype == jnp.bool_ else x
