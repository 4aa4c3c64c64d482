"""How the cost of two-way InfoNCE, value and gradient, grows with the batch.

    python benchmarks/growth.py [--largest 65536] [--out docs/growth.png]

Time is the least of three calls (one above 16384); memory is the compiled program's own figure for temporaries. Beside both stands what plain XLA
takes with one shared matrix of scores, as far as that stays below 2 GB. The slopes are of log cost over log batch from 4096 on.
"""

import argparse
from functools import partial

import matplotlib
import measure
import numpy as np
import pairwise

WIDTH = 64


def cost(function, batch, run):
    program = pairwise.program(function, (batch, WIDTH))
    found = pairwise.inputs(batch, WIDTH)
    calls = 3 if batch <= 16384 else 1
    time = measure.seconds({"it": partial(program, *found)}, calls)["it"] if run else np.nan
    return time, program.memory_analysis().temp_size_in_bytes / 1e6


def slope(batches, values):
    batches, values = np.asarray(batches), np.asarray(values)
    chosen = (batches >= 4096) & np.isfinite(values)
    return np.polyfit(np.log(batches[chosen]), np.log(values[chosen]), 1)[0]


def draw(batches, found, path):
    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for panel, kind, unit in zip(panels, (0, 1), ("seconds", "MB of temporaries"), strict=True):
        for name, costs in found.items():
            values = [cost[kind] for cost in costs]
            panel.loglog(batches[: len(values)], values, "o-", label=f"{name}: slope {slope(batches[: len(values)], values):.2f}")
        panel.set_xlabel("batch")
        panel.set_ylabel(unit)
        panel.grid(alpha=0.3, which="both")
        panel.legend(frameon=False)
    figure.suptitle(f"Two-way InfoNCE of width {WIDTH}, value and gradient", fontsize=10)
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=int, default=65536)
    parser.add_argument("--out", default="docs/growth.png")
    options = parser.parse_args()
    batches = [2**n for n in range(10, options.largest.bit_length())]
    measure.begin()
    found = {
        "cljax": [cost(pairwise.two_way, batch, True) for batch in batches],
        "plain XLA": [cost(pairwise.plain, batch, True) for batch in batches if 4 * batch**2 * 4 <= 2e9],
    }
    for name, costs in found.items():
        for batch, (time, memory) in zip(batches, costs, strict=False):
            measure.row(f"{name}, batch {batch} of width {WIDTH}", f"{1e3 * time:.1f} ms, {memory:.1f} MB")
    ours = [memory for _, memory in found["cljax"]]
    measure.row("cljax: slope of the memory over the batch", f"{slope(batches, ours):.2f}", "<= 1.1", slope(batches, ours) <= 1.1)
    draw(batches, found, options.out)


if __name__ == "__main__":
    main()
