"""Exact nearest keys: `pairwise.top_k` and `retrieval.search` against faiss's flat index, and against the products of the scores alone.

    python benchmarks/top_k.py [--queries 1024] [--keys 1048576] [--dim 256] [--k 10 100] [--rounds 3]

The least of several rounds in turns, in one process, on the same threads. Memory is the compiled program's own figure for temporaries. faiss comes
with `pip install 'cljax[benchmarks]'`.
"""

import argparse
import importlib.util
import os
from functools import partial

import jax.numpy as jnp
import measure
import numpy as np
from jax import lax

from cljax import pairwise, retrieval


def products(queries, keys, rows=512, width=1024):
    """All scores, in the blocks that `top_k` makes, each thrown away when it is made: what no exact search can do without."""
    rows, width = min(rows, len(queries)), min(width, len(keys))

    def over_rows(_, i):
        left = lax.dynamic_slice_in_dim(queries, i * rows, rows)

        def step(seen, j):
            return seen + left @ lax.dynamic_slice_in_dim(keys, j * width, width).T, None

        return None, lax.scan(step, jnp.zeros((rows, width)), jnp.arange(-(-len(keys) // width)))[0]

    return lax.scan(over_rows, None, jnp.arange(-(-len(queries) // rows)))[1]


def faiss_flat(queries, keys, k):
    import faiss

    faiss.omp_set_num_threads(os.cpu_count())
    index = faiss.IndexFlatIP(keys.shape[1])
    index.add(keys)
    return lambda: index.search(queries, k)


def compare(queries, keys, k, rounds):
    on_device = jnp.asarray(queries), jnp.asarray(keys)
    programs = {"products": measure.compiled(products, *on_device), "top_k": measure.compiled(partial(pairwise.top_k, k=k), *on_device)}
    runs = {name: partial(program, *on_device) for name, program in programs.items()}
    runs["search"] = lambda: retrieval.search(queries, keys, k, progress=False)
    if importlib.util.find_spec("faiss"):
        runs["faiss"] = faiss_flat(queries, keys, k)
    found = measure.seconds(runs, rounds)
    what = f"top_k of {len(queries)} x {len(keys)} x {keys.shape[1]}, k = {k}"
    memory = programs["top_k"].memory_analysis().temp_size_in_bytes / 1e6
    measure.row(f"{what}: memory", f"{memory:.0f} MB", "< 100 MB", memory < 100)
    measure.row(f"{what}: time / that of the products alone", f"{found['top_k'] / found['products']:.2f}")
    if "faiss" not in found:
        measure.row(f"{what}: time / faiss flat's", "faiss is not installed", "<= 1.2")
        return
    for name, title in (("top_k", "time"), ("search", "time of retrieval.search")):
        ratio = found[name] / found["faiss"]
        target = ("<= 1.2", ratio <= 1.2) if name == "top_k" else ()
        measure.row(f"{what}: {title} / faiss flat's", f"{ratio:.2f} ({found[name]:.2f} s)", *target)
    same = np.mean(np.asarray(runs["top_k"]()[1]) == runs["faiss"]()[1])
    measure.row(f"{what}: the same keys in the same places as faiss", f"{100 * same:.2f} %")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("queries", 1024), ("keys", 2**20), ("dim", 256), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--k", type=int, nargs="+", default=[10, 100])
    options = parser.parse_args()
    draw = np.random.default_rng(0)
    queries, keys = (draw.standard_normal((n, options.dim), np.float32) for n in (options.queries, options.keys))
    measure.begin()
    for k in options.k:
        compare(queries, keys, k, options.rounds)


if __name__ == "__main__":
    main()
