"""The arrows of the house: which room may import which. The contracts stand in pyproject.toml."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"


def lint(folder):
    environment = os.environ | {"PYTHONPATH": str(folder), "NO_COLOR": "1", "COLUMNS": "200"}
    return subprocess.run([sys.executable, "-c", LINT], cwd=folder, env=environment, capture_output=True, text=True)


def test_rooms_import_only_what_they_stand_on():
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


@pytest.mark.parametrize(
    "file, line, complaint",
    [
        ("core/check.py", "from cljax import pairwise", "cljax.core is not allowed to import cljax.pairwise"),
        ("losses/__init__.py", "from cljax import views", "cljax.losses is not allowed to import cljax.views"),
        ("metrics/__init__.py", "from cljax import train", "cljax.metrics is not allowed to import cljax.train"),
        ("study/__init__.py", "from cljax import data", "cljax.study is not allowed to import cljax.data"),
        ("losses/__init__.py", "import optax", "cljax.losses is not allowed to import optax"),
        ("data/__init__.py", "import experiments.contrastive_behaviour", "cljax is not allowed to import experiments"),
    ],
)
def test_a_wrong_import_is_caught(tmp_path, file, line, complaint):
    shutil.copytree(ROOT / "cljax", tmp_path / "cljax", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with open(tmp_path / "cljax" / file, "a") as source:
        source.write(f"\n{line}\n")
    result = lint(tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    assert complaint in result.stdout
