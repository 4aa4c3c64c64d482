"""A disk that fills up, folders that vanish, and a person who presses Ctrl-C: what is told is short, and what was saved stays."""

import errno
import functools
import importlib
import itertools
import os
import shutil
import signal
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import train
from cljax.train import checkpoint


def at(step, act):
    def log(number, row):
        if number == step:
            act()

    return log


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("point", ["_orbax", "_digests", "_publish"])
def test_a_full_disk_is_one_line_and_the_checkpoint_before_stays(problem, one, equal, tmp_path, monkeypatch, point, recwarn):
    problem.fit(folder=tmp_path, name="stage-0", steps=40)
    before = checkpoint._found(tmp_path / "stage-0" / "checkpoints")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="/6.-.' can't be written: no space is left on the device; what was") as caught:
        problem.fit(folder=tmp_path, name="stage-0", log=at(45, lambda: patch.setattr(checkpoint, point, full)))
    assert len(str(caught.value).splitlines()) == 1 and not recwarn.list
    assert checkpoint._found(tmp_path / "stage-0" / "checkpoints") == before
    assert not [path for path in (tmp_path / "stage-0" / "checkpoints").iterdir() if path.name.startswith(".")]
    assert equal(problem.fit(folder=tmp_path, name="stage-0"), one)


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)], capture_output=True).returncode:
        pytest.skip("mounting a small disk takes privileges")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_of_a_megabyte_fills_up(problem, one, equal, small_disk):
    problem.fit(folder=small_disk, name="stage-0", steps=40)
    before = checkpoint._found(small_disk / "stage-0" / "checkpoints")
    with open(small_disk / "ballast", "wb") as file, pytest.raises(OSError, match="No space left"):
        for size in (4096, 1):
            while True:
                os.write(file.fileno(), bytes(size))
    with pytest.raises(OSError, match="can't be written: no space is left on the device"):
        problem.fit(folder=small_disk, name="stage-0")
    assert checkpoint._found(small_disk / "stage-0" / "checkpoints") == before
    (small_disk / "ballast").unlink()
    assert equal(problem.fit(folder=small_disk, name="stage-0"), one)


def test_a_disk_that_becomes_read_only_is_one_line(problem, one, equal, small_disk):
    problem.fit(folder=small_disk, name="stage-0", steps=40)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(ValueError, match="folder must be a folder that can be written to, got .*Read-only file system"):
        problem.fit(folder=small_disk, name="stage-0")
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert equal(problem.fit(folder=small_disk, name="stage-0"), one)


@pytest.mark.parametrize("what", [".", "stage-0", "stage-0/checkpoints"])
def test_a_folder_deleted_in_mid_run_is_one_line(problem, tmp_path, what, recwarn):
    with pytest.raises(OSError, match="can't be written: its folder is gone") as caught:
        problem.fit(folder=tmp_path / "out", name="stage-0", log=at(20, lambda: shutil.rmtree(tmp_path / "out" / what)))
    assert len(str(caught.value).splitlines()) == 1 and not recwarn.list


def test_nothing_stays_open_or_behind(problem, tmp_path):
    problem.fit(folder=tmp_path, save_seconds=0)
    before = sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}"))
    for number in range(2):
        problem.fit(folder=tmp_path, save_seconds=0, steps=70 + number)
    after = sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}"))
    assert [name for name in after if str(tmp_path) in name] == [] and len(after) <= len(before) + 1
    assert {path.name for path in (tmp_path / "fit").iterdir() if "events" not in path.name} == {".lock", "checkpoints", "metrics.csv"}
    assert len(list((tmp_path / "fit" / "checkpoints").iterdir())) == 2


class Batches:
    """Batches of the problem's rows for ever; before one of them Ctrl-C is pressed."""

    def __init__(self, rows, press_at=None):
        self.rows, self.press_at, self.step = rows, press_at, 0

    def __next__(self):
        if self.step == self.press_at:
            press()
        self.step += 1
        index = np.arange(16) + 16 * (self.step % 3)
        return {"x": self.rows[index], "index": index}

    def get_state(self):
        return {"step": self.step, "press_at": self.press_at}

    def set_state(self, state):
        self.step = state["step"]


