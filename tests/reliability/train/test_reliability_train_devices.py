"""A device more or less changes speed and nothing else: batch norm, queue, EMA and hard negatives are those of the whole batch."""

import functools
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from cljax.train.program import draw_batch

STEPS = 20
CLOSE = 1e-5  # of values around 1 after 20 steps: float32 sums in another order, through Adam and the choice of hardest negatives
LOST = re.compile("another task died|Connection (closed|reset) by peer")  # where it waits for the other, it sees so before the other's silence
SOAK = pytest.mark.skipif(not os.environ.get("SOAK"), reason="long; run by `make soak`")


def mesh(devices):
    return jax.set_mesh(jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)))


def largest(a, b):
    leaves = zip(*(jax.tree.leaves(jax.tree.map(np.asarray, tree)) for tree in (a, b)), strict=True)
    return max(float(np.max(np.abs(x.astype(np.float64) - y), initial=0)) for x, y in leaves)


@pytest.fixture(scope="module")
def alone(problem):
    return problem.fit(steps=STEPS)


@pytest.mark.parametrize("devices", [pytest.param(2, marks=SOAK), 4, pytest.param(8, marks=SOAK)])
def test_shard_map_over_devices_equals_one(problem, alone, devices):
    with mesh(devices):
        spread = problem.fit(steps=STEPS)
    assert len(spread[0]["queue"].keys.sharding.device_set) == devices
    assert largest(alone, spread) < CLOSE
    assert int(spread[0]["queue"].pointer) == STEPS * 16 % 40  # of the global batch


@SOAK
@pytest.mark.parametrize("devices", [2, 4, 8])
def test_ten_refreshed_tables_later_it_still_does(problem, devices):
    """Until, some hundred steps on, rounding makes another negative one of the hardest, and the runs part."""
    one = problem.fit(steps=200)
    with mesh(devices):
        spread = problem.fit(steps=200)
    assert len(one[1]["norm"]) == 10 and largest(one, spread) < 10 * CLOSE


def by_pmap(problem, devices):
    """The steps up to the first hook without `fit`."""
    mapped = jax.pmap(functools.partial(problem.step, 0.3), "data", in_axes=(None, 0, None), devices=jax.devices()[:devices])
    base = jax.random.fold_in(jax.random.key(0), int.from_bytes(hashlib.sha256(b"fit").digest()[:4]))
    state, losses = problem.init(), []
    for t in range(STEPS):
        batch, key = draw_batch(16, ([], {"x": problem.ROWS}), base, t)
        batch = jax.tree.map(lambda leaf: leaf.reshape(devices, -1, *leaf.shape[1:]), batch)
        state, metrics = mapped(state, batch, key)
        assert np.ptp(np.asarray(state["queue"].keys), axis=0).max() == 0  # the same on all
        state = jax.tree.map(lambda leaf: leaf[0], state)
        losses.append(float(np.mean(metrics["loss"])))
    return state, np.array(losses)


@pytest.mark.parametrize("devices", [pytest.param(1, marks=SOAK), pytest.param(2, marks=SOAK), 4, pytest.param(8, marks=SOAK)])
def test_pmap_equals_shard_map(problem, alone, devices):
    state, losses = by_pmap(problem, devices)
    np.testing.assert_allclose(losses, alone[1]["loss"], atol=CLOSE)
    for name in ("params", "stats", "queue", "ema"):
        assert largest(state[name], alone[0][name]) < CLOSE


class Stop(Exception):
    pass


def stop(number, row):
    if number == 2:  # while the chunk after the next one runs
        raise Stop


@pytest.mark.parametrize("before, after", [(4, 1), (1, 4)])
def test_a_run_goes_on_with_another_number_of_devices(problem, alone, tmp_path, before, after):
    with mesh(before), pytest.raises(Stop):
        problem.fit(steps=STEPS, folder=tmp_path, log=stop)
    steps = []
    with mesh(after):
        result = problem.fit(steps=STEPS, folder=tmp_path, log=lambda number, row: steps.append(number))
    assert steps[0] > 2 and len(result[0]["table"].sharding.device_set) == after
    assert largest(result, alone) < CLOSE


