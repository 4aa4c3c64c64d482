"""A run that is killed anywhere, and started again, ends with the bits of one that was not."""

import os
import random
import signal
import subprocess
import sys

import pytest

from cljax.train import checkpoint
from cljax.train.store import Store

SOAK = pytest.mark.skipif(not os.environ.get("SOAK"), reason="long; run by `make soak`")


class Killed(BaseException):
    """Stands for a SIGKILL at this very place: nothing cleans up after it."""


def killed(problem, folder, seed, environment):
    """One process that runs the stages until it is killed, or to the end."""
    command = [sys.executable, problem.__file__, str(folder), str(seed)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert process.returncode in (0, -signal.SIGKILL), process.stderr
    assert "damaged" not in process.stderr and "aside" not in process.stderr
    return process.returncode


def test_two_kills_cost_no_bit(problem, whole, equal, environment, tmp_path):
    codes = [killed(problem, tmp_path, seed, environment) for seed in (1, 2)]
    assert -signal.SIGKILL in codes
    assert equal(problem.run(tmp_path), whole)


@SOAK
def test_twenty_kills_cost_no_bit(problem, whole, equal, environment, tmp_path, capfd):
    kills, runs = [], 1
    for seed in range(1000):
        if killed(problem, tmp_path / str(runs), seed, environment):
            kills.append(seed)
        else:
            runs += 1  # it came to its end
        in_saves = sum(seed % 2 for seed in kills)
        if min(in_saves, len(kills) - in_saves) >= 12:
            break
    with capfd.disabled():
        print(f"\n{len(kills)} kills in {runs} runs, {in_saves} of them in the middle of a save")
    for number in range(1, runs + 1):
        assert equal(problem.run(tmp_path / str(number)), whole)
        assert not [path for path in (tmp_path / str(number)).rglob(".*-*")]


@pytest.mark.parametrize("point", ["snapshot", "_orbax", "pack", "_digests", "_publish", "_complete", "rmtree"])
def test_a_kill_at_any_place_of_a_save_costs_no_bit(problem, one, equal, tmp_path, monkeypatch, point):
    owner = {"pack": checkpoint.record, "rmtree": checkpoint.shutil}.get(point, checkpoint)
    original, calls = getattr(owner, point), []

    def faulty(*arguments, **options):
        calls.append(arguments)
        if len(calls) > 2:
            raise Killed
        return original(*arguments, **options)

    save = Store.save
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Store, "save", lambda self, state, position, wait=False: save(self, state, position, wait=True))  # one after each chunk
        patch.setattr(owner, point, faulty)
        problem.fit(folder=tmp_path, name="stage-0", save_seconds=0)
    assert equal(problem.fit(folder=tmp_path, name="stage-0"), one)
    assert not list(tmp_path.rglob(".*-*"))


def test_what_a_kill_left_half_written_is_swept_away(problem, one, equal, tmp_path):
    problem.fit(folder=tmp_path, name="stage-0", steps=20)
    (tmp_path / "stage-0" / ".metrics.csv-1").write_text("step,")
    (tmp_path / "stage-0" / "checkpoints" / ".40-2-1-x" / "state").mkdir(parents=True)
    assert equal(problem.fit(folder=tmp_path, name="stage-0"), one)
    assert not list(tmp_path.rglob(".*-*"))


def test_sigterm_at_random_steps_of_several_stages_costs_no_bit(problem, whole, equal, tmp_path, capfd):
    assert terminated(problem, whole, equal, tmp_path, capfd, 4) == 4


@SOAK
def test_many_sigterms_at_random_steps_cost_no_bit(problem, whole, equal, tmp_path, capfd):
    times = sum(terminated(problem, whole, equal, tmp_path / str(number), capfd, 6, seed=number + 1) for number in range(10))
    with capfd.disabled():
        print(f"\n{times} times SIGTERM in 10 runs")
    assert times >= 40


def terminated(problem, whole, equal, folder, capfd, times, seed=0):
    """How often a run was stopped, until so many times or its end, what it ends with being what it is to be."""
    chance = random.Random(seed)
    for count in range(times):
        left = chance.randint(3, 50)

        def log(number, row):
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGTERM)

        try:
            result = problem.run(folder, log=log, save_seconds=chance.choice([0, 30]))
        except SystemExit as stop:
            assert stop.code == 143
        else:
            assert equal(result, whole)
            return count
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith("SIGTERM after step ") and line.endswith("the same command goes on from there")
    assert equal(problem.run(folder), whole)
    return times
