"""The command line of an experiment, its files, and the same study from Python."""

import concurrent.futures
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from cljax import study
from cljax.study import executors
from cljax.study.__main__ import command


@pytest.fixture
def start(tiny, tmp_path, monkeypatch, capsys):
    """Runs the script's command line in this process: exit code, stdout, stderr."""

    def start(*arguments, run=tiny.run, claims=tiny.CLAIMS, **options):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["tiny.py", *arguments])
        code = 0
        try:
            study.main(run, tiny.ARMS, claims, **({"full": tiny.FULL, "seeds": 2, "figures": quick} | options))
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return start


def quick(built):
    return {"quick": study.scores(built, metrics="score", arms=[next(iter(built["arms"]))])}


def report(folder):
    return json.loads((folder / "runs/tiny/report.json").read_text(), parse_constant=pytest.fail)


def test_a_study_writes_report_table_and_pictures(start, tmp_path):
    code, out, _ = start(figures=None)
    built = report(tmp_path)
    assert code == 0
    assert list(built) == ["experiment", "seeds", "arms", "claims", "failed", "data", "versions", "device", "seconds"]
    assert built["experiment"] == "tiny" and built["seeds"] == 2 and list(built["arms"]) == ["plain", "better", "quiet"]
    score, curve = (built["arms"]["better"][name] for name in ("score", "score over steps"))
    assert list(score) == ["values", "mean", "interval"] and len(score["values"]) == 2
    assert score["mean"] == pytest.approx(sum(score["values"]) / 2)
    assert len(curve["values"]) == 2 and len(curve["values"][0]) == 8 and len(curve["mean"]) == 8 and len(curve["interval"]) == 8
    assert score["mean"] == pytest.approx(np.asarray(curve["values"])[:, -1].mean() / 8, rel=1e-5)
    assert list(built["claims"][0]) == ["name", "values", "mean", "interval", "at_least", "at_most", "expected", "verdict"]
    assert [claim["verdict"] for claim in built["claims"]] == ["holds", "contradicted", "holds"]
    assert built["claims"][0]["mean"] == pytest.approx(1, abs=1e-5) and built["claims"][0]["expected"] == 1.5
    assert built["versions"]["cljax"] and "cpu" in built["device"] and built["seconds"] > 0
    table = (tmp_path / "runs/tiny/table.md").read_text()
    for text in ("| arm | score |", "± ", "| holds | better is better |", "1.5, not met", "![scores](scores.png)", "`python tiny.py`"):
        assert text in table
    for text in ("contradicted", "plain beats better", "runs/tiny/report.json", "runs/tiny/curves.png"):
        assert text in out
    assert max(map(len, out.splitlines())) <= 120
    for name in ("scores", "curves", "claims"):
        png = (tmp_path / f"runs/tiny/{name}.png").read_bytes()
        assert png.startswith(b"\x89PNG") and len(png) > 10_000


def test_finished_cells_are_not_run_again(start, tmp_path):
    log = tmp_path / "log"
    setting = ("--set", f"log={log}")
    start("--arm", "plain", *setting)
    first, written = report(tmp_path), os.stat(tmp_path / "runs/tiny/quick.png").st_mtime_ns
    assert len(log.read_text().splitlines()) == 2
    start("--arm", "plain", *setting)
    assert len(log.read_text().splitlines()) == 2
    assert report(tmp_path) == first and os.stat(tmp_path / "runs/tiny/quick.png").st_mtime_ns == written
    start(*setting, "--seeds", "3")  # one more seed of the same arm, three of the others
    assert len(log.read_text().splitlines()) == 2 + 1 + 6


def test_settings_make_a_grid_and_claims_are_judged_at_each_point(start, tmp_path):
    code, *_ = start("--set", "optimiser.learning-rate=0.1,0.2", "--arm", "plain", "--arm", "better")
    built = report(tmp_path)
    assert code == 0
    assert list(built["arms"]) == [f"{arm}[optimiser.learning_rate={rate}]" for rate in (0.1, 0.2) for arm in ("plain", "better")]
    names = [f"{name}[optimiser.learning_rate={rate}]" for name in ("better is better", "plain beats better") for rate in (0.1, 0.2)]
    assert [claim["name"] for claim in built["claims"]] == [*names, "quiet is about one"]
    assert built["claims"][1]["mean"] == pytest.approx(2 * built["claims"][0]["mean"], rel=1e-5)
    assert built["claims"][-1]["values"] == [None, None] and built["claims"][-1]["verdict"] == "not shown"
    start("--set", "size=4")
    assert [claim["name"] for claim in report(tmp_path)["claims"]] == ["better is better", "plain beats better", "quiet is about one"]


