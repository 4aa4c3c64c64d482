"""What the benchmarks share: timing in turns, and one table of results beside their targets."""

import math
import os
import platform
import re
import time

import jax
import numpy as np

HEADER = "| what | result | target | |\n|---|---|---|---|"


def begin(note="", one_a_core=False):
    """Prints the machine and the head of the table, unless this script is one of several that fill one table.

    `one_a_core` makes a processor several devices, one for each core (the largest power of two), before it is first used.
    """
    if one_a_core:
        jax.config.update("jax_num_cpu_devices", 2 ** int(math.log2(os.cpu_count())))
    if "BENCHMARKS" not in os.environ:
        print(f"{machine()}{note}\n\n{HEADER}", flush=True)


def machine():
    """The line that belongs to every table of figures."""
    device = jax.devices()[0]
    load = f", load {os.getloadavg()[0]:.1f} at the start" if device.platform == "cpu" else ""
    return f"jax {jax.__version__}, {device.device_kind}, {_processor()}, {os.cpu_count()} cores{load}"


def row(what, result, target="", met=None):
    """Prints a row of the table; `met` is a boolean, or None where there is no target or nothing to compare."""
    print(f"| {what} | {result} | {target} | {'' if met is None else 'met' if met else '**not met**'} |", flush=True)


def compiled(function, *inputs):
    """The compiled program: call it; `.memory_analysis().temp_size_in_bytes` is its own figure for temporaries."""
    return jax.jit(function).lower(*inputs).compile()


def mesh():
    """All devices along one axis, "data"."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


def shared(tree, spec=()):
    """The arrays as `jax.shard_map` over `mesh` takes them: whole on every device, or split by a `jax.P`."""
    return jax.device_put(tree, jax.sharding.NamedSharding(mesh(), jax.P(*spec)))


def seconds(runs, rounds):
    """The least time of each of `{name: function of nothing}`, which take turns; the first round does not count."""
    best = dict.fromkeys(runs, float("inf"))
    for turn in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            if turn:
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def error(found, exact):
    """The largest difference of an entry, relative to the largest exact one."""
    found, exact = (np.asarray(x, np.float64) for x in (found, exact))
    return np.abs(found - exact).max() / np.abs(exact).max()


def computations(program):
    """The text of each computation of a compiled program by its name."""
    return dict(re.findall(r"^(?:ENTRY )?%?([\w.\-]+) \(.*?\{\n(.*?)^\}", program.as_text(), re.MULTILINE | re.DOTALL))


def _processor():
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()
