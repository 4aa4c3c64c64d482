"""What the next start of a study does: failed cells again, changed ones anew, finished ones on demand; and never two processes at once."""

import concurrent.futures
import importlib
import json
import os
import subprocess
import sys
import time

import pytest

from cljax.core import lock, provenance
from cljax.study import cells, execute, executors, files, grid, keys, programs


def test_failed_cells_are_in_the_table_and_the_next_start_runs_them_alone(start, tmp_path, tools, monkeypatch):
    log = tmp_path / "log"
    monkeypatch.setenv("TRIAL_LOG", str(log))
    with monkeypatch.context() as patch:
        patch.setenv("TRIAL_1", "raises")
        patch.setenv("TRIAL_2", "leaves")
        code, out, err = start("--seeds", "2")
    assert code == 1 and "4 of 8 cells failed; the same command tries them again" in err
    report, table = json.loads((tmp_path / "runs/trial/report.json").read_text()), (tmp_path / "runs/trial/table.md").read_text()
    assert [entry["reason"] for entry in report["failed"]] == ["RuntimeError: this cell fails"] * 2 + ["SystemExit: this cell leaves"] * 2
    assert "| arm 1 | failed |" in table and "| arm 1 | 0, 1 | RuntimeError: this cell fails |" in table
    assert "arm 1  failed" in out and "this cell leaves" in out
    assert len(log.read_text().splitlines()) == 8
    assert start("--seeds", "2")[0] == 0
    again = log.read_text().splitlines()[8:]
    assert sorted(line.split()[0] for line in again) == ["1.0"] * 2 + ["2.0"] * 2
    assert start("--seeds", "2", "--out", "fresh")[0] == 0
    assert tools.numbers(tmp_path / "runs/trial") == tools.numbers(tmp_path / "fresh/trial")
    assert not list(tmp_path.glob("runs/trial/cells/*/error.txt"))


def test_a_study_of_which_nothing_succeeds_says_so_in_its_table(start, tmp_path, monkeypatch):
    monkeypatch.setenv("TRIAL_1", "raises")
    code, out, _ = start("--seeds", "1", "--arm", "arm 1")
    assert code == 1 and "arm 1  failed" in out and "| arm 1 | failed |" in (tmp_path / "runs/trial/table.md").read_text()


def test_another_script_begins_anew_and_says_what_has_changed(start, script, tmp_path, tools):
    (tmp_path / "neighbour.py").write_text("OFFSET = 1\n")
    copy = tmp_path / "trial.py"
    copy.write_text(script.read_text().replace("import jax\n", "import jax\nimport neighbour\n", 1))
    sys.path.insert(0, str(tmp_path))
    try:
        module = tools.load(copy)
    finally:
        sys.path.remove(str(tmp_path))
    assert start("--seeds", "2", module=module)[2].count("changed") == 0
    half = json.loads((tmp_path / "runs/trial/cells.json").read_text())[0]["key"]
    (tmp_path / f"runs/trial/cells/{half}/result.json").unlink()
    (tmp_path / "neighbour.py").write_text("OFFSET = 2\n")  # a module that the script imports from its own folder
    code, _, err = start("--seeds", "2", module=module)
    lines = [line for line in err.splitlines() if "changed" in line]
    assert code == 0 and len(lines) == 2
    assert f"the script changed since arm 0, seed 0, was half done: begun anew; what there was is kept in {tmp_path}/runs/trial/cells/{half}" in lines
    assert f"the script changed since 7 cells were finished: begun anew; what there was is kept in {tmp_path}/runs/trial/cells" in lines
    assert (tmp_path / f"runs/trial/cells/{half}/config.json").exists()
    assert "changed" not in start("--seeds", "2", module=module)[2]