def test_a_cell_that_fails_is_null_and_the_rest_goes_on(start, tmp_path):
    code, _, err = start("--set", "kind=fails")
    built = report(tmp_path)
    assert code == 1
    assert built["arms"]["better[kind=fails]"] == {} and len(built["arms"]["plain[kind=fails]"]["score"]["values"]) == 2
    assert built["claims"][0]["values"] == [None, None] and built["claims"][2]["verdict"] == "holds"
    assert "failed: better[kind=fails], seed 1: RuntimeError: this arm fails" in err and "2 of 6 cells failed" in err
    assert len(list(tmp_path.glob("runs/tiny/cells/*/error.txt"))) == 2


def test_numbers_that_are_not_finite_are_null(tmp_path):
    frame = study.sweep(diverges, {"a": Nothing()}, seeds=2, out=tmp_path)
    built = json.loads((tmp_path / "test_study_main/report.json").read_text(), parse_constant=pytest.fail)
    assert built["arms"]["a"]["score"] == {"values": [None, 1.0], "mean": None, "interval": None}
    assert built["arms"]["a"]["curve"]["mean"] == [1.0, None]
    assert np.isnan(frame["score"][0]) and np.isposinf(study.load(tmp_path)["curve"][1][1])


@dataclasses.dataclass(frozen=True)
class Nothing:
    nothing: int = 0


def diverges(config, key):
    seed = int(np.asarray(key_data(key))[-1])
    return {"score": float("nan") if seed == 0 else 1.0, "curve": [1.0, float("inf")]}


def key_data(key):
    import jax

    return jax.random.key_data(key)


def test_full_is_one_arm(start, tmp_path):
    code, *_ = start("--full", "--seeds", "1")
    built = report(tmp_path)
    assert code == 0 and list(built["arms"]) == ["full"] and len(built["arms"]["full"]["score over steps"]["mean"]) == 64
    assert built["arms"]["full"]["score"]["interval"] is None
    assert {claim["verdict"] for claim in built["claims"]} == {"not shown"}


def test_list_names_arms_fields_and_claims_and_runs_nothing(start, tmp_path):
    code, out, _ = start("--list")
    assert code == 0 and not (tmp_path / "runs").exists()
    for text in (
        "better  mean=2.0",
        "full    (--full)  size=64",
        "optimiser.learning_rate  0.1",
        "int | None",
        "better is better: at least 0, expected 1.5",
    ):
        assert text in out


@pytest.mark.errors
@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--sed", "3"], "unknown flag '--sed'; did you mean '--seeds'"),
        (["--arm", "bettr"], "did you mean 'better'"),
        (["--set", "men=1"], "did you mean 'mean'"),
        (["--set", "mean=high"], "mean must be float, got 'high'"),
        (["--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["--seeds", "two"], "invalid int value"),
        (["--workers", "0"], "workers must be at least 1, got 0"),
        (["--devices", "0"], "--devices must be at least 1, got 0"),
        (["--devices", "2", "--workers", "2"], "--devices are those of one process"),
        (["plain"], "unknown argument 'plain'"),
        (["--full", "--arm", "plain"], "--arm must not be given"),
        (["--out", "/proc/nowhere"], "out must be a folder that can be written, got '/proc/nowhere'"),
        (["--data-dir", "/proc/nowhere"], "--data-dir must be a folder, got '/proc/nowhere', where there is none and none can be made"),
    ],
)
def test_a_wrong_argument_is_named_and_nothing_is_run(start, tmp_path, monkeypatch, arguments, words):
    monkeypatch.setenv("CLJAX_DATA", "elsewhere")  # which --data-dir changes
    code, out, err = start(*arguments)
    assert code == 2 and words in err and "Traceback" not in err and out == ""
    assert not list(tmp_path.glob("runs/*/report.json"))


@pytest.mark.errors
def test_a_run_that_returns_no_metrics_stops_the_study(start, tiny):
    code, _, err = start(run=tiny.bad)
    assert code == 1 and "run must return {metric: float or 1-D array}, got 'score' = an array of shape [2, 2]" in err and "Traceback" not in err
    with pytest.raises(ValueError, match="run must return"):
        study.sweep(tiny.bad, tiny.ARMS, seeds=1)


def test_a_mistake_in_a_claim_does_not_cost_the_report(start, tmp_path):
    code, _, err = start(claims=[study.Claim("wrong", study.gain("scroe", "better", than="plain"))])
    assert code == 1 and "claim 'wrong' could not be evaluated: KeyError: 'scroe'" in err
    assert report(tmp_path)["claims"][0]["verdict"] == "not shown"


