"""Blocks of scores on a GPU, tile by tile: a tile is made, reduced and forgotten on the chip, and no score is written to memory.

One Pallas (Triton) kernel serves both passes: each of its programs multiplies two strips of vectors to a tile of products, hands it to a function,
and writes what that returns: sums along the rows and the columns of the tile, and an array of its shape. It is used on the devices on which it was
tested and found faster than plain operations, GPUs of compute capability 9 (H100, H200), for products of bfloat16.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from cljax.core import vary, varying_axes

TILE = 128, 128  # rows and columns
FORWARD = 1, 4  # tiles that a program makes side by side, and its warps of 32 threads
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


def backward(width):
    """What `FORWARD` says, of the backward pass over vectors of this width. Two tiles share what is read of the rows' vectors."""
    return (2, 8) if width <= 512 else (1, 8)


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


def tiles(work, left, right, rows, columns, scalars, side_by_side, warps):
    """`work` on every tile `[m, n]` of `left @ right.T`.

    Args:
      work: function `(products [m, n], rows, columns, scalars) -> tree` of arrays.
      left: `[b, E]` bfloat16.
      right: `[c, E]` bfloat16.
      rows: a list of `[b, 1]`; `work` gets `[m, 1]` of each.
      columns: a list of `[1, c]`; `work` gets `[1, n]` of each.
      scalars: a list of arrays without axes.
      side_by_side: how many tiles of the same rows a program multiplies at once, before it does the work on one after the other; a smaller number
        where this one does not divide the columns.
      warps: of 32 threads, that share the tiles of a program.

    Returns:
      The tree of what all tiles gave: `[b, c]` where `work` returns `[m, n]`; else with one leading axis over the tiles that a row passes
      through (`[b, 1]` behind it where `work` returns `[m, 1]`), those that a column passes through (`[1, c]`), or over all.
    """
    from jax.experimental import pallas as pl  # here, as it takes a quarter of a second
    from jax.experimental.pallas import triton

    (b, width), c, (m, n), lines = left.shape, len(right), TILE, (rows, columns, scalars)
    side_by_side = math.gcd(side_by_side, c // n)
    wide = n * side_by_side
    example = [[jax.ShapeDtypeStruct(shape, leaf.dtype) for leaf in group] for group, shape in zip(lines, ((m, 1), (1, n), ()), strict=True)]
    like, structure = jax.tree.flatten(jax.eval_shape(work, jax.ShapeDtypeStruct((m, n), jnp.float32), *example))
    axes = varying_axes(left, right, lines)
    inputs = [leaf.reshape(-1).astype(jnp.int32 if leaf.dtype == jnp.bool_ else leaf.dtype) for group in lines for leaf in group]
    left, right, *inputs = vary((left, right, *inputs), axes)
    ways = {  # by the shape that `work` returns: that of all, of what one program writes, and where it does
        (m, n): ((b, c), (m, wide), lambda i, j: (i, j)),
        (m, 1): ((c // n, b), (side_by_side, m), lambda i, j: (j, i)),
        (1, n): ((b // m, c), (None, wide), lambda i, j: (i, j)),
        (): ((b // m * (c // n), 1), (side_by_side, 1), lambda i, j: (i * (c // wide) + j, 0)),
    }

    def program(left, right, *refs):
        places = [pl.ds(tile * n, n) for tile in range(side_by_side)]
        given, written = refs[: len(inputs)], refs[len(inputs) :]

        def multiply(step, totals):
            at = pl.ds(step * _DEPTH, _DEPTH)
            x = left[:, at]
            return [
                total + lax.dot_general(x, right[own, at], (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
                for total, own in zip(totals, places, strict=True)
            ]

        def read(own):
            leaves = (leaf for group in example for leaf in group)
            return [ref[own] if leaf.shape == (1, n) else ref[...] for ref, leaf in zip(given, leaves, strict=True)]

        early = read(places[0]) if side_by_side == 1 else None  # while the products are made; of more tiles the registers don't hold it
        made = lax.fori_loop(0, width // _DEPTH, multiply, [jnp.zeros((m, n), jnp.float32)] * side_by_side)
        for tile, (products, own) in enumerate(zip(made, places, strict=True)):
            flat = iter(early or read(own))
            loaded = [[_shaped(next(flat), leaf) for leaf in group] for group in example]
            at = {(m, n): (slice(None), own), (m, 1): tile, (1, n): own, (): tile}
            for ref, value in zip(written, jax.tree.leaves(work(products, *loaded)), strict=True):
                ref[at[value.shape]] = value if value.shape == (m, n) else value.reshape(-1) if value.ndim else jnp.broadcast_to(value, 1)

    made = pl.pallas_call(
        program,
        grid=(b // m, c // wide),
        in_specs=[
            pl.BlockSpec((m, width), lambda i, j: (i, 0)),
            pl.BlockSpec((wide, width), lambda i, j: (j, 0)),
            *(pl.BlockSpec((m,), lambda i, j: (i,)) for _ in rows),
            *(pl.BlockSpec((wide,), lambda i, j: (j,)) for _ in columns),
            *(pl.BlockSpec((1,), lambda i, j: (0,)) for _ in scalars),
        ],
        out_specs=[pl.BlockSpec(*ways[leaf.shape][1:]) for leaf in like],
        out_shape=jax.eval_shape(lambda: [vary(jnp.zeros(ways[leaf.shape][0], leaf.dtype), axes) for leaf in like]),
        compiler_params=None if INTERPRETED else triton.CompilerParams(num_warps=warps, num_stages=_STAGES),
        interpret=INTERPRETED,
        name="pairwise",
    )(left, right, *inputs)
    shaped = {(m, 1): (c // n, b, 1), (1, n): (b // m, 1, c), (): (-1,)}
    return jax.tree.unflatten(structure, [x.reshape(shaped.get(leaf.shape, x.shape)) for x, leaf in zip(made, like, strict=True)])


def exp(x):
    """The exponential of a tile by the hardware's own power of two, to 1e-6 where it exceeds 1e-7: the exact one takes four times the operations."""
    from jax.experimental.pallas import triton

    x = x * math.log2(math.e)
    if INTERPRETED:
        return jnp.exp2(x)
    like = [jax.ShapeDtypeStruct(x.shape, x.dtype)]
    return triton.elementwise_inline_asm("ex2.approx.ftz.f32 $0, $1;", args=[x], constraints="=f,f", pack=1, result_shape_dtypes=like)[0]


def _shaped(x, like):
    x = x.reshape(like.shape) if like.shape else x[0]
    return x != 0 if like.dtype == jnp.bool_ else x
