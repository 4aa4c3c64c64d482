"""A long run at full speed that saves all the time: memory stays where it is, and no file handle, thread or folder is left behind."""

import os
import resource
import threading
import time

import pytest

from cljax.train import checkpoint

SECONDS = float(os.environ.get("SOAK_SECONDS", 1800))
SAVE_SECONDS = 2
SOAK = pytest.mark.skipif(not os.environ.get("SOAK"), reason="long; run by `make soak`")


def resident():
    """The resident memory of this process in MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


def held():
    """How many file handles and threads this process has."""
    return len(os.listdir("/proc/self/fd")), threading.active_count()


@SOAK
def test_memory_is_flat_over_a_long_run(problem, tmp_path, monkeypatch, capfd):
    start, sizes, between, saves, publish = time.monotonic(), [], [], [], checkpoint._publish
    monkeypatch.setattr(checkpoint, "_publish", lambda *arguments: saves.append(time.monotonic()) or publish(*arguments))

    def look(key, state):
        sizes.append((time.monotonic() - start, resident()))
        return state, None

    while not between or time.monotonic() - start < SECONDS:  # stages, as a run's history grows with its steps
        name = f"stage-{len(between)}"
        problem.fit(folder=tmp_path, name=name, steps=20_000, chunk=100, save_seconds=SAVE_SECONDS, after=((1000, look),))
        between.append(held())
        places = {path.name for path in (tmp_path / name).iterdir() if not path.name.startswith("events")}
        assert places == {".lock", "checkpoints", "metrics.csv"}
        kept = checkpoint._found(tmp_path / name / "checkpoints")
        assert {path.name for path in kept} == set(os.listdir(tmp_path / name / "checkpoints")) and len(kept) <= 2

    warm = [size for seconds, size in sizes if seconds > SECONDS / 4] or [size for _, size in sizes]
    quarter = len(warm) // 4 + 1
    first, last = sum(warm[:quarter]) / quarter, sum(warm[-quarter:]) / quarter
    with capfd.disabled():
        print(f"\n{sizes[-1][0]:.0f} s, {len(sizes)} thousand steps, {len(saves)} saves in {len(between)} stages; ", end="")
        print(f"{sizes[0][1]:.0f} MB at first, {first:.0f} MB warm, {last:.0f} MB at the end, {max(warm):.0f} MB at most; ", end="")
        print(f"handles and threads after the first stage {between[0]}, after the last {between[-1]}")
    assert last < 1.05 * first + 20
    assert between[-1] == between[0]
    assert len(saves) > SECONDS / (4 * SAVE_SECONDS)
