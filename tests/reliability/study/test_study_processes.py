"""A script that a launcher starts in several processes: they find each other without a flag, train as one, and the first alone writes and tells."""

import json
import os
import random
import socket

import pytest

from cljax.core import lock

SCRIPT = '''"""A line through points, by gradient descent."""

from functools import partial

import jax
import jax.numpy as jnp
import optax

from cljax import losses, study, train


@train.config
class Config:
    learning_rate: float = 0.1


ARMS = {"slow": Config(0.01), "fast": Config(0.1)}


def objective(slope, batch):
    return losses.mean(jnp.square(slope * batch["x"] - 2 * batch["x"]), axis_name="data")


def step(config, state, batch, key):
    optimiser = optax.sgd(config.learning_rate)
    value, grads = jax.value_and_grad(objective)(state["slope"], batch)
    slope, opt = train.descend(optimiser, grads, state["slope"], state["opt"], axis_name="data")
    return {"slope": slope, "opt": opt, "key": key}, {"loss": value}


def evaluate(key, state):
    return state, {"slope": state["slope"] + 1e-9 * jax.random.normal(key)}


def run(config, key, fit=train.fit):
    state = {"slope": jnp.zeros(()), "opt": optax.sgd(config.learning_rate).init(jnp.zeros(())), "key": key}
    data = train.draws({"x": jax.random.normal(key, (32,))}, 8)
    state, history = fit(key, state, partial(step, config), data, steps=20, after=((5, evaluate),))
    return {"slope": state["slope"], "loss over steps": history["loss"]}


CLAIMS = [study.Claim("faster is closer", study.gain("slope", "fast", than="slow"))]

if __name__ == "__main__":
    study.main(run, ARMS, CLAIMS, seeds=2, figures=lambda report: {})
'''


def slurm(count):
    """What SLURM's `srun` tells each of its processes; the port follows from the job's number."""
    while True:
        job = random.randrange(10**5)
        with socket.socket() as probe:
            if probe.connect_ex(("localhost", job % 2**12 + 65535 - 2**12 + 1)):
                break
    shared = {"SLURM_JOB_ID": str(job), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": str(count), "SLURM_STEP_NUM_NODES": "1"}
    return [shared | {"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)} for number in range(count)]


@pytest.mark.skipif(not os.environ.get("SOAK"), reason="long; run by make soak")
@pytest.mark.parametrize("count, arguments", [(2, []), (4, []), (2, ["--devices", "4"])])
def test_a_script_that_srun_starts_trains_as_one_and_the_first_process_tells(launch, tmp_path, count, arguments):
    path = tmp_path / "line.py"
    path.write_text(SCRIPT)
    alone = launch("--out", "alone", path=path)
    assert alone.wait() == 0, alone.communicate()[1]
    processes = [launch(*arguments, path=path, **variables) for variables in slurm(count)]
    told = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * count, told
    assert ["faster is closer" in out for out, _ in told] == [True] + [False] * (count - 1)  # Gloo has a line of its own in each
    found, wanted = (json.loads((tmp_path / out / "line/report.json").read_text())["arms"] for out in ("runs", "alone"))
    assert found.keys() == wanted.keys()
    for arm in wanted:
        for metric in wanted[arm]:
            assert [pytest.approx(values, rel=1e-5) for values in wanted[arm][metric]["values"]] == found[arm][metric]["values"]


@pytest.mark.skipif(not os.environ.get("SOAK"), reason="long; run by make soak")
def test_where_one_process_cannot_begin_none_does(launch, tmp_path):
    path, folder = tmp_path / "line.py", tmp_path / "runs/line"
    path.write_text(SCRIPT)
    folder.mkdir(parents=True)
    with lock.hold(folder):
        processes = [launch(path=path, **variables) for variables in slurm(2)]
        told = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2] and "is in use: process" in told[0] and "Traceback" not in "".join(told)
    processes = [launch("--workers", "2", path=path, **variables) for variables in slurm(2)]
    told = [process.communicate(timeout=60)[1] for process in processes]
    assert all("must not be given to processes that train as one" in errors for errors in told), told
    assert [process.returncode for process in processes] == [2, 2]


@pytest.mark.skipif(not os.environ.get("SOAK"), reason="long; run by make soak")
def test_a_cell_that_fails_in_one_process_ends_all_and_the_next_start_goes_on(launch, tmp_path):
    path = tmp_path / "line.py"
    path.write_text(SCRIPT.replace("def run(config, key, fit=train.fit):", HOST + "\n\ndef run(config, key, fit=train.fit):\n    unlucky(config)"))
    processes = [launch(path=path, UNLUCKY=variables["SLURM_PROCID"], **variables) for variables in slurm(2)]
    told = [process.communicate(timeout=60)[1] for process in processes]
    assert all(process.returncode not in (0, 2) for process in processes) and "RuntimeError: this host alone" in told[1]
    assert len(list(tmp_path.glob("runs/line/cells/*/result.json"))) == 2 and not list(tmp_path.glob("runs/line/cells/*/error.txt"))
    processes = [launch(path=path, **variables) for variables in slurm(2)]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]


HOST = """
def unlucky(config):
    import os
    if os.environ.get("UNLUCKY") == "1" and config.learning_rate > 0.05:
        raise RuntimeError("this host alone")
"""
