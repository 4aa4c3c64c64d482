"""Windows of sensors: what generated devices see, and a user's own recordings."""

import jax
import numpy as np
import pytest

from cljax import data
from cljax.core import provenance
from cljax.data.sensors import GRAVITY


def test_generated_movements_are_as_the_devices_see_them():
    windows, labels, people = map(np.asarray, data.movements(jax.random.key(0), 600))
    assert windows.shape == (600, 5, 64, 3) and set(labels) == set(range(6)) and not people.any()
    gravity = np.linalg.norm(windows.mean(2), axis=-1)  # drift and movement are nearly 0 on average over a window
    np.testing.assert_allclose(np.median(gravity, axis=0), GRAVITY, rtol=0.12)
    moving = (windows - windows.mean(2, keepdims=True)).std(2).mean((0, 2))
    assert np.all(np.diff(moving) < 0.02)  # a falling gain under nearly the same noise
    a, b = (windows[:, device] - windows[:, device].mean(1, keepdims=True) for device in (0, 1))
    turn = np.linalg.lstsq(a.reshape(-1, 3), b.reshape(-1, 3), rcond=None)[0]
    assert np.linalg.det(turn) > 0.05  # a rotation, shrunk by noise


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CLJAX_DATA", str(tmp_path))
    (tmp_path / "walks").mkdir()
    for person, length in enumerate((10, 7)):
        signals = 100 * person + np.arange(length * 2 * 3).reshape(length, 2, 3)
        np.savez(tmp_path / "walks" / f"{person}.npz", signals=signals, labels=np.arange(length))
    return tmp_path / "walks"


def test_recordings_are_cut_into_windows_with_the_label_of_their_middle(folder):
    windows, labels, people = data.recordings(folder, length=4)
    assert (windows.shape, windows.dtype) == ((3, 2, 4, 3), np.float32)
    assert (labels.tolist(), people.tolist()) == ([2, 6, 2], [0, 0, 1])
    np.testing.assert_array_equal(windows[1, 1, 2], [39, 40, 41])  # second window, device 1, its third sample: row 6 of the signal
    np.testing.assert_array_equal(windows[2, 0, 0], [100, 101, 102])
    assert provenance.recorded()["walks"]["rows"] == 3


@pytest.mark.errors
def test_recordings_that_cannot_be_read_are_named(folder):
    with pytest.raises(
        ValueError, match=r"1.npz' must hold signals \[time, devices, channels\] and labels \[time\], 8 samples at least, got \[7, 2, 3\]"
    ):
        data.recordings(folder, length=8)
    np.savez(folder / "2.npz", signals=np.ones((9, 2, 3)))
    with pytest.raises(ValueError, match="2.npz' must hold signals and labels, it lacks 'labels'"):
        data.recordings(folder, length=4)
    with pytest.raises(ValueError, match="folder must hold a file a person, an .npz of signals and labels, got none"):
        data.recordings(folder / "elsewhere")
    with pytest.raises(TypeError, match="folder must be a path, got int"):
        data.recordings(3)
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        data.movements(jax.random.key(0), 0)