def press():
    os.kill(os.getpid(), signal.SIGINT)


def pressing(function):
    """The function, which presses Ctrl-C when it is called first."""
    calls = itertools.count()

    @functools.wraps(function)
    def pressed(*arguments, **options):
        if next(calls) == 0:
            press()
        return function(*arguments, **options)

    return pressed


POINTS = {
    "before": ("cljax.train.stage", "facts"),
    "reading": ("cljax.train.checkpoint", "load"),
    "compiling": ("cljax.train.fit", "program"),
    "saving": ("cljax.train.checkpoint", "snapshot"),
    "writing": ("cljax.train.checkpoint", "_publish"),
}


@pytest.mark.parametrize("phase", [*POINTS, "hook"])
def test_an_interrupt_is_one_line_in_every_phase(problem, one, equal, tmp_path, monkeypatch, capfd, phase):
    options = {"name": "stage-0", "save_seconds": 0, "folder": tmp_path}
    if phase == "reading":
        problem.fit(steps=20, **options)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt) as caught:
        owner, name = (problem, "table") if phase == "hook" else (importlib.import_module(POINTS[phase][0]), POINTS[phase][1])
        patch.setattr(owner, name, pressing(getattr(owner, name)))
        problem.fit(**options)
    assert caught.value.code == 130
    told(capfd)
    assert equal(problem.fit(**options), one)
    assert capfd.readouterr().err == ""


def told(capfd):
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("SIGINT after step ") and line.endswith("the same command goes on from there")


def test_an_interrupt_while_batches_are_drawn_is_one_line(problem, equal, tmp_path, capfd):
    def run(press_at=None, **options):
        batches = Batches(problem.ROWS, press_at)
        return train.fit(jax.random.key(0), {"sum": 0.0}, problem.light, batches, steps=40, progress=False, save_seconds=0, **options)

    with pytest.raises(KeyboardInterrupt):
        run(17, folder=tmp_path)
    told(capfd)
    assert equal(run(folder=tmp_path), run())
    with pytest.raises(TypeError, match=r"data.get_state\(\) must return dicts, lists and tuples of numbers, .*, got a function"):
        run(test_an_interrupt_while_batches_are_drawn_is_one_line, folder=tmp_path / "other")


def test_a_second_interrupt_acts_at_once(problem, one, equal, tmp_path, capfd):
    with pytest.raises(KeyboardInterrupt) as caught:
        problem.fit(folder=tmp_path, name="stage-0", log=at(20, lambda: (press(), press())))
    assert caught.value.code == 130
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("stopped at once by a second signal")
    assert equal(problem.fit(folder=tmp_path, name="stage-0"), one)


def test_a_nan_stops_at_its_step_and_is_not_saved(problem, tmp_path, recwarn):
    def poison(key, state):
        return {**state, "table": jnp.full_like(state["table"], jnp.nan)}, {"hook": jnp.nan}

    rows = []
    options = {"after": ((10, problem.refresh), (25, poison)), "name": "nan", "log": lambda number, row: rows.append(number), "save_seconds": 0}
    for _ in range(2):
        with pytest.raises(FloatingPointError, match="^metric 'loss' of 'nan' is NaN at step 26; where it may be, pass nan='keep'$"):
            problem.fit(folder=tmp_path, **options)
        last = (tmp_path / "nan" / "metrics.csv").read_text().splitlines()[-1].split(",")
        assert rows[-1] == 26 and last[0] == "26" and "nan" in last
        assert all(int(path.name.split("-")[0]) <= 25 for path in checkpoint._found(tmp_path / "nan" / "checkpoints"))
    state, history = problem.fit(**options, nan="keep")
    assert np.isfinite(history["loss"][:25]).all() and np.isnan(history["loss"][25:30]).all()
    assert not recwarn.list
