"""Two-way InfoNCE, value and gradient with temperature: `pairwise.reduce` against plain XLA with one shared matrix of scores, and against optax.

    python benchmarks/pairwise.py [--rounds 8]

Best of the rounds in turns, in one process. Memory is the compiled program's own figure for temporaries.
"""

import argparse
import os
import platform
import time
from functools import partial

import jax
import jax.numpy as jnp
import optax

from cljax import losses

SHAPES = ((1024, 128), (2048, 256), (4096, 256))


def ours(a, b, temperature, implementation):
    return losses.mean(losses.symmetric_info_nce(a, b, temperature=temperature, implementation=implementation))


def ours_nt_xent(a, b, temperature, implementation):
    return losses.mean(losses.nt_xent(a, b, temperature=temperature, implementation=implementation))


def plain(a, b, temperature):
    a, b = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    scores = a @ b.T / temperature
    return jnp.mean(jax.nn.logsumexp(scores, 1) + jax.nn.logsumexp(scores, 0) - 2 * jnp.diagonal(scores)) / 2


def optax_nt_xent(a, b, temperature):
    labels = jnp.tile(jnp.arange(len(a)), 2)
    return optax.losses.ntxent(jnp.concatenate([a, b]), labels, temperature=temperature)


def compare(title, peers, shape, rounds):
    inputs = *jax.random.normal(jax.random.key(0), (2, *shape)), jnp.float32(0.07)
    programs = {name: jax.jit(jax.value_and_grad(function, (0, 1, 2))).lower(*inputs).compile() for name, function in peers.items()}
    best = dict.fromkeys(programs, float("inf"))
    for _ in range(rounds + 1):
        for name, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program(*inputs))
            best[name] = min(best[name], time.perf_counter() - start)
    first = next(iter(best.values()))
    for name, program in programs.items():
        memory = program.memory_analysis().temp_size_in_bytes / 1e6
        print(f"| {title} {shape} | {name} | {1e3 * best[name]:.1f} | {best[name] / first:.2f} | {memory:.1f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    rounds = parser.parse_args().rounds
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {platform.machine()}, {os.cpu_count()} cores\n")
    print("| loss (B, D) | who | ms | ratio | temporary MB |\n|---|---|---|---|---|")
    kinds = ("auto", "dense", "blockwise")
    for shape in SHAPES:
        compare("InfoNCE, two ways", {"plain XLA": plain} | {f"cljax {kind}": partial(ours, implementation=kind) for kind in kinds}, shape, rounds)
    peers = {"optax.losses.ntxent": optax_nt_xent} | {f"cljax {kind}": partial(ours_nt_xent, implementation=kind) for kind in kinds}
    compare("NT-Xent", peers, (512, 64), max(1, rounds // 4))  # optax holds [2B, 2B, D]


if __name__ == "__main__":
    main()
