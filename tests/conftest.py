"""What every test shares: eight virtual devices, the type-checking hook and its switch, hypothesis without a clock."""

import importlib.metadata
import os
import pathlib
import signal

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell starts what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The suite's time is nearly all compilation, of programs that run for a moment: those are not worth optimising. Fusions without the emitters of their
# own compile in half of the time.
flags = ["--xla_backend_optimization_level=0", "--xla_cpu_use_fusion_emitters=false"]
if int(importlib.metadata.version("jaxlib").split(".")[1]) >= 10:  # older ones abort on a flag that they don't know
    # Two xdist workers with eight virtual devices each share the cores: a device that waits long for its peers is busy, not dead.
    flags += ["--xla_cpu_collective_call_terminate_timeout_seconds=600", "--xla_cpu_collective_call_warn_stuck_timeout_seconds=120"]
os.environ.setdefault("XLA_FLAGS", " ".join(flags))
os.environ.setdefault("MPLBACKEND", "agg")

import hypothesis
import jax
import jaxtyping
import pytest

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)  # works only before the first array

PHASES = (hypothesis.Phase.explicit, hypothesis.Phase.generate)  # a failing example is small as it is: to shrink it takes a compilation a try
hypothesis.settings.register_profile("cljax", deadline=None, derandomize=True, max_examples=10, database=None, phases=PHASES)
hypothesis.settings.load_profile("cljax")


@pytest.fixture(autouse=True)
def _unchecked_annotations(request):
    """Tests marked `errors` see the checks of the functions themselves: the type-checking hook would answer first."""
    if request.node.get_closest_marker("errors") is None:
        yield
        return
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture(autouse=True, scope="module")
def _few_memory_mappings():
    """Each compiled program holds some of the mappings that a process may have (65530 on Linux): without them the next compilation crashes."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()


def pytest_addoption(parser):
    parser.addoption("--few-cases", action="store_true", help="of each parametrised test one case, the first or the last in turns")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--few-cases"):
        cases = {}
        for item in items:
            cases.setdefault((item.path, getattr(item, "originalname", item.name)), []).append(item)
        chosen = {id(group[-(place % 2)]) for place, group in enumerate(cases.values())}
        config.hook.pytest_deselected(items=[item for item in items if id(item) not in chosen])
        items[:] = [item for item in items if id(item) in chosen]