def test_a_claim_that_does_not_apply_to_what_was_set_says_so(start, tmp_path):
    claims = [study.Claim("curve", lambda arms: arms["better"]["score over steps"].mean())]
    code, out, err = start("--seeds", "1", "--set", "kind=trained", claims=claims)
    assert code == 0 and "could not be evaluated" not in err
    for text in (out, (tmp_path / "runs/tiny/table.md").read_text()):
        assert "does not apply: no arm measures 'score over steps' here" in text
    assert start("--seeds", "1", "--set", "kind=plain,trained", claims=claims)[0] == 0
    assert [(entry["name"], "lacks" in entry) for entry in report(tmp_path)["claims"]] == [("curve[kind=plain]", False)]


def test_a_scripts_own_figures_are_drawn_and_a_broken_one_costs_nothing(start, tmp_path):
    start(figures=lambda built: {"mine": study.trends(built, "score", {"arms": {1: "plain", 2: "better"}}, xlabel="mean")})
    assert [path.name for path in tmp_path.glob("runs/tiny/*.png")] == ["mine.png"]
    code, out, err = start("--seeds", "1", figures=lambda built: {"mine": built["no such arm"]})
    assert code == 0 and "KeyError: 'no such arm'" in err and "scores.png" in out and not (tmp_path / "runs/tiny/mine.png").exists()
    code, _, err = start("--arm", "better", "--set", "kind=fails", figures=lambda built: pytest.fail("there is nothing to draw"))
    assert code == 1 and "default pictures" not in err


def test_devices_change_no_result(start, tmp_path):
    options = ("--arm", "plain", "--seeds", "2", "--set", "kind=trained", "--restart")
    results = []
    for count in ("1", "4"):
        code, *_ = start(*options, "--devices", count)
        assert code == 0
        results.append(report(tmp_path)["arms"])
    (one,), (four,) = (list(arms.values()) for arms in results)
    np.testing.assert_allclose(four["score"]["mean"], one["score"]["mean"], rtol=1e-6)
    np.testing.assert_allclose(four["loss over steps"]["mean"], one["loss over steps"]["mean"], rtol=1e-5)


@pytest.mark.errors
def test_more_devices_than_there_are_is_an_error(start):
    assert jax.device_count() == 8  # once they are counted their number stays
    code, out, err = start("--devices", "9")
    assert code == 2 and "--devices must be at most the 8 that are here (cpu), got 9" in err and out == ""


def test_data_dir_reaches_the_data(start, tmp_path, monkeypatch):
    monkeypatch.setenv("CLJAX_DATA", "elsewhere")
    start("--arm", "plain", "--seeds", "1", "--data-dir", "sets")
    assert os.environ["CLJAX_DATA"] == str(tmp_path / "sets")


@pytest.mark.errors
def test_main_checks_what_the_script_gives_it(tiny):
    for arguments, error, words in [
        ((tiny.run, {}, []), ValueError, "arms must name at least one"),
        ((tiny.run, {"a": 3}, []), TypeError, "arms must hold configs"),
        ((tiny.run, tiny.ARMS, [tiny.CLAIMS[0]] * 2), ValueError, "claims must have different names, got twice: 'better is better'"),
        ((tiny.run, tiny.ARMS, [max]), TypeError, "claims must hold Claims"),
        (("run", tiny.ARMS, []), TypeError, "run must be a function"),
        ((tiny.run.__globals__["study"].ratio, tiny.ARMS, []), ValueError, "run must accept (config, key)"),
    ]:
        with pytest.raises(error) as caught:
            study.main(*arguments)
        assert words in str(caught.value)


@pytest.mark.errors
def test_sweep_checks_its_arguments(tiny, tmp_path):
    def nested(config, key):
        return {"score": 0.0}

    (tmp_path / "file").write_text("")
    for options, error, words in [
        (dict(seeds=0), ValueError, "seeds must be at least 1, got 0"),
        (dict(seeds=1.5), TypeError, "seeds must be an integer"),
        (dict(seeds=1, grid={"men": [1.0]}), ValueError, "did you mean 'mean'"),
        (dict(seeds=1, grid={"mean": "1,2"}), TypeError, "grid['mean'] must be a list"),
        (dict(seeds=1, grid={"mean": []}), ValueError, "at least one value"),
        (dict(seeds=1, grid={"mean": ["x"]}), ValueError, "mean must be float, got 'x'"),
        (dict(seeds=1, grid=[1]), TypeError, "grid must be a dict"),
        (dict(seeds=1, executor="threads"), TypeError, "executor must be a concurrent.futures.Executor"),
        (dict(seeds=1, out=tmp_path / "file"), ValueError, "out must be a folder that can be written"),
    ]:
        with pytest.raises(error) as caught:
            study.sweep(tiny.run, tiny.ARMS, **options)
        assert words in str(caught.value)
    with concurrent.futures.ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="top level"):
        study.sweep(nested, tiny.ARMS, seeds=1, executor=pool)


