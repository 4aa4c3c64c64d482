"""Folders of videos, whose frames are pictures: what is listed, which frames are read, batches of clips; and videos of glyphs that move."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cljax import data
from cljax.core import provenance


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


def test_the_parts_of_a_set_have_the_same_classes(root):
    for part in ("train", "validate"):
        for video in ("run/1", "jump/2"):
            (root / "set" / part / video).mkdir(parents=True)
    train, validate = data.video_sets(root / "set")
    assert train.names == validate.names == ("jump", "run") and [path.parent.parent.name for path in validate.paths] == ["validate"] * 2
    assert provenance.recorded()["set"]["rows"] == 4
    (root / "set/validate/walk/3").mkdir(parents=True)
    with pytest.raises(ValueError, match="must have the same classes in train and validate, got .'jump', 'run'. and .'jump', 'run', 'walk'"):
        data.video_sets(root / "set")
    assert len(data.video_sets(root / "set", ("validate", "validate"))[1].paths) == 3


def first_and_random(key, lengths, index):
    start = jax.vmap(lambda i, n: jax.random.randint(jax.random.fold_in(key, i), (), 0, n))(index, lengths)
    return {"first": np.zeros((len(index), 1), int), "other": start[:, None] % lengths[:, None]}


def test_batches_of_clips_are_epochs_that_go_on_where_they_stopped(root):
    videos, key = data.videos(root), jax.random.key(0)
    batches = data.ClipBatches(key, videos, 2, first_and_random, size=(4, 6))
    drawn = [next(batches) for _ in range(9)]
    assert drawn[0]["first"].shape == (2, 1, 4, 6, 3) and drawn[0]["other"].dtype == np.uint8
    index = np.concatenate([batch["index"] for batch in drawn])
    assert all(sorted(index[start : start + 3]) == [0, 1, 2] for start in range(0, 18, 3))  # epochs, also within a batch
    for batch in drawn:
        np.testing.assert_array_equal(batch["label"], videos.labels[batch["index"]])
        np.testing.assert_array_equal(batch["first"][:, 0, 0, 0, 0], np.array([40, 20, 0])[batch["index"]])
    assert len({part.tobytes() for batch in drawn for part in batch["other"]}) > 6  # not always the same clip of a video
    again = data.ClipBatches(key, videos, 2, first_and_random, size=(4, 6))
    again.set_state({"step": 4})
    jax.tree.map(np.testing.assert_array_equal, next(again), drawn[4])
    assert batches.get_state() == {"step": 9} and again.get_state() == {"step": 5} and iter(again) is again


def test_some_of_the_videos_are_chosen_like_rows_of_an_array(root):
    found = data.videos(root)
    some = found[np.array([2, 0])]
    assert len(found) == 3 and len(some) == 2 and some.paths == (found.paths[2], found.paths[0]) and some.labels.tolist() == [1, 0]
    assert some.names == found.names and found[1:].paths == found.paths[1:] and len(found[np.zeros(0, int)]) == 0


def ends(length):
    return [[0, 1], [length - 2, length - 1]]


def test_each_video_is_evaluated_once_on_the_same_clips(root):
    found = list(data.evaluation_clips(data.videos(root), ends, size=(4, 6)))
    assert [clips.shape for clips in found] == [(1, 2, 2, 4, 6, 3)] * 3 and found[0].dtype == np.uint8
    np.testing.assert_array_equal(np.concatenate(found)[..., 0, 0, 1], 10 * np.array([ends(4), ends(12), ends(3)]))
    videos = np.random.default_rng(0).normal(size=(7, 5, 3, 2))
    parts = list(data.evaluation_clips(jnp.asarray(videos), ends, batch=3))
    assert [len(part) for part in parts] == [3, 2, 2] and isinstance(parts[0], jax.Array)
    np.testing.assert_allclose(np.concatenate(parts), videos[:, np.array(ends(5))], rtol=1e-6)
    (one,) = data.evaluation_clips(videos[..., None], lambda length: np.arange(length), batch=9)
    np.testing.assert_array_equal(one, videos[..., None])


def test_films_are_cut_into_videos(monkeypatch):
    film = np.repeat(np.arange(4), [35, 50, 16, 20])
    frames = np.arange(len(film), dtype=np.float32)[:, None, None, None] + np.zeros((1, 64, 64, 3), np.float32)
    frames[:, 1::2] += 0.5
    monkeypatch.setattr("cljax.data.films.load", lambda name: (jnp.asarray(frames), jnp.asarray(film)))
    videos = data.film_videos()
    assert videos.shape == (6, 16, 32, 32, 3)  # 2 + 3 + 1 whole ones of the first, the second and the fourth part
    np.testing.assert_allclose(videos[:, 0, 0, 0, 0] - 0.25, [0, 16, 35, 51, 67, 101])
    np.testing.assert_allclose(np.diff(videos, axis=1), 1)
    assert data.film_videos(frames=8, side=64).shape == (4 + 6 + 2, 8, 64, 64, 3)


def test_each_process_reads_its_share_of_a_batch(root, monkeypatch):
    key, batches = jax.random.key(0), []
    whole = next(data.ClipBatches(key, data.videos(root), 2, first_and_random, size=4))["index"]
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for number in range(2):
        monkeypatch.setattr(jax, "process_index", lambda number=number: number)
        batches.append(next(data.ClipBatches(key, data.videos(root), 2, first_and_random, size=4))["index"])
    assert [len(batch) for batch in batches] == [1, 1] and sorted(np.concatenate(batches)) == sorted(whole)


def test_a_glyph_moves_on_its_course_and_turns_once():
    glyphs = jnp.zeros((300, 8, 8)).at[:, 2, 5].set(1)  # one bright pixel, which is found again
    made = data.moving_glyphs(jax.random.key(0), glyphs)
    flat = np.asarray(made.videos).reshape(300, 24, -1)
    assert flat.shape[2] == 256 and np.all(flat.sum(-1) == 1)
    place = np.stack(np.divmod(flat.argmax(-1), 16), -1)
    moves = (np.diff(place, axis=1) + 8) % 16 - 8
    angle = np.asarray(made.direction) * 2 * np.pi / 8
    course = 1.5 * np.stack([np.sin(angle), np.cos(angle)], -1)
    assert np.abs(moves[:, :8].sum(1) - 8 * course).max() <= 1 + 1e-4  # rounded at both ends
    left = np.abs(np.cumsum(moves, 1) - np.arange(1, 24)[:, None] * course[:, None]).max(-1) > 1 + 1e-4
    turn = left.argmax(1)  # the first move after which it is elsewhere: some moves after the turn, where the new course is near the old
    assert left.any(1).all() and turn.min() >= 8 and left[:, -1].all()
    end = moves[:, 15:].sum(1)  # all of the new course
    second = np.round(np.arctan2(end[:, 0], end[:, 1]) / (2 * np.pi / 8)) % 8
    assert np.all(second != made.direction) and len(np.unique(second)) == 8
    assert np.bincount(made.direction, minlength=8).min() > 20


def test_a_share_of_the_frames_is_empty():
    videos, whole = (np.asarray(data.moving_glyphs(jax.random.key(0), jnp.ones((50, 8, 8)), shown=share).videos) for share in (0.5, 1.0))
    drawn = videos.reshape(50, 24, -1).any(-1)
    assert np.all(drawn.sum(1) == 12) and len(np.unique(drawn, axis=0)) == 50
    np.testing.assert_array_equal(videos, whole * drawn[..., None, None])
    small = data.moving_glyphs(jax.random.key(0), jnp.ones((3, 4, 2)), length=5, side=6, turns=(2, 3), speed=0).videos
    assert small.shape == (3, 5, 6, 6) and np.all(np.asarray(small).sum((2, 3)) == 8) and np.ptp(np.asarray(small), axis=1).max() == 0


@pytest.mark.errors
def test_bad_input_of_what_is_made_is_named(root):
    key, glyphs = jax.random.key(0), jnp.ones((2, 8, 8))
    for options, error, words in [
        (dict(side=7), ValueError, "side must be at least 8, got 7"),
        (dict(length=1), ValueError, "length must be at least 2"),
        (dict(turns=(5, 5)), ValueError, r"turns\[1\] must be at least 6"),
        (dict(shown=1.5), ValueError, "shown must be"),
        (dict(speed="fast"), TypeError, "speed must be"),
    ]:
        with pytest.raises(error, match=words):
            data.moving_glyphs(key, glyphs, **options)
    with pytest.raises(ValueError, match="glyphs must have shape"):
        data.moving_glyphs(key, glyphs[0])
    with pytest.raises(TypeError, match="folder must be a path, got int"):
        data.video_sets(3)
    with pytest.raises(ValueError, match="batch must be at least 1 and at most 3, got 4"):
        data.ClipBatches(key, data.videos(root), 4, first_and_random, size=4)
    with pytest.raises(TypeError, match="draw must be a function, got int"):
        data.ClipBatches(key, data.videos(root), 2, 3, size=4)
    for videos, draw, options, error, words in [
        (np.ones((2, 3)), ends, {}, ValueError, r"videos must have shape \[N, L, H, W\] or \[N, L, H, W, C\], got \[2, 3\]"),
        (data.videos(root), ends, {}, ValueError, "size must be given for the videos of a folder"),
        (glyphs, 3, {}, TypeError, "draw must be a function, got int"),
        (glyphs, ends, dict(batch=0), ValueError, "batch must be at least 1, got 0"),
    ]:
        with pytest.raises(error, match=words):
            data.evaluation_clips(videos, draw, **options)
    with pytest.raises(ValueError, match="side must be a divisor of 64, got 24"):
        data.film_videos(side=24)


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
