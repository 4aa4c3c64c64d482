"""What the tests of all experiments share: the script that a test file is named after."""

import importlib.util
import pathlib
import sys

import pytest

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
