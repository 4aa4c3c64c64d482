"""An experiment that compiles nothing, and the ways in which it is started, killed and compared."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import jax
import pytest

from cljax import study
from cljax.study import plain

SCRIPT = '''"""Numbers that need no program: what happens to them is told by environment variables, so that a cell's key does not change with it."""

import os
import signal
import time
from pathlib import Path

import jax
import numpy as np

from cljax import study, train


@train.config
class Config:
    mean: float = 1.0
    scale: int = 1


ARMS = {f"arm {number}": Config(mean=float(number)) for number in range(4)}


def numbers(key):
    return np.asarray(jax.random.key_data(key)).astype(float)


def run(config, key, fit=train.fit):
    if "TRIAL_LOG" in os.environ:
        with open(os.environ["TRIAL_LOG"], "a") as log:
            log.write(f"{config.mean} {os.getpid()}\\n")
    behaviour = os.environ.get(f"TRIAL_{config.mean:.0f}", "")
    if behaviour == "raises":
        raise RuntimeError("this cell fails")
    if behaviour == "leaves":
        raise SystemExit("this cell leaves")
    if behaviour == "dies":
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(float(os.environ.get("TRIAL_SECONDS", 0)))
    x = numbers(key) % 1000 + config.mean * config.scale
    return {"score": x.sum(), "score over steps": x}


CLAIMS = [study.Claim("more is more", study.gain("score", "arm 3", than="arm 0"))]


def figures(report):
    return {"scores": study.scores(report)}


if __name__ == "__main__":
    study.main(run, ARMS, CLAIMS, seeds=3, figures=figures)
'''


def load(path):
    return plain.load_module(str(path.resolve()), "not importable by name")


@pytest.fixture(scope="session")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("experiments") / "trial.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture(scope="session")
def trial(script):
    return load(script)


@pytest.fixture(autouse=True)
def _at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # where the programs of studies are kept
    yield
    jax.config.update("jax_compilation_cache_dir", None)


@pytest.fixture
def start(trial, tmp_path, monkeypatch, capfd):
    """Runs a script's command line in this process: exit code, stdout, stderr."""

    def start(*arguments, module=trial, figures=lambda report: {}):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["trial.py", *arguments])
        code = 0
        try:
            study.main(module.run, module.ARMS, module.CLAIMS, seeds=3, figures=figures)
        except SystemExit as stop:
            code = stop.code
        return code, *capfd.readouterr()

    return start


@pytest.fixture
def launch(script, tmp_path):
    """Starts the script in a process of its own, and in the end leaves none behind."""
    started = []

    def launch(*arguments, path=script, **variables):
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
        environment |= {"HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"} | variables
        process = subprocess.Popen(
            [sys.executable, str(path), *arguments],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield launch
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(condition, process=None, seconds=120):
    """Waits until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it was not so in time"
        time.sleep(0.02)


def alive(pid):
    """Whether a process runs; one that nobody has asked for its status is a zombie, and does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def processes(session):
    """The processes that live in a session, but for its leader."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError, ProcessLookupError):
            if int(name) != session and os.getsid(int(name)) == session and alive(name):
                found.append(int(name))
    return found


def numbers(folder):
    """A report without its times, the machine that made it, and what other tests of this process have read."""
    report = json.loads((folder / "report.json").read_text(), parse_constant=pytest.fail)
    return {name: value for name, value in report.items() if name not in ("seconds", "device", "data")}


@pytest.fixture
def tools():
    """The functions above: test files cannot import this one."""
    return type("tools", (), {name: staticmethod(value) for name, value in globals().items() if callable(value) and not name.startswith("_")})
