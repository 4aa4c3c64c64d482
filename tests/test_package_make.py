"""The Makefile: which Python it takes, and which environments it trusts."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
MAKE = shutil.which("make")
pytestmark = pytest.mark.skipif(MAKE is None, reason="make is not installed")


@pytest.fixture
def make(tmp_path):
    """Runs make in a folder with the Makefile, where PATH holds the shell's tools and what the test puts into `bin/`."""
    (tmp_path / "tests").mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements.txt", "tests/floor.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    for tool in ("sh", "touch", "mkdir", "rm", "mv", "test", "echo"):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))

    def run(*arguments):
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "MAKEFLAGS", "MAKELEVEL")}
        return subprocess.run([MAKE, *arguments], cwd=tmp_path, env=environment | {"PATH": str(tmp_path / "bin")}, capture_output=True, text=True)

    return run


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{shutil.which('sh')}\n{text}\n")
    path.chmod(0o755)


def python_of_version(path, version):
    """Answers as a Python of that version would."""
    script(path, f'case "$2" in *print*) echo {version};; *) exit 0;; esac')


def test_the_first_python_that_runs_and_is_new_enough_is_taken(make, tmp_path):
    script(tmp_path / "bin/python3.11", "echo 'command not found' >&2; exit 127")
    script(tmp_path / "bin/python3.12", "exit 1")  # answers no to: from 3.11 on?
    (tmp_path / "bin/python3.13").symlink_to(sys.executable)
    (tmp_path / "bin/python3").symlink_to(sys.executable)
    result = make("-n", "demo")
    assert "|| python3.13 -m venv .venv\n" in result.stdout, result.stderr


@pytest.mark.parametrize("arguments", [[], ["PYTHON=python3.12"]])
def test_without_a_python_the_error_is_one_line(make, tmp_path, arguments):
    script(tmp_path / "bin/python3.12", "exit 1")
    result = make("demo", *arguments)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert ("PYTHON=python3.12 does not run, is older than 3.11" if arguments else "No Python from 3.11 on") in line
    assert not (tmp_path / ".venv").exists()


def test_another_version_gets_an_environment_of_its_own(make, tmp_path):
    python_of_version(tmp_path / ".venv/bin/python", "3.11")
    python_of_version(tmp_path / "bin/python3.13", "3.13")
    python_of_version(tmp_path / "bin/other", "3.11")
    assert "\n.venv-3.13/bin/python -m pytest" in make("-n", "test", "PYTHON=python3.13").stdout
    assert "\n.venv/bin/python -m pytest" in make("-n", "test", "PYTHON=other").stdout


def test_an_environment_that_is_whole_is_used_and_one_that_was_cut_off_is_made_anew(make, tmp_path):
    python_of_version(tmp_path / ".venv/bin/python", "3.11")
    (tmp_path / ".venv/ok").touch()
    run = ".venv/bin/python experiments/contrastive_behaviour.py --workers\n"
    assert make("-n", "demo").stdout == run
    python_of_version(tmp_path / "bin/python3.11", "3.11")
    (tmp_path / ".venv/installing").touch()
    os.utime(tmp_path / ".venv/installing", (2**32, 2**32))  # begun after the stamp was written
    commands = make("-n", "demo").stdout
    assert commands.startswith("test ! -e .venv/installing || rm -rf .venv\n") and "pip install" in commands and commands.endswith(run)


def test_the_floor_has_an_environment_of_its_own_and_leaves_the_first_one_alone(make, tmp_path):
    python_of_version(tmp_path / "bin/python3.11", "3.11")
    for room in ("losses", "experiments", "reliability"):
        (tmp_path / "tests" / room).mkdir()
    *install, run = make("-n", "floor").stdout.splitlines()
    assert run == ".venv-floor/bin/python -m pytest -n auto --few-cases tests/losses/"
    assert all(".venv/" not in line for line in install) and install[-1] == "mv .venv-floor/installing .venv-floor/ok"
    (command,) = (line for line in install if "uv pip install" in line)
    assert command.count("-c tests/floor.txt -e '.[dev]'") == 2  # by uv, and by pip where it isn't there
    python_of_version(tmp_path / ".venv-floor/bin/python", "3.11")
    (tmp_path / ".venv-floor/ok").touch()
    assert make("-n", "floor").stdout == run + "\n"


def test_the_floor_is_what_the_requirements_say():
    pins = re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "tests/floor.txt").read_text(), re.MULTILINE)
    required = dict(re.findall(r"^([\w-]+)>=(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    assert {"jax", "jaxlib", "flax", "numpy"} <= dict(pins).keys()
    assert all(version == required["jax" if name == "jaxlib" else name] for name, version in pins)


def test_the_long_tests_are_asked_for_by_name(make, tmp_path):
    python_of_version(tmp_path / "bin/python3.11", "3.11")
    assert make("-n", "soak").stdout.endswith("\nSOAK=1 .venv/bin/python -m pytest tests/reliability -n auto\n")


def test_the_benchmarks_are_one_table(make, tmp_path):
    python_of_version(tmp_path / "bin/python3.11", "3.11")
    assert make("-n", "bench").stdout.endswith("\n.venv/bin/python benchmarks\n")
