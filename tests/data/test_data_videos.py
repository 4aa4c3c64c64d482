"""Folders of videos, whose frames are pictures: what is listed, and which frames are read."""

import numpy as np
import pytest
from PIL import Image

from cljax import data


@pytest.fixture
def root(tmp_path):
    """Three videos of two classes; frame t of video v is of the colour (20 v, 10 t, 0)."""
    for number, (path, frames) in enumerate({"run/b": 3, "run/a": 12, "jump/c": 4}.items()):
        (tmp_path / path).mkdir(parents=True)
        for t in range(frames):
            Image.new("RGB", (9, 6), (20 * number, 10 * t, 0)).save(tmp_path / path / f"{t:03}.png")
    (tmp_path / "run/a/notes.txt").write_text("no frame")
    (tmp_path / "run/a/.000.png").write_text("hidden")
    (tmp_path / ".hidden/video").mkdir(parents=True)
    return tmp_path


def test_classes_and_videos_are_listed_by_name(root):
    found = data.videos(str(root))
    assert found.names == ("jump", "run") and found.labels.tolist() == [0, 1, 1] and found.labels.dtype == np.int32
    assert [path.relative_to(root).as_posix() for path in found.paths] == ["jump/c", "run/a", "run/b"]
    assert [len(data.frames_of(path)) for path in found.paths] == [4, 12, 3]


def test_the_frames_of_each_clip_are_read(root):
    frames = [data.frames_of(path) for path in data.videos(root).paths]
    places = np.array([[[0, 3]], [[11, 2]], [[1, 1]]])
    clips = data.read_clips(frames, places, size=(4, 6))
    assert clips.shape == (3, 1, 2, 4, 6, 3) and clips.dtype == np.uint8
    np.testing.assert_array_equal(clips[..., 0, 0, 1], 10 * places)
    np.testing.assert_array_equal(clips[:, 0, 0, 3, 5, 0], [40, 20, 0])
    assert data.read_clips(frames[:1], places[:1, 0], size=5, threads=1).shape == (1, 2, 5, 5, 3)


@pytest.mark.errors
def test_bad_input_is_named(root):
    frames = data.frames_of(root / "run/b")
    with pytest.raises(TypeError, match="folder must be a path, got int"):
        data.videos(3)
    for folder in (root / "none", root / "run/a", root / "run/a/000.png"):
        with pytest.raises(ValueError, match="folder must be one with a folder a class, and in it a folder of frames a video"):
            data.videos(folder)
    with pytest.raises(ValueError, match="holds no picture: it must be a video"):
        data.frames_of(root / "run")
    with pytest.raises(ValueError, match="frames must be those of 1 videos, as places has, got 2"):
        data.read_clips([frames, frames], np.zeros((1, 2), int), size=4)
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        data.read_clips([frames], np.zeros((1, 2), int), size=0)
    frames[2].write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"run/b/002.png' is no picture that can be read"):
        data.read_clips([frames], np.array([[0, 2]]), size=4)