def test_sweep_and_load_give_the_same_table(tiny, tmp_path):
    arms = {name: tiny.ARMS[name] for name in ("plain", "quiet")}
    frame = study.sweep(tiny.run, arms, seeds=2, grid={"mean": [1.0, 3.0], "widths": [(4, 2), (8,)], "hardest": [None]}, out=tmp_path)
    assert list(frame.columns) == ["arm", "seed", "mean", "widths", "hardest", "score", "score over steps"] and len(frame) == 16
    assert frame["widths"][2] == (4, 2) and frame["mean"][4 * 2] == 3.0
    assert frame.loc[(frame["arm"] == "quiet") & (frame["mean"] == 3), "score"].unique() == [3.0]
    for folder in (tmp_path, tmp_path / "tiny"):
        loaded = study.load(folder)
        assert list(loaded.columns) == list(frame.columns)
        assert loaded.drop(columns="score over steps").equals(frame.drop(columns="score over steps"))
        assert all(np.array_equal(a, b) for a, b in zip(loaded["score over steps"], frame["score over steps"], strict=True))
    assert (tmp_path / "tiny/scores.png").exists()


def test_a_failed_cell_is_nan_in_the_table(tiny):
    frame = study.sweep(tiny.run, tiny.ARMS, seeds=1, grid={"kind": ["fails"]})
    assert np.isnan(frame["score"][1]) and frame["score over steps"][1] is None and frame["score"][2] == 1.0


@pytest.mark.errors
def test_load_says_what_it_found(tmp_path):
    with pytest.raises(ValueError, match="in which there is none"):
        study.load(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cells.json").write_text("[]")
    with pytest.raises(ValueError, match="several experiments: one, two"):
        study.load(tmp_path)


def test_one_page_over_all_experiments(start, tmp_path, capsys):
    start(figures=None)
    others = {"damaged": "{", "list": "[]", "text": '"x"', "foreign": '{"arms": {}, "seeds": 1, "experiment": "x"}'}
    for name, content in others.items():
        (tmp_path / f"runs/other-{name}").mkdir()
        (tmp_path / f"runs/other-{name}/report.json").write_text(content)
    (tmp_path / "runs/other-folder/report.json").mkdir(parents=True)
    assert command(["report", "--out", str(tmp_path / "runs")]) == 0
    said = capsys.readouterr()
    assert said.out == f"{tmp_path}/runs/report.md\n"
    for name in [*others, "folder"]:
        assert f"{tmp_path}/runs/other-{name}/report.json is damaged, or no report: left out" in said.err
    page = (tmp_path / "runs/report.md").read_text()
    for text in (
        "| [tiny](#tiny) | 3 | 2 | 2 | 0 | 1 |",
        "| tiny | holds | better is better |",
        "## tiny",
        "![claims](tiny/claims.png)",
        "[table](tiny/table.md)",
    ):
        assert text in page
    assert "other-" not in page


@pytest.mark.errors
def test_a_page_over_nothing_is_refused(tmp_path, capsys):
    assert command(["report", "--out", str(tmp_path)]) == 2
    assert "out must be a folder in which an experiment has written its report" in capsys.readouterr().err


@pytest.mark.errors
def test_an_accelerator_has_one_process(monkeypatch):
    monkeypatch.setattr("jax.default_backend", lambda: "tpu")
    with pytest.raises(ValueError, match="workers must be 1 on an accelerator, which one process holds, got 2"):
        executors.check_workers(2)
    executors.check_workers(1)


def test_a_script_that_is_interrupted_says_how_to_go_on_and_leaves_nothing_behind(script, tmp_path):
    """In a process of its own: workers, Ctrl-C, the exit code, the compilation cache."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))} | {
        "HOME": str(tmp_path),
        "JAX_PLATFORMS": "cpu",
    }
    arguments = [
        sys.executable,
        str(script),
        "--arm",
        "plain",
        "--set",
        f"log={tmp_path / 'log'}",
        "--set",
        "kind=plain,slow",
        "--workers",
        "2",
        "--seeds",
        "1",
    ]
    process = subprocess.Popen(
        arguments, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not (list(tmp_path.glob("runs/tiny/cells/*/result.json")) and len((tmp_path / "log").read_text().splitlines()) == 2):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the script and to its workers
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and out == "" and "Traceback" not in err
    assert err.splitlines()[-1] == "interrupted: 1 of 2 cells are finished and kept in runs/tiny; the same command goes on from there"
    assert list(tmp_path.glob(".cache/cljax/jax/*"))
    for line in (tmp_path / "log").read_text().splitlines():
        with pytest.raises(ProcessLookupError):
            os.kill(int(line.split()[1]), 0)
