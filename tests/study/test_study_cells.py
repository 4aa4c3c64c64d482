"""Cells: configs as plain values, keys, results on disk, and the same numbers wherever a cell runs."""

import concurrent.futures
import dataclasses
import enum
import json
import math
import multiprocessing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cljax import study
from cljax.study import cells, execute, executors, files, grid, keys, plain


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float = 0.1


@dataclasses.dataclass(frozen=True)
class Config:
    inner: Inner = Inner()
    others: tuple[Inner, ...] = (Inner(1.0), Inner(2.0))
    activation: Any = np.tanh
    function: Any = jax.nn.relu
    helper: Any = grid.points
    dtype: Any = jnp.float32
    colour: Colour = Colour.RED
    table: dict = dataclasses.field(default_factory=lambda: {"named": 1, "class": [1, 2]})
    count: Any = np.int64(3)
    none: int | None = None


def run(config, key):
    return {"score": jax.random.normal(key)}


def test_a_config_survives_the_way_to_a_worker():
    config = Config(helper=grid.points)
    values = plain.encode(config, __name__)
    assert values["inner"] == {"class": "Inner", "rate": 0.1}
    assert values["helper"] == {"named": "cljax.study.grid:points"} and values["dtype"] == {"named": "jax.numpy:float32"}
    source = plain.address(run)
    assert source[2] == "run" and source[0].endswith("test_study_cells.py")
    assert plain.decode(values, source) == dataclasses.replace(config, count=3)
    assert plain.decode(config, run) is config  # a function that no file defines takes its config as it is


def test_a_key_changes_with_all_that_the_numbers_depend_on(tiny):
    config = tiny.ARMS["plain"]
    key = keys.cell_key(tiny.run, config, 0)
    assert key == keys.cell_key(tiny.run, tiny.Config(), 0) and len(key) == 16
    others = [
        keys.cell_key(tiny.run, config, 1),
        keys.cell_key(tiny.run, dataclasses.replace(config, mean=1.0 + 1e-15), 0),
        keys.cell_key(tiny.run, dataclasses.replace(config, optimiser=tiny.Optimiser(0.2)), 0),
        keys.cell_key(tiny.bad, config, 0),
        keys.cell_key(tiny.run, config, 0, population=True),
    ]
    with jax.default_matmul_precision("highest"):
        others.append(keys.cell_key(tiny.run, config, 0))
    assert len({key, *others}) == 1 + len(others)


def test_a_key_changes_with_the_script(tmp_path, script):
    found = set()
    for number, suffix in enumerate(("", "# a comment\n")):
        path = tmp_path / f"copy{number}.py"
        path.write_text(script.read_text() + suffix)
        module = plain.load_module(str(path.resolve()), "not importable by name")
        found.add(keys.cell_key(module.run, module.Config(), 0))
    assert len(found) == 2


def in_notebook(code):
    names = {"__name__": "__notebook__"}
    exec(compile(code, "<cell>", "exec"), names)
    return names["run"]


def test_a_notebooks_key_changes_with_what_its_function_names():
    code = "SCALE = {}\ndef helper(x):\n    return x * {}\ndef unused():\n    return {}\ndef run(config, key):\n    return {{'score': helper(SCALE)}}"
    digests = [keys.script_digest(in_notebook(code.format(*numbers))) for numbers in ((1, 2, 3), (1, 2, 9), (1, 9, 3), (9, 2, 3))]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_metrics_become_floats_and_lists():
    given = {"a": jnp.float32(0.1), "b": np.arange(3), "c": True, "d": jnp.asarray([0.5, math.nan], jnp.bfloat16), "e": 2}
    metrics = cells.checked(given)
    assert metrics["a"] == float(np.float32(0.1)) and metrics["b"] == [0.0, 1.0, 2.0] and metrics["c"] == 1.0 and metrics["e"] == 2.0
    assert metrics["d"][0] == 0.5 and math.isnan(metrics["d"][1])


@pytest.mark.errors
@pytest.mark.parametrize(
    "metrics", [[1.0], {}, {1: 1.0}, {"a": "high"}, {"a": None}, {"a": np.zeros((2, 2))}, {"a": 1j}, {"a": [[1], [2, 3]]}, {"a": jax.random.key(0)}]
)
def test_anything_but_metrics_is_refused(metrics):
    with pytest.raises(ValueError, match="run must return {metric: float or 1-D array}, got"):
        cells.checked(metrics)


