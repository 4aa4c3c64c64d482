"""Checkpoints that something has happened to: what is gone on from is whole, and what is not is named."""

import os
import shutil

import pytest

from cljax.train import checkpoint

SOAK = pytest.mark.skipif(not os.environ.get("SOAK"), reason="long; run by `make soak`")


def truncate(path, other):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zero(path, other):
    path.write_bytes(bytes(path.stat().st_size))


def remove(path, other):
    path.unlink()


def flip(path, other):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def replace(path, other):
    path.write_bytes(other.read_bytes())


HOWS = [truncate, zero, remove, flip, replace]


@pytest.fixture(scope="module")
def run(problem, tmp_path_factory):
    """A half-done run with two checkpoints, and what it is to end with."""
    folder = tmp_path_factory.mktemp("damage") / "run"

    def interrupt(number, row):
        if number == 25:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        problem.fit(folder=folder, log=interrupt)
    with pytest.raises(InterruptedError):
        problem.fit(folder=folder, log=lambda number, row: interrupt(number - 17, row))
    assert len(checkpoints(folder)) == 2
    other = folder.parent / "other"
    with pytest.raises(InterruptedError):
        problem.fit(folder=other, log=interrupt, seed=1)
    return folder, other, problem.fit()


def checkpoints(folder):
    """The newest first."""
    return checkpoint._found(folder / "fit" / "checkpoints")


def cases(run):
    """Each thing that can happen to each file of the newest checkpoint: `(file, what, a file of another run)`."""
    folder, other, _ = run
    files = sorted(path.relative_to(folder) for path in checkpoints(folder)[0].rglob("*") if path.is_file())
    donors = sorted((path for path in checkpoints(other)[0].rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    assert len(files) > 8
    for file in files:
        donor = next((path for path in donors if (path.name, path.parent.name) == (file.name, file.parent.name)), donors[-1])
        content = (folder / file).read_bytes()
        for how in HOWS if content else [remove, replace]:
            if how is not replace or donor.read_bytes() != content:
                yield file, how, donor


def test_every_damage_is_seen_and_names_its_file(run, tmp_path):
    copy = shutil.copytree(run[0], tmp_path / "copy")
    newest, before = checkpoints(copy)
    count = 0
    for file, how, donor in cases(run):
        content = (copy / file).read_bytes()
        how(copy / file, donor)
        assert (how is remove) or (copy / file).read_bytes() != content
        path, _, (line,) = next(checkpoint.sound(newest.parent))
        assert path == before and f"{newest.name}' is damaged: its {file.relative_to(newest.relative_to(copy))} " in line, (file, how)
        (copy / file).write_bytes(content)
        count += 1
    assert count > 40 and next(checkpoint.sound(newest.parent))[0] == newest


def goes_on(problem, equal, run, copy, case):
    file, how, donor = case
    shutil.copytree(run[0], copy)
    how(copy / file, donor)
    newest, before = checkpoints(copy)
    content = {path: path.read_bytes() for path in newest.rglob("*") if path.is_file()}
    steps = []
    with pytest.warns(UserWarning, match=f"{newest.name}' is damaged: .*; going on from {before.name} instead") as warned:
        assert equal(problem.fit(folder=copy, log=lambda number, row: steps.append(number)), run[2])
    assert len(warned) == 1 and steps[0] == int(before.name.split("-")[0]) + 1
    assert content == {path: path.read_bytes() for path in newest.rglob("*") if path.is_file()}  # left as it was
    shutil.rmtree(copy)


def test_after_a_damage_the_bits_are_those_of_the_checkpoint_before(run, problem, equal, tmp_path):
    largest = max((file for file, how, _ in cases(run) if "state" in file.parts), key=lambda file: (run[0] / file).stat().st_size)
    chosen = {(flip, largest.name), (remove, "manifest.json"), (truncate, "position.bin")}
    for number, case in enumerate([case for case in cases(run) if (case[1], case[0].name) in chosen]):
        goes_on(problem, equal, run, tmp_path / str(number), case)
    assert number == 2


@SOAK
def test_after_any_damage_the_bits_are_those_of_the_checkpoint_before(run, problem, equal, tmp_path):
    for number, case in enumerate(cases(run)):
        goes_on(problem, equal, run, tmp_path / str(number), case)


def test_where_no_checkpoint_is_whole_nothing_starts_anew(run, problem, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    newest, before = checkpoints(tmp_path / "run")
    flip(newest / "position.bin", None)
    remove(before / "position.json", None)
    with pytest.raises(ValueError, match=f"{newest.name}' is damaged: its position.bin is not what was written; there is no other one"):
        problem.fit(folder=tmp_path / "run")
    assert checkpoints(tmp_path / "run") == [newest, before]


def test_a_whole_checkpoint_of_another_run_is_not_gone_on_from(run, problem, equal, tmp_path):
    folder, other, result = run
    shutil.copytree(folder, tmp_path / "run")
    newest, donor = checkpoints(tmp_path / "run")[0], checkpoints(other)[0]
    shutil.rmtree(newest)
    shutil.copytree(donor, newest)
    with pytest.warns(UserWarning, match="can't be gone on from: key is .* here and .* there; it is kept in 'aside-1', this one starts anew"):
        assert equal(problem.fit(folder=tmp_path / "run"), result)