def start(problem, folder, steps, environment, processes=2, pause=0):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, problem.__file__, str(folder)]
    options = dict(env=environment | {"XLA_FLAGS": ""}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return [subprocess.Popen([*command, *map(str, (n, processes, port, steps, pause))], **options) for n in range(processes)]


def ended(processes):
    """The steps that each process has told of, once all are over and none has failed."""
    told = [process.communicate(timeout=300) for process in processes]
    assert not any(process.returncode for process in processes), "".join(errors for _, errors in told)
    return [[int(line) for line in out.splitlines() if line.isdecimal()] for out, _ in told]


def read(problem, folder, steps):
    """The result of a run that is over."""
    return problem.fit(steps=steps, folder=folder, log=lambda number, row: pytest.fail("there was a step left"))


def test_a_run_goes_on_in_two_processes_and_back_in_one(problem, alone, environment, tmp_path):
    with pytest.raises(Stop):
        problem.fit(steps=STEPS, folder=tmp_path, log=stop)
    steps, none = ended(start(problem, tmp_path, STEPS - 4, environment))
    assert 2 < steps[0] < steps[-1] == STEPS - 4
    assert not none  # the first one alone tells
    steps = []
    result = problem.fit(steps=STEPS, folder=tmp_path, log=lambda number, row: steps.append(number))
    assert steps == list(range(STEPS - 3, STEPS + 1))
    assert largest(result, alone) < CLOSE


@SOAK
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_equal_one(problem, alone, environment, tmp_path, processes):
    assert ended(start(problem, tmp_path, STEPS, environment, processes))[0] == list(range(1, STEPS + 1))
    assert largest(read(problem, tmp_path, STEPS), alone) < CLOSE


@SOAK
@pytest.mark.parametrize("who", [0, 1])
def test_a_signal_to_one_process_stops_all_and_saves(problem, environment, tmp_path, who):
    processes = start(problem, tmp_path, 10**6, environment)
    wait_for_step(processes[0], 20)
    processes[who].send_signal(signal.SIGTERM)
    (out, errors), _ = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [143, 143], errors
    reached = max(int(path.name.split("-")[0]) for path in (tmp_path / "fit" / "checkpoints").iterdir())
    assert f"SIGTERM after step {reached} of 1000000" in errors


def wait_for_step(process, step):
    """Reads what the first process tells until it has taken more than so many steps."""
    for line in process.stdout:
        if line.strip().isdecimal() and int(line) > step:
            return
    pytest.fail(process.communicate()[1])


def one_dies(problem, folder, steps, environment, who):
    """Starts a run in two processes and kills one of them in the middle."""
    processes = start(problem, folder, steps, environment, pause=0.05)
    wait_for_step(processes[0], 60)
    processes[who].kill()
    _, errors = processes[1 - who].communicate(timeout=60)
    assert processes[1 - who].returncode not in (0, 143) and LOST.search(errors)
    assert processes[who].wait() == -signal.SIGKILL


def test_where_the_first_process_dies_the_other_ends_with_a_message(problem, environment, tmp_path):
    one_dies(problem, tmp_path, 300, environment, 0)


@SOAK
@pytest.mark.parametrize("who", [0, 1])
def test_a_process_that_dies_ends_the_other_within_a_minute_and_costs_no_bit(problem, equal, environment, tmp_path, who):
    ended(start(problem, tmp_path / "whole", 300, environment))
    one_dies(problem, tmp_path / "run", 300, environment, who)
    steps, _ = ended(start(problem, tmp_path / "run", 300, environment))
    assert 1 < steps[0] < 300
    assert equal(read(problem, tmp_path / "run", 300), read(problem, tmp_path / "whole", 300))


@SOAK
def test_an_exception_in_one_process_ends_all_within_a_minute(problem, environment, tmp_path):
    processes = start(problem, tmp_path, 10**6, environment, pause="fails")
    wait_for_step(processes[0], 30)
    (_, errors), (_, of_the_other) = [process.communicate(timeout=60) for process in processes]
    assert processes[0].returncode == 1 and errors.rstrip().endswith("OSError: what befalls one host alone")
    assert processes[1].returncode != 0 and LOST.search(of_the_other)