def test_another_version_of_the_package_begins_anew(start, tmp_path, monkeypatch):
    start("--seeds", "1", "--arm", "arm 0")
    monkeypatch.setattr(provenance, "package_digest", lambda: "another")
    err = start("--seeds", "1", "--arm", "arm 0")[2]
    assert "the source of cljax changed since arm 0, seed 0, was finished: begun anew" in err
    assert len(list(tmp_path.glob("runs/trial/cells/*/result.json"))) == 2


def test_restart_sets_finished_cells_aside_and_deletes_nothing(start, tmp_path, monkeypatch):
    monkeypatch.setenv("TRIAL_LOG", str(tmp_path / "log"))
    start("--seeds", "1")
    for count in (1, 2):
        code, _, err = start("--seeds", "1", "--arm", "arm 0", "--restart")
        assert code == 0 and f"1 cell set aside in {tmp_path}/runs/trial/aside" in err
        assert len(list(tmp_path.glob("runs/trial/aside/*/result.json"))) == count
    assert len((tmp_path / "log").read_text().splitlines()) == 6


def test_a_half_done_cell_of_other_data_is_set_aside(tmp_path, capsys):
    folder = tmp_path / "trial/cells/key"

    def reads(digest, fails=False):
        def run(config, key):
            provenance.record("rows", digest=digest)
            if fails:
                (folder / "checkpoint").write_text(digest)
                raise RuntimeError("killed, say")
            return {"score": float((folder / "checkpoint").exists())}

        return run

    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    cells.run_cell(reads("a", fails=True), None, 0, folder)
    assert cells.run_cell(reads("a"), None, 0, folder)["metrics"] == {"score": 1.0}
    assert capsys.readouterr().err == ""
    anew = cells.run_cell(reads("b"), None, 0, folder)
    assert anew["metrics"] == {"score": 0.0} and anew["data"]["rows"] == {"digest": "b"}
    assert "rows" not in provenance.recorded()  # it is the cell's own, not that of the next one in this process
    assert f"the data set 'rows' has changed: what was half done is kept in {tmp_path}/trial/aside/key-1" in capsys.readouterr().err
    assert (tmp_path / "trial/aside/key-1/checkpoint").read_text() == "a" and (folder / "config.json").exists()


@pytest.mark.errors
def test_two_processes_do_not_share_a_folder_and_a_dead_one_holds_nothing(start, tmp_path):
    folder = tmp_path / "runs/trial"
    folder.mkdir(parents=True)
    code = f"import fcntl, sys, time\nsys.path.insert(0, {os.getcwd()!r})\nfrom pathlib import Path\n"
    code += "import importlib.util as u\ns = u.spec_from_file_location('lock', sys.argv[1])\nm = u.module_from_spec(s)\ns.loader.exec_module(m)\n"
    code += "with m.hold(Path(sys.argv[2])):\n    print('held', flush=True)\n    time.sleep(100)\n"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, lock.__file__, str(folder)],
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        status, out, err = start()
        assert status == 2 and out == "" and len(err.splitlines()) == 1
        assert f"is in use: process {holder.pid} on {os.uname().nodename}, since " in err and str(folder) in err
        assert not (folder / "cells.json").exists()
    finally:
        holder.kill()
        holder.communicate()
    assert start("--seeds", "1")[0] == 0
    with lock.hold(folder), pytest.raises(lock.Held, match=f"process {os.getpid()} on"), lock.hold(folder):
        pass


class Fragile(concurrent.futures.ThreadPoolExecutor):
    """A pool of two workers that breaks, with all that runs in it, wherever the cell of seed 0 runs; its cells take a while."""

    broken = False

    def submit(self, work, source, config, seed, *rest):
        if self.broken:
            raise concurrent.futures.BrokenExecutor("dead")
        self.broken = seed == 0
        return super().submit(self.work, work, source, config, seed, *rest)

    def work(self, work, source, config, seed, *rest):
        time.sleep(0.05)
        if self.broken:
            raise concurrent.futures.BrokenExecutor("dead")
        return work(source, config, seed, *rest)