def test_a_kept_result_comes_back_to_the_bit(tmp_path):
    metrics = {"a": 0.1 + 0.2, "b": [1e-300, math.inf, -math.inf], "c": math.nan}
    files.keep(tmp_path, {"metrics": metrics, "data": {"digits": {"rows": 3}}, "device": "", "seconds": 0.5})
    read = files.finished(tmp_path)
    assert read["metrics"]["a"] == 0.1 + 0.2 and read["metrics"]["b"] == metrics["b"] and math.isnan(read["metrics"]["c"])
    assert read["data"] == {"digits": {"rows": 3}}
    json.loads((tmp_path / "result.json").read_text(), parse_constant=pytest.fail)  # strict JSON
    (tmp_path / "result.json").write_text('{"metr')
    assert files.finished(tmp_path) is None


def test_json_keeps_texts_and_puts_numbers_on_one_line():
    value = {"a": [1.0, None, 3], "b": [[0.5, 2.0], []], "c": ["x [ 1 ]", 'y "[\n'], "d": {"e": [{"f": [1]}]}}
    text = files.dumps(value | {"bad": [math.nan, 1.0]})
    assert json.loads(text, parse_constant=pytest.fail) == value | {"bad": [None, 1.0]}
    assert ' "a": [1.0, null, 3],' in text.splitlines()


def columns(frame):
    return {name: [np.asarray(value).tolist() for value in frame[name]] for name in frame}


def test_numbers_are_the_same_alone_in_any_order_and_in_threads(tiny):
    options = dict(seeds=2, grid={"mean": [1.0, 3.0], "kind": ["trained"]})
    arms = {name: tiny.ARMS[name] for name in ("plain", "better")}
    in_order = columns(study.sweep(tiny.run, arms, **options))
    backwards = study.sweep(tiny.run, dict(reversed(arms.items())), seeds=2, grid={"mean": [3.0, 1.0], "kind": ["trained"]}).sort_values(
        ["mean", "arm", "seed"], ascending=[True, False, True]
    )
    assert columns(backwards) == in_order
    assert columns(study.sweep(tiny.run, arms, seeds=2, grid={"mean": [3.0], "kind": ["trained"]}))["score"] == in_order["score"][4:]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert columns(study.sweep(tiny.run, arms, executor=pool, **options)) == in_order
    assert len(set(in_order["score"])) == 4  # two seeds x two means: arms that agree in all fields are one cell


def test_a_vmapped_population_agrees_with_its_seeds_one_by_one(tiny, tmp_path):
    todo = grid.expand(tiny.run, {"trained": tiny.Config(kind="trained")}, {}, 2, population=True)
    together, _ = execute.execute(tiny.run, todo, tmp_path, population=True)
    for cell in todo:
        alone = cells.run_cell(tiny.run, cell.config, cell.seed)["metrics"]
        np.testing.assert_allclose(together[cell.key]["metrics"]["score"], alone["score"], rtol=1e-6)
        np.testing.assert_allclose(files.finished(tmp_path / cell.key)["metrics"]["loss over steps"], alone["loss over steps"], rtol=1e-5)


def test_a_worker_gives_the_same_numbers_and_one_that_dies_costs_no_cell(tiny, tmp_path):
    todo = grid.expand(tiny.run, {"plain": tiny.Config(kind="dies", log=str(tmp_path / "log"))}, {}, 1)
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        results, ran = execute.execute(tiny.run, todo, tmp_path, executor=pool)
    assert ran == 1 and (tmp_path / "log.died").exists()
    assert results[todo[0].key]["metrics"] == cells.run_cell(tiny.run, tiny.Config(kind="trained"), 0)["metrics"]  # bit for bit


class Deadly(concurrent.futures.ThreadPoolExecutor):
    """A pool whose workers die of seed 0."""

    def submit(self, work, source, config, seed, *rest):
        if seed:
            return super().submit(work, source, config, seed, *rest)
        future = concurrent.futures.Future()
        future.set_exception(concurrent.futures.BrokenExecutor("dead"))
        return future


def test_a_cell_that_always_kills_its_worker_fails_alone(tiny, tmp_path, monkeypatch):
    renewed = []
    monkeypatch.setattr(executors, "renewed", lambda executor, own: renewed.append(executor) or (executor, own))
    todo = grid.expand(tiny.run, {"plain": tiny.Config()}, {}, 3)
    with Deadly(2) as pool:
        results, _ = execute.execute(tiny.run, todo, tmp_path, executor=pool)
    assert len(renewed) == 4  # the first try, and three more
    assert results[todo[0].key]["error"] == "the worker process died 4 times (out of memory, or killed)"
    assert "died 4 times" in (tmp_path / todo[0].key / "error.txt").read_text()
    assert all("metrics" in results[cell.key] for cell in todo[1:])


def test_a_cell_hands_run_a_fit_bound_to_its_folder(tmp_path):
    from cljax import train

    seen = []

    def run(config, key, fit=None):
        seen.append(fit)
        return {"score": 1.0}

    cells.run_cell(run, Inner(), 0, tmp_path / "cell")
    assert seen[0].func is train.fit
    assert seen[0].keywords == {"folder": tmp_path / "cell", "progress": False}
