"""The run that these tests stop, break and spread over devices, and what they compare it with."""

import importlib.util
import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest


def _load():
    spec = importlib.util.spec_from_file_location("reliability_problem", Path(__file__).with_name("problem.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def problem():
    return _load()


@pytest.fixture(scope="session")
def whole(problem):
    """What the uninterrupted run of all stages gives."""
    return problem.run()


@pytest.fixture(scope="session")
def one(problem):
    """What its first stage gives."""
    return problem.fit(name="stage-0")


@pytest.fixture
def equal():
    return _equal


def _equal(a, b):
    """Whether two results agree bit for bit."""
    return jax.tree.structure(a) == jax.tree.structure(b) and all(map(_same, jax.tree.leaves(a), jax.tree.leaves(b)))


def _same(x, y):
    x, y = (np.asarray(jax.random.key_data(z) if jnp.issubdtype(z.dtype, jax.dtypes.prng_key) else z) for z in (x, y))
    return x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """Of a script that needs cljax; such scripts share what they compile."""
    root = str(Path(__file__).parents[3])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("programs")), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return {**cache, **os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
