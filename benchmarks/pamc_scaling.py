"""How the cost of contrasts on a graph grows with its nodes: meta-nodes against all pairs, value and gradient, at a fixed number of neighbours.

    python benchmarks/pamc_scaling.py [--largest 16384] [--rounds 5]

Times are the least of several rounds in which all take turns in one process; the slopes are of log time over log nodes. Plain
XLA is the same full loss with its matrix of scores held, as the official code has it. Any other load on the machine bends the slopes.
"""

import argparse
from functools import partial

import jax
import jax.numpy as jnp
import measure
import numpy as np

from cljax import losses

WIDTH, NEIGHBOURS, CLUSTERS, TEMPERATURE = 10, 30, 10, 0.5


def inputs(nodes):
    rng = np.random.default_rng(0)
    rows, columns = np.repeat(np.arange(nodes), NEIGHBOURS), rng.integers(0, nodes, nodes * NEIGHBOURS)
    weights = np.full(len(rows), 1 / NEIGHBOURS, np.float32)
    return rng.normal(size=(nodes, WIDTH)).astype(np.float32), np.arange(nodes) % CLUSTERS, *(jnp.asarray(x) for x in (rows, columns, weights))


def meta_nodes(z, labels, *edges):
    return losses.mean(losses.meta_node_contrast(z, labels, *edges, temperature=TEMPERATURE, num_clusters=CLUSTERS))


def full(z, labels, *edges):
    return losses.mean(losses.graph_info_nce(z, *edges, temperature=TEMPERATURE))


def plain(z, labels, rows, columns, weights):
    unit = z / jnp.linalg.norm(z, axis=1, keepdims=True)
    scores = jnp.exp(jnp.where(jnp.eye(len(z), dtype=bool), 0, unit @ unit.T / TEMPERATURE))
    near = jax.ops.segment_sum(weights * scores[rows, columns], rows, len(z))
    return -jnp.mean(jnp.log(near / jnp.sum(scores, axis=1) + 1e-8))


def slope(nodes, values):
    return np.polyfit(np.log(nodes), np.log(values), 1)[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=int, default=16384)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    sizes = [2**n for n in range(11, options.largest.bit_length())]
    measure.begin()
    runs = {}
    for nodes in sizes:
        arrays = inputs(nodes)
        for name, function in {"meta-nodes": meta_nodes, "all pairs": full, "all pairs, plain XLA": plain}.items():
            if function is not plain or nodes <= 8192:
                runs[name, nodes] = partial(measure.compiled(jax.value_and_grad(function), *arrays), *arrays)
    times = measure.seconds(runs, options.rounds)
    for nodes in sizes:
        result = ", ".join(f"{name} {1e3 * time:.1f} ms" for (name, size), time in times.items() if size == nodes)
        measure.row(f"a graph of {nodes} nodes, {NEIGHBOURS} neighbours each", result)
    for name, low, high in (("meta-nodes", 0.8, 1.2), ("all pairs", 1.8, 2.2)):
        found = slope(sizes, [times[name, nodes] for nodes in sizes])
        measure.row(f"{name}: slope of the time over the nodes", f"{found:.2f}", f"{low} to {high}", low <= found <= high)


if __name__ == "__main__":
    main()
