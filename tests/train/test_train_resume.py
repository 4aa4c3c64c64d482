"""Checkpoints: a run that was stopped and started again repeats an uninterrupted one bit for bit; nothing damaged or foreign is gone on from."""

import importlib
import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import grain
import jax
import numpy as np
import pytest

from cljax import train


class Stop(Exception):
    pass


def stop_at(step):
    def log(number, row):
        if number == step:
            raise Stop

    return log


def checkpoints(folder):
    return sorted(path.name for path in (folder / "fit" / "checkpoints").iterdir())


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def largest(checkpoint):
    return max((path for path in checkpoint.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("step", [2, 5])
def test_a_stopped_run_goes_on_bit_for_bit(toy, tmp_path, step):
    with pytest.raises(Stop):
        toy.fit(folder=tmp_path, log=stop_at(step), chunk=2)
    steps = []
    result = toy.fit(folder=tmp_path, log=lambda number, row: steps.append(number))
    assert toy.equal(result, toy.fit())
    assert steps[0] > 1 and steps[-1] == 10  # it did go on
    rows = (tmp_path / "fit" / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", *map(str, range(1, 11))]


def test_a_run_stopped_by_a_hook_calls_it_again(toy, tmp_path):
    calls = []

    def fragile(key, state):
        calls.append(int(state["count"]))
        if len(calls) == 2:
            raise Stop
        return {**state, "count": state["count"] + 100}, {"calls": state["count"]}

    def run(folder):
        bound = partial(toy.step, toy.Config())
        return train.fit(jax.random.key(0), toy.init(), bound, toy.data(), steps=10, after=((4, fragile),), folder=folder, progress=False)

    with pytest.raises(Stop):
        run(tmp_path)
    assert run(tmp_path)[1]["calls"].tolist() == [4, 108, 210]
    assert calls == [4, 108, 108, 210]


def test_a_finished_run_is_read_not_run(toy, tmp_path):
    first = toy.fit(folder=tmp_path)
    before = len(toy.TRACES)
    second = toy.fit(folder=tmp_path, log=stop_at(1))
    assert toy.equal(first, second) and len(toy.TRACES) == before


def test_a_run_goes_on_to_more_steps(toy, tmp_path):
    toy.fit(5, folder=tmp_path)  # its hook is called after the 5th step, that of a longer run is not
    assert toy.equal(toy.fit(10, folder=tmp_path), toy.fit(10))


@pytest.mark.errors
def test_nothing_starts_anew_beside_a_checkpoint_that_is_not_on_the_way(toy, tmp_path):
    toy.fit(5, folder=tmp_path)
    (tmp_path / "fit" / "checkpoints" / "5-1").rename(tmp_path / "away")  # what is left has a call of the hook that a longer run does not make
    with pytest.raises(ValueError, match="steps must be those of a run that passes '.*/5-2', with the hooks that were called there, got 10"):
        toy.fit(10, folder=tmp_path)


def test_saves_go_by_time_and_two_are_kept(toy, tmp_path):
    toy.fit(folder=tmp_path / "often", save_seconds=0)
    toy.fit(folder=tmp_path / "once")
    assert checkpoints(tmp_path / "often") == ["10-2", "10-3"]
    assert checkpoints(tmp_path / "once") == ["10-2", "10-3"]  # step 10 before the hook that is due only because it is the last one, and after
    toy.fit(8, folder=tmp_path / "regular")
    assert checkpoints(tmp_path / "regular") == ["8-2"]


def test_a_damaged_checkpoint_is_named_and_left_and_the_one_before_is_used(toy, tmp_path):
    result = toy.fit(folder=tmp_path)
    place = tmp_path / "fit" / "checkpoints"
    flip(largest(place / "10-3" / "state"))
    with pytest.warns(UserWarning, match="10-3' is damaged: its state/.* is not what was written; going on from 10-2 instead") as warned:
        assert toy.equal(toy.fit(folder=tmp_path), result)
    assert len(warned) == 1 and len(str(warned[0].message).splitlines()) == 1
    assert checkpoints(tmp_path) == ["10-2", "10-3", "10-3-1"]
    assert toy.equal(toy.fit(folder=tmp_path, log=stop_at(1)), result)  # read from 10-3-1, without a word
    flip(place / "10-3-1" / "position.json")
    (place / "10-2" / "manifest.json").unlink()
    with pytest.raises(ValueError, match="10-3-1' is damaged: its position.json is not what was written; there is no other one to go on from"):
        toy.fit(folder=tmp_path)
    assert checkpoints(tmp_path) == ["10-2", "10-3", "10-3-1"]


def test_half_written_checkpoints_are_swept_away(toy, tmp_path):
    result = toy.fit(8, folder=tmp_path)
    (tmp_path / "fit" / "checkpoints" / ".6-1-1234-ab" / "state").mkdir(parents=True)
    assert toy.equal(toy.fit(8, folder=tmp_path), result)
    assert checkpoints(tmp_path) == ["8-2"]


@pytest.mark.errors
def test_a_checkpoint_of_another_run_is_refused(toy, tmp_path):
    toy.fit(folder=tmp_path)
    for change, text in [
        ({"seed": 1}, r"key is .* 1\] here and .* 0\] there"),
        ({"rate": 0.2}, r"step\[0\].rate is 0.2 here and 0.1 there"),
        ({"every": 5}, r"after\[0\]\[0\] is 5 here and 4 there"),
        ({"data": train.draws({"x": toy.X + 1, "y": toy.X}, partial(toy.draw, 8))}, r"data\[0\]\['x'\] is float32\[24, 4\]"),
        ({"data": train.draws({"x": toy.X, "y": toy.X[:, ::-1]}, partial(toy.draw, 12))}, r"data\[1\]\[0\] is 12 here and 8 there"),
        ({"steps": 9}, "steps must be at least 10"),
    ]:
        with pytest.raises(ValueError, match=text):
            toy.fit(**{"folder": tmp_path, **change})
    with pytest.raises(ValueError, match=r"state\['extra'\] is float32\[3\] here and absent there"):
        state = {**toy.init(), "extra": np.zeros(3, np.float32)}
        after = ((4, partial(toy.hook, 0.5)),)
        train.fit(jax.random.key(0), state, partial(toy.step, toy.Config()), toy.data(), steps=10, after=after, folder=tmp_path)


@pytest.mark.parametrize("fact, text", [("code", "file of the step, the draw or a hook"), ("package", "version of cljax")])
def test_other_source_is_warned_of(toy, tmp_path, monkeypatch, fact, text):
    result = toy.fit(folder=tmp_path)
    cell = tmp_path / "study" / "cells" / "a"
    toy.fit(folder=cell, shared=True)
    change_source(monkeypatch, fact)
    with pytest.warns(UserWarning, match=f"was saved by another {text}, and is read as it is"):
        assert toy.equal(toy.fit(folder=tmp_path), result)
    toy.fit(folder=cell, shared=True)
    assert len(list((tmp_path / "shared").iterdir())) == 2  # a shared stage of other source is another one


def change_source(monkeypatch, fact):
    module, name = {"code": ("cljax.train.stage", "_code"), "package": ("cljax.core.provenance", "package_digest")}[fact]
    monkeypatch.setattr(importlib.import_module(module), name, lambda *_: "another text")


@pytest.mark.parametrize("change", ["rate", "data", "code", "package", "more steps, code"])
def test_a_half_done_stage_of_another_run_is_kept_aside(toy, tmp_path, monkeypatch, change):
    if change.startswith("more"):
        toy.fit(8, folder=tmp_path)
    else:
        with pytest.raises(Stop):
            toy.fit(folder=tmp_path, log=stop_at(3))
    before = checkpoints(tmp_path)
    options, text = {}, ""
    if change == "rate":
        options, text = {"rate": 0.2}, r"step\[0\].rate is 0.2 here and 0.1 there"
    elif change == "data":
        options, text = {"data": train.draws({"x": toy.X + 1, "y": toy.X}, partial(toy.draw, 8))}, r"data\[0\]\['x'\] is float32"
    else:
        change_source(monkeypatch, change.split()[-1])
        text = "version of cljax changed" if change == "package" else "file of the step, the draw or a hook changed"
    with pytest.warns(UserWarning, match=rf"held a run that stood at step \d+ of \d+ and can't be gone on from: {text}.*; it is kept in 'aside-1'"):
        result = toy.fit(folder=tmp_path, **options)
    assert toy.equal(result, toy.fit(**options))
    assert sorted(path.name for path in (tmp_path / "fit" / "aside-1" / "checkpoints").iterdir()) == before
    assert checkpoints(tmp_path) == ["10-2", "10-3"]


def test_a_second_process_is_told_who_holds_the_folder(toy, tmp_path):
    program = "import sys; sys.path[:0] = sys.argv[1:2]; from pathlib import Path; from cljax.core.lock import hold\n"
    program += "with hold(Path(sys.argv[2])): print('held', flush=True); sys.stdin.read()"
    (tmp_path / "fit").mkdir()
    arguments = [sys.executable, "-c", program, str(Path(train.__file__).parents[2]), str(tmp_path / "fit")]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match=rf"/fit is in use: process {process.pid} on \S+, since .*, works there"):
        toy.fit(folder=tmp_path)
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()
    toy.fit(folder=tmp_path)

    def again(number, row):
        with pytest.raises(ValueError, match=f"is in use: process {os.getpid()} on"):
            toy.fit(12, folder=tmp_path)

    toy.fit(11, folder=tmp_path, log=again)


def test_names_keep_stages_apart(toy, tmp_path):
    first, second = toy.fit(folder=tmp_path, name="one"), toy.fit(folder=tmp_path, name="two")
    assert not toy.equal(first, second)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_keys_empty_arrays_and_bfloat16_come_back(tmp_path):
    state = {"a": jax.numpy.ones(3, "bfloat16"), "b": (np.zeros((0, 2)), [jax.random.split(jax.random.key(1), 2)]), "c": True, "d": None}

    def run(steps):
        return train.fit(jax.random.key(0), state, still, train.draws({"x": np.zeros(8)}, still_draw), steps=steps, folder=tmp_path, progress=False)[
            0
        ]

    first, second = run(2), run(2)
    assert [leaf.dtype for leaf in jax.tree.leaves(first)] == [leaf.dtype for leaf in jax.tree.leaves(second)]
    assert np.array_equal(jax.random.key_data(second["b"][1][0]), jax.random.key_data(state["b"][1][0]))
    assert second["b"][0].shape == (0, 2) and bool(second["c"]) and second["d"] is None


def still(state, batch, key):
    return state, None


def still_draw(key, arrays, t):
    return arrays


def feed(toy):
    """A grain iterator of shuffled batches, for ever."""
    rows = grain.MapDataset.source(np.arange(24)).seed(3).shuffle().repeat().map(lambda row: {"x": toy.X[row], "y": toy.X[row, ::-1], "index": row})
    return iter(rows.batch(8).to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)))


