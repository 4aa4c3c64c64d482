"""What the tests of experiments share: the script that a test file is named after, and small data in place of what it would load."""

import importlib.util
import pathlib
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from cljax import data, train

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="session")
def imported():
    """Imports a file of the checkout that belongs to no package, by its path from the top."""

    def load(path):
        spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, ROOT / path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # where what is pickled looks for it
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="module")
def experiment(request, imported):
    return imported(f"experiments/{request.path.stem.removeprefix('test_')}.py")


@pytest.fixture
def few_digits(monkeypatch):
    """40 and 20 pictures in place of the digits, each with a bright pixel that tells its label."""

    def load(name, *, key, split):
        labels = np.arange(60, dtype=np.int32) % 10
        images = np.random.default_rng(1).uniform(size=(60, 8, 8)).astype(np.float32) * 0.3
        images[np.arange(60), labels % 8, labels // 8] += 0.7
        return (images[:40], labels[:40]), (images[40:], labels[40:])

    monkeypatch.setattr(data, "load", load)


@pytest.fixture
def few_docstrings(experiment, monkeypatch):
    """600 and 300 tokens in place of the docstrings, most of them in one order."""

    def docstrings(*, vocabulary, key):
        rng = np.random.default_rng(0)
        ids = np.where(rng.random(900) < 0.7, np.arange(900) % 7, rng.integers(0, 12, 900)).astype(np.int32)
        decode = lambda ids, skip_special_tokens: " ".join(map(str, ids)) + " $ and $"  # noqa: E731
        return data.Docstrings(ids[:600], ids[600:], SimpleNamespace(get_vocab_size=lambda: vocabulary, decode=decode))

    monkeypatch.setattr(data, "docstrings", docstrings)
    experiment.corpus.cache_clear()


@pytest.fixture(scope="module")
def kept_fit(tmp_path_factory):
    """A `fit` that keeps its models, so that all tests of a file share their training."""
    return partial(train.fit, folder=tmp_path_factory.mktemp("stage"), progress=False)
