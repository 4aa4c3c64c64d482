"""Two-way InfoNCE, nearest keys and sweeps on one GPU or TPU.

    python benchmarks/accelerator.py [--sizes 16384 32768 65536 131072] [--widths 512 1024]

Value and gradient with temperature, of bfloat16 embeddings unless said. A share is that of the time which 8 B^2 D operations would take at the rate
of a large product of random bfloat16 numbers in the same run. Memory is the compiled program's own figure for temporaries. PyTorch is a peer where it
is installed, plain XLA and it up to a batch of 32768.
"""

import argparse
import importlib.util
import os
import sys
from functools import partial
from unittest import mock

os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.45")  # half of the memory is for PyTorch

import jax
import jax.numpy as jnp
import measure
import numpy as np
from jax import lax
from pairwise import ONE_SET, TEMPERATURE, sigmoid, two_way

from cljax import pairwise
from cljax.pairwise import kernel


def rate(size=8192):
    """Operations a second of products of `size` rows, columns and inner width, in a compiled loop."""
    a, b = jax.random.normal(jax.random.key(1), (2, size, size), jnp.bfloat16)

    def loop(a, b):
        def again(_, total):
            return (lax.dot(total, b, preferred_element_type=jnp.float32) / size).astype(a.dtype)

        return lax.fori_loop(0, 20, again, a)

    run = measure.compiled(loop, a, b)
    return 20 * 2 * size**3 / measure.seconds({"products": partial(run, a, b)}, 3)["products"]


def plain(a, b, temperature):
    """Plain XLA: one matrix of scores in float32 for both directions, differentiated by JAX."""
    a, b = ((x / jnp.linalg.norm(x.astype(jnp.float32), axis=1, keepdims=True)).astype(x.dtype) for x in (a, b))
    scores = lax.dot_general(a, b, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32) / temperature
    return jnp.mean(jax.nn.logsumexp(scores, 1) + jax.nn.logsumexp(scores, 0) - 2 * jnp.diagonal(scores)) / 2


def program(function, shape, dtype):
    arguments = *(jax.ShapeDtypeStruct(shape, dtype),) * 2, jax.ShapeDtypeStruct((), jnp.float32)
    return jax.jit(jax.value_and_grad(function, (0, 1, 2))).lower(*arguments).compile()


def torch_two_way(a, b):
    import torch

    a, b = (torch.tensor(np.asarray(x, np.float32), device="cuda", dtype=torch.bfloat16, requires_grad=True) for x in (a, b))
    scale = torch.tensor(1 / TEMPERATURE, device="cuda", requires_grad=True)
    own = torch.arange(len(a), device="cuda")

    def run():
        scores = (torch.nn.functional.normalize(a) @ torch.nn.functional.normalize(b).T).float() * scale
        loss = (torch.nn.functional.cross_entropy(scores, own) + torch.nn.functional.cross_entropy(scores.T, own)) / 2
        torch.autograd.grad(loss, (a, b, scale))
        torch.cuda.synchronize()

    return run


def info_nce(shape, peak, rounds, dtype=jnp.bfloat16):
    batch, width = shape
    inputs = *jax.random.normal(jax.random.key(0), (2, *shape), dtype), jnp.float32(TEMPERATURE)
    programs = {"ours": program(two_way, shape, dtype)}
    if dtype == jnp.bfloat16 and kernel.at_hand() and batch <= 65536:
        with mock.patch.object(kernel, "at_hand", lambda: False):
            programs["blocks"] = program(two_way, shape, dtype)
    if batch <= 32768:
        programs["plain"] = program(plain, shape, dtype)
    runs = {name: partial(run, *inputs) for name, run in programs.items()}
    if importlib.util.find_spec("torch") and batch <= 32768 and dtype == jnp.bfloat16:
        runs["torch"] = torch_two_way(*inputs[:2])
    found = measure.seconds(runs, rounds)
    what = f"two-way InfoNCE ({batch}, {width}), {jnp.dtype(dtype).name}"
    share = 8 * batch**2 * width / peak / found["ours"]
    memory = programs["ours"].memory_analysis().temp_size_in_bytes / 1e9
    target = (">= 0.60", share >= 0.6) if dtype == jnp.bfloat16 else ()
    measure.row(f"{what}: share of 8 B²D, time, memory", f"{share:.2f}, {1e3 * found['ours']:.2f} ms, {memory:.2f} GB", *target)
    for peer, name in (("blocks", "the same without the kernel"), ("plain", "plain XLA's"), ("torch", "PyTorch's two cross-entropies")):
        if peer in found:
            measure.row(f"{what}: time / {name}", f"{found['ours'] / found[peer]:.2f}")


