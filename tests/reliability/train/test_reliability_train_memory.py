"""A long run at full speed that saves all the time: the memory of the process stays where it is."""

import os
import resource
import time

import pytest

SECONDS = float(os.environ.get("SOAK_SECONDS", 1800))


def resident():
    """The resident memory of this process in MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


@pytest.mark.skipif(not os.environ.get("SOAK"), reason="long; run by `make soak`")
def test_memory_is_flat_over_a_long_run(problem, tmp_path, capfd):
    start, sizes = time.monotonic(), []

    def look(key, state):
        sizes.append((time.monotonic() - start, resident(), len(os.listdir("/proc/self/fd"))))
        return state, None

    for number in range(10**6):  # stages of a minute or so, as a run's history grows with its steps
        problem.fit(folder=tmp_path, name=f"stage-{number}", steps=20_000, chunk=100, save_seconds=2, after=((1000, look),))
        if time.monotonic() - start > SECONDS:
            break
    warm = [entry for entry in sizes if entry[0] > SECONDS / 4] or sizes
    first, last = (sum(size for _, size, _ in part) / len(part) for part in (warm[: len(warm) // 4 + 1], warm[-(len(warm) // 4 + 1) :]))
    with capfd.disabled():
        print(f"\n{sizes[-1][0]:.0f} s, {len(sizes)} thousand steps: {sizes[0][1]:.0f} MB at first, {first:.0f} MB warm, {last:.0f} MB at the end")
    assert last < 1.05 * first + 20
    assert sizes[-1][2] <= warm[0][2] + 3
