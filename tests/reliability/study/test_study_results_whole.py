"""Results are whole or as they were: full disks, read-only folders, kills between two renames, damaged files."""

import errno
import json
import os
import shutil

import pytest

from cljax import study
from cljax.study import files


class Picture:
    """As quickly drawn as it is plain."""

    def __init__(self, text):
        self.text = text

    def savefig(self, file, **options):
        file.write(self.text.encode())


def picture(report):
    return {"scores": Picture(f"{report['seeds']} seeds")}


def pictures(report):
    return picture(report) | {"more": Picture("more")}


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"}


def failing(monkeypatch, function, turn, error):
    """The `turn`th call of a function of `os` from now on raises, and so do those after it."""
    real, calls = getattr(os, function), []

    def call(*arguments):
        calls.append(arguments)
        if len(calls) >= turn:
            raise error
        return real(*arguments)

    monkeypatch.setattr(files.os, function, call)
    return calls


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_report_for_which_there_is_no_space_leaves_the_one_before_as_it_was(start, tmp_path, number):
    assert start("--seeds", "2", figures=pictures)[0] == 0
    folder = tmp_path / "runs/trial"
    start("--seeds", "3", "--out", "other")  # the third seed's cells
    for cell in (tmp_path / "other/trial/cells").iterdir():
        shutil.copytree(cell, folder / "cells" / cell.name, dirs_exist_ok=True)
    before = contents(folder)
    for turn in range(2, 6):  # the first is cells.json; then a picture, table.md, report.json and .published
        with pytest.MonkeyPatch.context() as patch:
            failing(patch, "fsync", turn, OSError(number, os.strerror(number)))
            code, out, err = start("--seeds", "3", figures=pictures)
        assert code == 1 and out == "" and "Traceback" not in err
        assert len(err.splitlines()) == 1 and f"could not be written: {os.strerror(number)}; 12 of 12 cells are finished and kept" in err
        after = contents(folder)
        assert after.keys() == before.keys()
        assert {name for name in after if after[name] != before[name]} <= {"cells.json"}  # the list of cells, which `study.load` reads, is first
    assert start("--seeds", "3", figures=pictures)[0] == 0
    assert json.loads((folder / "report.json").read_text())["seeds"] == 3


def test_a_kill_between_two_renames_is_mended_by_the_next_start(start, tmp_path):
    start("--seeds", "2", figures=pictures)
    folder = tmp_path / "runs/trial"
    start("--seeds", "3", "--out", "other", figures=picture)
    wanted = contents(tmp_path / "other/trial")
    for cell in (tmp_path / "other/trial/cells").iterdir():
        shutil.copytree(cell, folder / "cells" / cell.name, dirs_exist_ok=True)
    shutil.copytree(folder, tmp_path / "first")
    for turn in range(6, 10):  # five files have been renamed: cells.json, and four in `.new`
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "first", folder)
        with pytest.MonkeyPatch.context() as patch:
            failing(patch, "replace", turn, KeyboardInterrupt())
            code, _, err = start("--seeds", "3", figures=picture)
        assert code in (0, 130) and "Traceback" not in err
        assert start("--seeds", "3", figures=picture)[0] == 0
        found = contents(folder)
        for name in ("scores.png", "cells.json", "report.json"):
            assert found[name] == wanted[name]
        assert found.keys() == wanted.keys()


def test_a_result_for_which_there_is_no_space_stops_the_study_with_one_line(start, tmp_path, monkeypatch):
    keep = files.keep

    def full(folder, result):
        if len(list(folder.parent.glob("*/result.json"))) == 5:
            raise files.Unwritable(f"{folder / 'result.json'} could not be written: No space left on device")
        keep(folder, result)

    with monkeypatch.context() as patch:
        patch.setattr(files, "keep", full)
        code, out, err = start()
    assert code == 1 and out == "" and "Traceback" not in err
    assert "No space left on device; 5 of 12 cells are finished and kept in runs/trial; the same command goes on from there" in err
    assert start()[0] == 0


def test_a_folder_that_is_deleted_while_cells_run_is_made_anew(start, trial, tmp_path, monkeypatch):
    keep = files.keep

    def gone(folder, result):
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        keep(folder, result)

    monkeypatch.setattr(files, "keep", gone)
    code, _, err = start("--arm", "arm 0", "--arm", "arm 1")
    assert code == 0 and "Traceback" not in err
    assert (tmp_path / "runs/trial/table.md").exists() and len(study.load(tmp_path / "runs/trial")) == 6


def damages(content):
    flipped = bytearray(content)
    flipped[len(flipped) // 2] ^= 4
    return {"truncated": content[: len(content) // 2], "empty": b"", "zeroed": bytes(len(content)), "removed": None, "flipped": bytes(flipped)}


def test_a_damaged_file_never_gives_other_numbers(start, tmp_path, tools):
    """Each file of a study truncated, emptied, zeroed, removed, one bit flipped: the same command repairs it, or it was of no account."""
    start("--seeds", "1", figures=pictures)
    folder = tmp_path / "runs/trial"
    cell = sorted((folder / "cells").iterdir())[0].name
    wanted, frame = tools.numbers(folder), study.load(folder)
    whole = contents(folder)
    for name in [f"cells/{cell}/result.json", f"cells/{cell}/config.json", "cells.json", "report.json", "table.md", "scores.png"]:
        for damage, content in damages(whole[name]).items():
            (folder / name).unlink()
            if content is not None:
                (folder / name).write_bytes(content)
            code, _, err = start("--seeds", "1", figures=pictures)
            assert code == 0 and "Traceback" not in err, (name, damage)
            assert tools.numbers(folder) == wanted, (name, damage)
            assert study.load(folder).drop(columns="score over steps").equals(frame.drop(columns="score over steps")), (name, damage)
            if name.endswith("result.json") and damage != "removed":
                assert f"{cell}/result.json is damaged: the cell is run again" in err and "aside" in err
    (folder / "cells.json").write_bytes(b"{")
    with pytest.raises(ValueError, match="cells.json is damaged"):
        study.load(folder)
    (folder / "cells.json").write_bytes(whole["cells.json"])
    (folder / f"cells/{cell}/result.json").write_bytes(damages(whole[f"cells/{cell}/result.json"])["flipped"])
    with pytest.warns(UserWarning, match="result.json is damaged"):
        assert study.load(folder)["score"].isna().sum() == 1