def family(shape, rounds):
    """The other losses against two-way InfoNCE of the same number of pairs, and their gradients against those of the blocks without the kernel."""
    batch, width = shape
    inputs = *jax.random.normal(jax.random.key(0), (2, *shape), jnp.bfloat16), jnp.float32(TEMPERATURE)
    halves = *(x[: batch // 2] for x in inputs[:2]), inputs[2]
    group = {"two-way": (two_way, inputs), "sigmoid_contrastive": (sigmoid, inputs)}
    group |= {name: (ONE_SET[name], halves) for name in ("nt_xent", "sup_con")}  # of one set of both halves
    runs = {name: partial(program(loss, given[0].shape, jnp.bfloat16), *given) for name, (loss, given) in group.items()}
    found = measure.seconds(runs, rounds)
    for name, (loss, given) in group.items():
        with mock.patch.object(kernel, "at_hand", lambda: False):
            (_, exact), (_, made) = program(loss, given[0].shape, jnp.bfloat16)(*given), runs[name]()
        what = f"{name}, {batch} x {batch} pairs of width {width}, bfloat16: time / two-way InfoNCE's, gradients from those without the kernel"
        measure.row(what, f"{found[name] / found['two-way']:.2f}, {max(map(measure.error, made, exact)):.0e}")


def exactness(shape):
    """The gradient of bfloat16 embeddings against that of the same numbers in float32."""
    inputs = jax.random.normal(jax.random.key(0), (2, *shape), jnp.bfloat16)
    for temperature in (1.0, 0.07, 0.01):
        found, exact = (
            jax.jit(jax.grad(partial(two_way, implementation="blockwise", block_size=512), (0, 1, 2)))(*x, jnp.float32(temperature))
            for x in (inputs, inputs.astype(jnp.float32))
        )
        errors = map(measure.error, found, exact)
        what = f"two-way InfoNCE {shape}, bfloat16, temperature {temperature}: errors of the gradients of a, b and temperature"
        measure.row(what, ", ".join(f"{error:.0e}" for error in errors))


def million():
    shape = (2**20, 512)
    compiled = program(two_way, shape, jnp.bfloat16)
    memory = compiled.memory_analysis().temp_size_in_bytes / 1e9
    measure.row(f"two-way InfoNCE {shape}, bfloat16: memory", f"{memory:.1f} GB", "< 5 GB", memory < 5)


def nearest(rounds):
    queries, keys = (jax.random.normal(jax.random.key(n), (n, 256), jnp.bfloat16) for n in (1024, 2**20))
    for k in (10, 100):
        compiled = measure.compiled(partial(pairwise.top_k, k=k), queries, keys)
        runs = {"ours": partial(compiled, queries, keys)}
        if importlib.util.find_spec("torch"):
            import torch

            q, x = (torch.tensor(np.asarray(array, np.float32), device="cuda", dtype=torch.bfloat16) for array in (queries, keys))

            def search(q=q, x=x, k=k):
                torch.topk((q @ x.T).float(), k)
                torch.cuda.synchronize()

            runs["torch"] = search
        found = measure.seconds(runs, rounds)
        memory = compiled.memory_analysis().temp_size_in_bytes / 1e6
        peer = f", {found['ours'] / found['torch']:.2f} of torch.topk's of all scores" if "torch" in found else ""
        measure.row(f"top_k of 1024 x 1048576 x 256, k = {k}, bfloat16", f"{1e3 * found['ours']:.1f} ms, {memory:.0f} MB{peer}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[16384, 32768, 65536, 131072])
    parser.add_argument("--widths", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if jax.default_backend() == "cpu":
        sys.exit("there is no accelerator here: python benchmarks measures the processor")
    measure.begin()
    peak = rate()
    measure.row("products of 8192 x 8192 x 8192, bfloat16", f"{peak / 1e12:.0f} TFLOP/s")
    for batch in options.sizes:
        for width in options.widths:
            info_nce((batch, width), peak, options.rounds)
    info_nce((16384, 512), peak, options.rounds, jnp.float32)
    family((32768, 512), options.rounds)
    exactness((2048, 512))
    million()
    nearest(options.rounds)
    from sweeps import Config, against_the_loop

    against_the_loop("perceptron", {str(t): Config(t) for t in (0.1, 1.0)}, 8)
    against_the_loop("convolutional net", {str(t): Config(t, convolutional=True) for t in (0.1, 1.0)}, 8)


if __name__ == "__main__":
    main()
