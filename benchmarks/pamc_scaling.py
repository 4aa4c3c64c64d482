"""How the cost of contrasts on a graph grows with its nodes: meta-nodes against all pairs, value and gradient, at a fixed number of neighbours.

    python benchmarks/pamc_scaling.py [--rounds 5]

Times are the least of several rounds in which all take turns in one process; plain XLA is the same full loss with its matrix of scores held, as the
official code has it. Slopes are of the logarithms over log nodes: of the FLOPs and bytes that XLA counts (of all pairs in plain XLA, as it counts the
body of a loop once), and of the times. Where a slope of time is taken:

- meta-nodes need 4.2 kB of temporaries a node: from 8192 nodes on these are more than the 32 MB that glibc's allocator keeps from call to call, and
  each call gets new pages from the system, which takes as long as the work itself. That step, between 4096 and 8192 nodes, makes a slope of 1.5 from
  2048 to 16384; from 16384 on it is in every time;
- all pairs are half a matrix in blocks of 1024, n (n + 1) / 2 of them, and a part that is linear in the nodes: from 2048 to 16384 nodes that makes a
  slope of 1.8 before anything is measured, from 8192 to 65536 one of 1.95.

Any other load on the machine bends the slopes.
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


FUNCTIONS = {"meta-nodes": meta_nodes, "all pairs": full, "all pairs, plain XLA": plain}
SIZES = {"meta-nodes": range(11, 19), "all pairs": range(11, 17), "all pairs, plain XLA": range(11, 14)}  # powers of 2
FITTED = {"meta-nodes": (14, 0.8, 1.2), "all pairs": (13, 1.8, 2.2)}  # from where on, and what the slope is to be


def slope(values):
    """Of `{nodes: value}`."""
    return np.polyfit(np.log(list(values)), np.log(list(values.values())), 1)[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    measure.begin()
    runs, counted = {}, {}
    for name, powers in SIZES.items():
        for nodes in (2**power for power in powers):
            arrays = inputs(nodes)
            program = measure.compiled(jax.value_and_grad(FUNCTIONS[name]), *arrays)
            runs[name, nodes], counted[name, nodes] = partial(program, *arrays), program.cost_analysis()
    times = measure.seconds(runs, options.rounds)
    for nodes in sorted({nodes for _, nodes in runs}):
        result = ", ".join(f"{name} {1e3 * time:.1f} ms" for (name, size), time in times.items() if size == nodes)
        measure.row(f"a graph of {nodes} nodes, {NEIGHBOURS} neighbours each", result)
    for name, low, high in (("meta-nodes", 0.95, 1.05), ("all pairs, plain XLA", 1.95, 2.05)):
        for kind in ("flops", "bytes accessed"):
            found = slope({nodes: costs[kind] for (one, nodes), costs in counted.items() if one == name})
            measure.row(f"{name}: slope of the {kind} over the nodes", f"{found:.2f}", f"{low} to {high}", low <= found <= high)
    for name, (first, low, high) in FITTED.items():
        fitted = {nodes: time for (one, nodes), time in times.items() if one == name and nodes >= 2**first}
        found = slope(fitted)
        what = f"{name}: slope of the time over {min(fitted)} to {max(fitted)} nodes"
        measure.row(what, f"{found:.2f}", f"{low} to {high}", low <= found <= high)


if __name__ == "__main__":
    main()