def test_a_cell_that_kills_its_workers_does_not_take_its_neighbours_with_it(trial, tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "renewed", lambda executor, own: (Fragile(2), own))
    todo = grid.expand(trial.run, {"arm": trial.Config()}, {}, 5)
    results, _ = execute.execute(trial.run, todo, tmp_path, executor=Fragile(2))
    assert results[todo[0].key]["error"].startswith("the worker process died 4 times")
    assert all("metrics" in results[cell.key] for cell in todo[1:])


def test_an_engine_that_gives_up_on_a_cell_costs_that_cell_alone(trial, tmp_path):
    class Lossy(concurrent.futures.ThreadPoolExecutor):
        def submit(self, work, source, config, seed, *rest):
            if seed != 1:
                return super().submit(work, source, config, seed, *rest)
            future = concurrent.futures.Future()
            future.cancel()
            future.set_running_or_notify_cancel()
            return future

    todo = grid.expand(trial.run, {"arm": trial.Config()}, {}, 3)
    results, _ = execute.execute(trial.run, todo, tmp_path, executor=Lossy(2))
    assert "CancelledError" in results[todo[1].key]["error"] and "CancelledError" in (tmp_path / todo[1].key / "error.txt").read_text()
    assert [("metrics" in results[cell.key]) for cell in todo] == [True, False, True]


def test_cells_run_on_a_cluster_that_is_there(start, tmp_path, tools):
    distributed = pytest.importorskip("distributed")
    options = dict(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None, silence_logs=50)
    with distributed.LocalCluster(**options) as cluster:
        code, _, err = start("--cluster", cluster.scheduler_address)
        assert code == 0, err
    assert start("--out", "here")[0] == 0
    assert tools.numbers(tmp_path / "runs/trial") == tools.numbers(tmp_path / "here/trial")


@pytest.mark.errors
def test_a_cluster_that_is_not_there_is_named(start, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    code, _, err = start("--cluster", "tcp://127.0.0.1:1")
    assert code == 2 and "pip install 'cljax[cluster]'" in err
    monkeypatch.undo()


def test_help_tells_what_the_exit_status_means(start):
    code, out, _ = start("--help")
    assert code == 0 and "exit status: 0  done" in out and "another process works in the folder" in out


def test_a_reader_that_leaves_early_is_no_error(monkeypatch):
    say = importlib.import_module("cljax.study.main")._say  # the package's `main` is the function
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        say("text\n" * 10_000)
        say("more")


def test_old_programs_are_dropped_by_age_and_by_size(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert programs.prune_programs() == 0
    folder = tmp_path / ".cache/cljax/jax"
    folder.mkdir(parents=True)
    now = time.time()
    for age in range(6):
        (folder / f"{age}-cache").write_bytes(bytes(100))
        os.utime(folder / f"{age}-cache", (now - age * 86400,) * 2)
    assert programs.prune_programs(size=10**6, days=4.5) == 1
    assert programs.prune_programs(size=250, days=90) == 0  # once a day is enough
    assert programs.prune_programs(size=250, days=90, every=0) == 3
    assert sorted(path.name for path in folder.glob("*-cache")) == ["0-cache", "1-cache"]


def test_a_kept_result_is_known_by_its_digest(tmp_path):
    files.keep(tmp_path, {"metrics": {"a": 0.1, "b": [float("nan"), 1e300]}, "data": {}, "device": "", "seconds": 1.0})
    text = (tmp_path / "result.json").read_text()
    assert files.finished(tmp_path)["metrics"]["a"] == 0.1
    damaged = []
    (tmp_path / "result.json").write_text(text.replace("0.1", "0.3"))
    assert files.finished(tmp_path, damaged.append) is None and damaged == [tmp_path / "result.json"]


def test_the_key_of_a_cell_is_that_of_its_facts(trial):
    facts = keys.facts(trial.run, trial.Config(), 0)
    assert keys.key_of(facts) == keys.cell_key(trial.run, trial.Config(), 0)
    assert set(facts) == {"config", "seed", "run", "script", "package", "jax", "population"}