def test_an_iterator_goes_on_where_it_stood(toy, tmp_path):
    with pytest.raises(Stop):
        toy.fit(data=feed(toy), folder=tmp_path, log=stop_at(3))
    iterator, steps = feed(toy), []
    result = toy.fit(data=iterator, folder=tmp_path, log=lambda number, row: steps.append(number))
    assert toy.equal(result, toy.fit(data=feed(toy))) and steps[0] > 1


@pytest.mark.errors
def test_an_iterator_without_a_state_cannot_go_on(toy, tmp_path):
    def plain():
        return ({"x": toy.X[:8], "y": toy.X[8:16], "index": np.arange(8)} for _ in range(12))

    with pytest.raises(Stop):
        toy.fit(data=plain(), folder=tmp_path, log=stop_at(3))
    with pytest.raises(ValueError, match="data must have get_state and set_state to go on after step"):
        toy.fit(data=plain(), folder=tmp_path)


def test_cells_share_a_stage(toy, tmp_path):
    cells = [tmp_path / "study" / "cells" / name for name in ("a", "b", "c")]
    first = toy.fit(folder=cells[0], shared=True)
    assert toy.equal(toy.fit(folder=cells[1], shared=True, log=stop_at(1)), first)  # read
    assert not toy.equal(toy.fit(folder=cells[2], shared=True, seed=1), first)
    assert len(list((tmp_path / "shared").iterdir())) == 2
    assert all((cell / "fit" / "metrics.csv").exists() for cell in cells)


