"""Two-way InfoNCE split over devices: the keys gathered on each, or travelling in a ring.

    python benchmarks/devices.py [--out docs/devices.png]

Memory is the compiled program's own figure for the temporaries of one device; bytes are counted from the collectives of the compiled program, in both
passes together. Devices are the processor's, eight times: what they take in time says nothing, and is not shown.
"""

import argparse
import os
import re

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import matplotlib  # noqa: E402
import measure  # noqa: E402
import numpy as np  # noqa: E402
from pairwise import split  # noqa: E402

BATCH, WIDTH = 16384, 256
COUNTS = (1, 2, 4, 8)


def slopes(devices, collective):
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:devices])
    return jax.value_and_grad(split(mesh, collective, block_size=1024), (0, 1, 2))


def compiled(devices, collective, batch=BATCH):
    shape = jax.ShapeDtypeStruct((batch, WIDTH), jnp.float32)
    return jax.jit(slopes(devices, collective)).lower(shape, shape, jax.ShapeDtypeStruct((), jnp.float32)).compile()


def moved(program, devices):
    """Bytes that one device receives: in all-gathers and reduce-scatters all but its own part, in permutations the result, in each turn of a loop."""
    total, trips = 0, _trips(program.as_text())
    for computation, text in measure.computations(program).items():
        for shape, kind in re.findall(r"= \(?f32\[([\d,]+)\]\S* (all-gather|reduce-scatter|collective-permute|all-reduce)\(", text):
            size = 4 * np.prod([int(n) for n in shape.split(",")])
            share = {"all-gather": 1 - 1 / devices, "reduce-scatter": devices - 1, "collective-permute": 1, "all-reduce": 2 * (1 - 1 / devices)}[kind]
            total += size * share * trips.get(computation, 1)
    return total


def _trips(text):
    return {body: int(n) for body, n in re.findall(r"body=%?([\w.\-]+).*?known_trip_count\":\{\"n\":\"(\d+)\"", text)}


def draw(memory, path):
    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, panel = pyplot.subplots(figsize=(4.8, 3.6), layout="constrained")
    for collective, values in memory.items():
        slope = np.polyfit(np.log(COUNTS), np.log(values), 1)[0]
        panel.loglog(COUNTS, values, "o-", label=f"{collective}: slope {slope:.2f}")
    panel.minorticks_off()
    panel.set_xticks(COUNTS, [str(count) for count in COUNTS])
    panel.set_yticks([20, 40, 80, 160], ["20", "40", "80", "160"])
    panel.set_xlabel("devices")
    panel.set_ylabel("MB of temporaries on each")
    panel.grid(alpha=0.3, which="both")
    panel.legend(frameon=False)
    panel.set_title(f"Two-way InfoNCE of {BATCH} pairs of width {WIDTH}", fontsize=10)
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="docs/devices.png")
    options = parser.parse_args()
    measure.begin(", as eight devices")
    memory = {"gather": [], "ring": []}
    for devices in COUNTS:
        for collective, values in memory.items():
            program = compiled(devices, collective)
            values.append(program.memory_analysis().temp_size_in_bytes / 1e6)
            what = f"{collective} over {devices} devices: memory of one, bytes that it receives / bytes of the others' keys"
            ratio = moved(program, devices) / (4 * BATCH * WIDTH * (devices - 1) / devices) if devices > 1 else 0
            target = ("<= 3", ratio <= 3.05) if collective == "ring" and devices > 1 else ("", None)
            measure.row(what, f"{values[-1]:.0f} MB, {ratio:.2f}", *target)
    inputs = *jax.random.normal(jax.random.key(0), (2, 512, WIDTH)), jnp.float32(0.07)
    one = jax.tree.leaves(jax.jit(slopes(1, "gather"))(*inputs))
    for collective in memory:
        found = jax.tree.leaves(jax.jit(slopes(8, collective))(*inputs))
        worst = max(map(measure.error, found, one))
        what = f"{collective} over 8 devices: worst difference of value and gradients from one device's, relative"
        measure.row(what, f"{worst:.0e}", "<= 1e-5", worst <= 1e-5)
    draw(memory, options.out)


if __name__ == "__main__":
    main()
