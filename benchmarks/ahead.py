"""What programs for a TPU take, compiled on a machine without one: nothing is run.

    pip install libtpu
    python benchmarks/ahead.py [--topology v5e:2x2] [--losses]

Value and gradient with temperature, of bfloat16 embeddings, on the first device of the topology, and split over all of them. Memory is the compiled
program's own figure for the temporaries of one device, beyond what fits on the chip; cycles are the compiler's own estimates of each operation,
added up. `--losses` compiles each loss of `benchmarks/pairwise.py`, which takes minutes.
"""

import argparse
import importlib.util
import os
import re
import sys
from functools import partial
from unittest import mock

os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}  # no TPU is asked for or held

import jax
import jax.numpy as jnp
import measure
import numpy as np
from accelerator import plain
from jax.experimental import topologies
from pairwise import ONE_PASS, ONE_SET, TEMPERATURE, TWO_PASSES, megabytes, sigmoid, split, two_way

from cljax import pairwise


def compiled(function, sharding, *shapes):
    """The program for bfloat16 arrays of these shapes."""
    return jax.jit(function).lower(*(jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=sharding) for shape in shapes)).compile()


def cycles(program):
    """The estimates of all operations, those of a loop as often as it turns."""
    bodies = measure.computations(program)

    def total(name):
        own = sum(map(int, re.findall(r'"estimated_cycles":"(\d+)"', bodies[name])))
        for condition, body in re.findall(r" while\(.*?condition=%?([\w.\-]+), body=%?([\w.\-]+)", bodies[name]):
            own += total(body) * max(map(int, re.findall(r"constant\((\d+)\)", bodies[condition])))
        return own

    return total(re.search(r"^ENTRY %?([\w.\-]+)", program.as_text(), re.MULTILINE)[1])


def slopes(loss):
    return lambda a, b: jax.value_and_grad(loss, (0, 1, 2))(a, b, jnp.float32(TEMPERATURE))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topology", default="v5e:2x2")
    parser.add_argument("--losses", action="store_true")
    options = parser.parse_args()
    if importlib.util.find_spec("libtpu") is None:
        sys.exit("the compiler for TPUs is not installed: pip install libtpu")
    devices = topologies.get_topology_desc(options.topology, platform="tpu").devices
    one, mesh = jax.sharding.SingleDeviceSharding(devices[0]), jax.sharding.Mesh(np.array(devices), ("data",))
    over_all = jax.sharding.NamedSharding(mesh, jax.P("data"))
    measure.begin(f", for {len(devices)} x {devices[0].device_kind}")
    with mock.patch.object(jax, "default_backend", lambda: "tpu"):
        shape = (16384, 512)
        ours, whole = (compiled(slopes(loss), one, shape, shape) for loss in (two_way, plain))
        measure.row(f"two-way InfoNCE {shape}: memory / plain XLA's", f"1/{megabytes(whole) / megabytes(ours):.0f} ({megabytes(ours):.0f} MB)")
        measure.row(f"two-way InfoNCE {shape}: estimated cycles / plain XLA's", f"{cycles(ours) / cycles(whole):.2f}")
        shape = (65536, 512)
        measure.row(f"two-way InfoNCE {shape}: memory", f"{megabytes(compiled(slopes(two_way), one, shape, shape)):.0f} MB")
        for collective in ("gather", "ring"):
            found = megabytes(compiled(slopes(split(mesh, collective)), over_all, shape, shape))
            measure.row(f"two-way InfoNCE {shape} over {len(devices)} devices, {collective}: memory of one", f"{found:.0f} MB")
        for approximate in (False, True):
            found = megabytes(compiled(partial(pairwise.top_k, k=10, approximate=approximate), one, (1024, 256), (2**20, 256)))
            measure.row(f"top_k of 1024 x 1048576 x 256, k = 10, approximate={approximate}: memory", f"{found:.0f} MB")
        for name, loss in (ONE_PASS | TWO_PASSES | ONE_SET | {"sigmoid_contrastive": sigmoid}).items() if options.losses else ():
            measure.row(f"{name} {shape}: memory", f"{megabytes(compiled(slopes(loss), one, shape, shape)):.0f} MB")


if __name__ == "__main__":
    main()