def test_two_workers_may_publish_one_stage(toy, tmp_path):
    cells, results = [tmp_path / "study" / "cells" / name for name in ("a", "b")], {}
    toy.fit()  # compiled before the race

    def work(cell):
        results[cell] = toy.fit(folder=cell, shared=True, save_seconds=0)

    threads = [threading.Thread(target=work, args=(cell,)) for cell in cells]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert toy.equal(results[cells[0]], results[cells[1]])
    assert toy.equal(toy.fit(folder=cells[0], shared=True, log=stop_at(1)), results[cells[0]])


@pytest.mark.errors
def test_a_shared_stage_needs_data_that_is_known(toy, tmp_path):
    with pytest.raises(ValueError, match="shared=True"):
        toy.fit(data=iter([]), folder=tmp_path, shared=True)


@pytest.mark.errors
def test_an_unwritable_folder_is_named(toy, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="folder must be a folder that can be written to"):
        toy.fit(folder=tmp_path / "file")


def test_sigterm_saves_and_leaves_with_one_line(toy, tmp_path):
    run = "conftest.fit(10**6, folder=sys.argv[3], log=lambda step, row: print(step, flush=True))"
    program = f"import sys; sys.path[:0] = sys.argv[1:3]; import conftest; {run}"
    paths = [str(Path(train.__file__).parents[2]), str(Path(toy.__file__).parent), str(tmp_path)]
    run = subprocess.Popen([sys.executable, "-c", program, *paths], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while int(run.stdout.readline()) < 20:
        pass
    run.send_signal(signal.SIGTERM)
    _, errors = run.communicate()
    assert run.returncode == 128 + signal.SIGTERM
    reached = max(int(name.split("-")[0]) for name in checkpoints(tmp_path))
    assert errors == f"SIGTERM after step {reached} of 1000000 of {str(tmp_path / 'fit')!r}, which is saved: the same command goes on from there\n"
    steps = []
    result = toy.fit(reached + 8, folder=tmp_path, log=lambda number, row: steps.append(number))
    assert steps[0] == reached + 1
    assert toy.equal(result, toy.fit(reached + 8))


def test_an_interrupt_saves_and_the_handlers_come_back(toy, tmp_path, capsys):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    def interrupt(number, row):
        if number == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        toy.fit(folder=tmp_path, log=interrupt, chunk=2)
    assert isinstance(caught.value, SystemExit) and caught.value.code == 130
    assert capsys.readouterr().err.startswith("SIGINT after step ")
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert toy.equal(toy.fit(folder=tmp_path), toy.fit())
