"""A sweep that is killed wherever it is, and started again, gives the report of one that was left alone."""

import contextlib
import importlib
import os
import random
import signal
import time

import pytest

soak = pytest.mark.skipif(not os.environ.get("SOAK"), reason="long; run by make soak")


def workers_of(process):
    """The processes of a pool, by the names of their parent and of what they run."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError, IndexError, ValueError):
            with open(f"/proc/{name}/stat") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
            with open(f"/proc/{name}/cmdline") as file:
                if parent == process.pid and "spawn_main" in file.read():
                    found.append(int(name))
    return found


def pids(log):
    return {int(line.split()[1]) for line in log.read_text().splitlines()} if log.exists() else set()


def test_a_sweep_survives_its_workers_and_its_own_death(launch, start, tmp_path, tools):
    """The parent is killed, then a worker of the second start, while a third process is told that the folder is in use."""
    log = tmp_path / "log"
    results = lambda: len(list(tmp_path.glob("runs/trial/cells/*/result.json")))  # noqa: E731
    variables = dict(TRIAL_LOG=str(log), TRIAL_SECONDS="0.3", TRIAL_3="dies")
    first = launch("--workers", "2", **variables)
    tools.wait_for(lambda: results() >= 2, first)
    first.kill()
    first.communicate()
    tools.wait_for(lambda: not tools.processes(first.pid), seconds=20)  # the workers don't outlive it
    assert not any(map(tools.alive, pids(log)))
    second = launch("--workers", "2", **variables | {"TRIAL_3": ""})
    seen = pids(log)
    tools.wait_for(lambda: pids(log) - seen, second)
    code, _, err = start()
    assert code == 2 and f"is in use: process {second.pid} on" in err
    os.kill(next(iter(pids(log) - seen)), signal.SIGKILL)
    out, err = second.communicate(timeout=120)
    assert second.returncode == 0 and "more is more" in out and "Traceback" not in err
    tools.wait_for(lambda: not tools.processes(second.pid), seconds=20)
    assert start("--out", "alone")[0] == 0
    assert tools.numbers(tmp_path / "runs/trial") == tools.numbers(tmp_path / "alone/trial")
    assert not list(tmp_path.glob("runs/trial/**/.*.[0-9]*"))


def test_ctrl_c_while_cells_run_in_order_and_while_the_report_is_drawn(start, tmp_path, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    for module, name, done in [("execute", "_in_order", 0), ("sweep", "_draw", 12), ("main", "expand", 0), ("main", "prepare", 12)]:
        with monkeypatch.context() as patch:
            patch.setattr(importlib.import_module(f"cljax.study.{module}"), name, interrupt)
            code, out, err = start()
        counts = f"{done} of {0 if name == 'expand' else 12} cells"
        assert code == 130 and out == "" and "Traceback" not in err
        assert err.splitlines()[-1] == f"interrupted: {counts} are finished and kept in runs/trial; the same command goes on from there"


class Finalised:
    """Has Ctrl-C come while its finaliser runs."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_in_a_finaliser_is_not_lost(start, trial, monkeypatch):
    def run(config, key):
        value = Finalised()
        del value
        for _ in range(100):
            time.sleep(0.02)
        return {"score": 1.0}

    monkeypatch.setattr(trial, "run", run)
    code, _, err = start()
    assert code == 130 and "Traceback" not in err and "Exception ignored" not in err


@soak
def test_a_sweep_killed_at_random_gives_the_same_report(launch, start, tmp_path, tools):
    """Twenty kills of the parent, of workers, and Ctrl-C to all; every process ends, and the report is that of a sweep that was left alone."""
    assert start("--out", "alone")[0] == 0
    draw, statuses = random.Random(0), []
    for turn in range(60):
        arguments = ["--workers", "2"] if turn % 2 else []
        process = launch(*arguments, TRIAL_SECONDS="1.2")
        deadline = time.monotonic() + draw.uniform(1, 14)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        kind = draw.choice(["parent", "worker", "ctrl-c", "terminate"])
        if process.poll() is None:
            statuses.append(kind)
            if kind == "parent":
                process.kill()
            elif kind == "worker" and (workers := workers_of(process)):
                os.kill(draw.choice(workers), signal.SIGKILL)
                time.sleep(draw.uniform(0, 6))
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGTERM if kind == "terminate" else signal.SIGINT)
        process.communicate(timeout=120)
        tools.wait_for(lambda process=process: not tools.processes(process.pid), seconds=30)
        if process.returncode == 0 and len(statuses) >= 20:
            break
        if process.returncode == 0:  # begin again: more kills are wanted
            assert tools.numbers(tmp_path / "runs/trial") == tools.numbers(tmp_path / "alone/trial")
            (tmp_path / "runs").rename(tmp_path / f"runs-{turn}")
    assert len(statuses) >= 20
    assert start()[0] == 0
    assert tools.numbers(tmp_path / "runs/trial") == tools.numbers(tmp_path / "alone/trial")


@soak
@pytest.mark.parametrize("arguments", [(), ("--workers", "2")])
def test_ctrl_c_at_any_moment_is_two_lines(launch, tmp_path, tools, arguments):
    """From when the script's own code runs: before that, Python imports jax, and its traceback is not ours."""
    for delay in (0.0, 0.1, 0.3, 0.6, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0):
        process = launch(*arguments, "--out", f"runs-{delay}", TRIAL_SECONDS="0.4")
        tools.wait_for((tmp_path / f"runs-{delay}/trial/cells.json").exists, process)
        time.sleep(delay)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        told = process.returncode == -signal.SIGINT and "\nreport " in out  # behind the script's last line Python takes itself down
        assert (process.returncode in (0, 130) or told) and "Traceback" not in err, (delay, err)
        if process.returncode == 130:
            lines = [line for line in err.replace("\r", "\n").splitlines() if line.strip() and "cell" not in line.partition("|")[0] + line[:6]]
            assert len([line for line in err.splitlines() if line.startswith("interrupted: ")]) == 1, (delay, err)
            assert len([line for line in lines if "|" not in line]) <= 2, (delay, err)
        tools.wait_for(lambda process=process: not tools.processes(process.pid), seconds=30)


@soak
def test_loky_and_dask_lose_nothing_with_a_worker(trial, tmp_path, tools, monkeypatch):
    import distributed
    import loky

    from cljax import study

    alone = study.sweep(trial.run, trial.ARMS, seeds=3)
    monkeypatch.setenv("TRIAL_SECONDS", "0.5")
    log = tmp_path / "log"
    monkeypatch.setenv("TRIAL_LOG", str(log))

    def kill_one():
        seen = pids(log)
        tools.wait_for(lambda: len(pids(log) - seen) >= 1)
        time.sleep(0.7)
        os.kill(next(iter(pids(log) - seen)), signal.SIGKILL)

    def swept(executor, out):
        import threading

        killer = threading.Thread(target=kill_one)
        killer.start()
        frame = study.sweep(trial.run, trial.ARMS, seeds=3, executor=executor, out=tmp_path / out)
        killer.join()
        return frame

    options = dict(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50)
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster, set_as_default=False) as client:
        assert swept(client.get_executor(pure=False), "dask")["score"].equals(alone["score"])
    log.unlink()
    assert swept(loky.get_reusable_executor(2), "loky")["score"].equals(alone["score"])
    loky.get_reusable_executor(2).shutdown(kill_workers=True)
