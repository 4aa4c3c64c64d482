"""Folders of videos, as pictures of their frames, that are read a clip at a time: of sets too large for memory."""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Integer, Num

from cljax.core import check, shuffled
from cljax.core.check import KeyLike
from cljax.data import copies, folders


@dataclasses.dataclass(frozen=True, eq=False)
class Videos:
    """What `videos` finds: `len` of it is how many, and `found[rows]` are some of them, as of an array.

    Attributes:
      paths: the folder of each video.
      labels: int32 `[N]`, places in `names`.
      names: the classes.
    """

    paths: tuple[pathlib.Path, ...]
    labels: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: slice | Integer[np.ndarray, " n"]) -> "Videos":
        chosen = np.arange(len(self))[rows]
        return Videos(tuple(self.paths[row] for row in chosen), self.labels[chosen], self.names)


def videos(folder: str | os.PathLike) -> Videos:
    """Lists videos: each folder in `folder` is a class, each folder in that a video, whose pictures are its frames: `folder/dancing/17/0001.jpg`.

    Classes, videos and frames are taken in the order of their names; hidden folders are passed over. No frame is looked at.

    Args:
      folder: the folder.

    Returns:
      `Videos(paths, labels, names)`.

    Raises:
      TypeError: not a path.
      ValueError: no such folder, or no video in it.
    """
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"folder must be a path, got {type(folder).__name__}")
    root = pathlib.Path(folder)
    found = [(name, path) for name in _folders(root) for path in _folders(name)] if root.is_dir() else []
    if not found:
        raise ValueError(f"folder must be one with a folder a class, and in it a folder of frames a video, got {str(folder)!r}, which has none")
    names = sorted({name.name for name, _ in found})
    labels = np.array([names.index(name.name) for name, _ in found], np.int32)
    return Videos(tuple(path for _, path in found), labels, tuple(names))


def video_sets(folder: str | os.PathLike, parts: Sequence[str] = ("train", "validate")) -> tuple[Videos, ...]:
    """Lists the parts of a set of videos, each as `videos` does: `folder/train/dancing/17/0001.jpg`.

    Args:
      folder: the folder.
      parts: the folders in it.

    Returns:
      The `Videos` of each part.

    Raises:
      TypeError: not a path.
      ValueError: a part that `videos` refuses, or parts with different classes.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for video in ("train/run/1", "train/jump/1", "train/jump/2", "validate/run/3", "validate/jump/4"):
    ...         (pathlib.Path(folder) / video).mkdir(parents=True)
    ...     [found.labels.tolist() for found in video_sets(folder)]
    [[0, 0, 1], [0, 1]]
    """
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"folder must be a path, got {type(folder).__name__}")
    root = pathlib.Path(folder)
    found = tuple(videos(root / part) for part in parts)
    folders.check_classes(root, parts, found)
    paths = [path.relative_to(root).as_posix() for listed in found for path in listed.paths]  # they stand for files too many to hash
    copies.note(root, len(paths), hashlib.sha256(str(paths).encode()).hexdigest())
    return found


def frames_of(path: str | os.PathLike) -> tuple[pathlib.Path, ...]:
    """The pictures of a video's frames, in the order of their names.

    Args:
      path: the folder of a video.

    Returns:
      Their paths, one at least.

    Raises:
      ValueError: there is none.
    """
    found = tuple(sorted(file for file in pathlib.Path(path).iterdir() if folders.is_picture(file)))
    if not found:
        raise ValueError(f"{str(path)!r} holds no picture: it must be a video, a folder of its frames")
    return found


def read_clips(
    frames: Sequence[tuple[pathlib.Path, ...]], places: Integer[ArrayLike, "B ... T"], *, size: int | tuple[int, int], threads: int = 8
) -> np.ndarray:
    """Reads the frames of clips, and no others.

    Args:
      frames: for each of B videos its frames, as `frames_of` gives them.
      places: `[B, ..., T]` integers, the frames of each clip, as the samplers of clips give them.
      size: an int or `(height, width)` in pixels: each frame is scaled to cover it and cropped around its centre.
      threads: how many read and decode at a time.

    Returns:
      uint8 `[B, ..., T, height, width, 3]`.

    Raises:
      ValueError: not as many videos as places, or a file that is no picture that can be read: its path.
    """
    size = (size, size) if isinstance(size, (int, np.integer)) else tuple(size)
    for side in size:
        check.integer("size", side, at_least=1)
    places = np.asarray(places)
    if len(frames) != len(places):
        raise ValueError(f"frames must be those of {len(places)} videos, as places has, got {len(frames)}")
    wanted = [video[place] for video, row in zip(frames, places.reshape(len(places), -1), strict=True) for place in row]
    with ThreadPoolExecutor(threads) as pool:
        return np.stack(list(pool.map(lambda path: _read(path, size), wanted))).reshape(*places.shape, *size, 3)


def evaluation_clips(
    videos: Videos | Num[ArrayLike, "N L H W *C"],
    draw: Callable[[int], Integer[ArrayLike, "... T"]],
    *,
    batch: int = 1,
    size: int | tuple[int, int] | None = None,
) -> Iterator[Num[Array | np.ndarray, "..."]]:
    """The same clips of each video, in order and once: what an encoder is evaluated on.

    Args:
      videos: what `videos` found; or an array `[N, L, H, W]` or `[N, L, H, W, C]` of videos of L frames.
      draw: `draw(length)` gives `[..., T]` places in a video of so many frames, such as `samplers.spread_clips` with its other values bound.
      batch: how many videos of an array at a time, but for a few fewer where it doesn't divide them; those of a folder come one by one.
      size: of the frames of a folder, as for `read_clips`.

    Returns:
      An iterator of `[b, ..., T, H, W]` or `[b, ..., T, H, W, C]`: of an array in its kind and dtype, of a folder uint8 as `read_clips` gives them.

    Raises:
      TypeError, ValueError: an argument of another kind, shape or range; no size for a folder; a file that is no picture that can be read.

    >>> videos = np.arange(30).reshape(3, 10, 1, 1)
    >>> [clips[..., 0, 0].tolist() for clips in evaluation_clips(videos, lambda length: [[0, 1], [length - 2, length - 1]], batch=2)]
    [[[[0, 1], [8, 9]], [[10, 11], [18, 19]]], [[[20, 21], [28, 29]]]]
    """
    check.integer("batch", batch, at_least=1)
    if not callable(draw):
        raise TypeError(f"draw must be a function, got {type(draw).__name__}")
    if isinstance(videos, Videos):
        if size is None:
            raise ValueError("size must be given for the videos of a folder, whose frames may have any")
        found = map(frames_of, videos.paths)
        return (read_clips([frames], np.asarray(draw(len(frames)))[None], size=size) for frames in found)
    if np.ndim(videos) not in (4, 5):
        raise ValueError(f"videos must have shape [N, L, H, W] or [N, L, H, W, C], got {list(np.shape(videos))}")
    places = np.asarray(draw(np.shape(videos)[1]))
    parts = np.array_split(np.arange(len(videos)), -(-len(videos) // batch))
    return (videos[part.reshape(-1, *[1] * places.ndim), places] for part in parts)


class ClipBatches:
    """Batches of clips of videos, for ever, as `train.fit` takes them: epochs without replacement, this process's share, and they can be resumed.

    Args:
      key: a PRNG key; the order of the videos hangs on it, and with the step the frames of their clips.
      videos: what `videos` found.
      batch: how many videos a batch is of, those of all processes together.
      draw: `draw(key, lengths, index) -> {name: places}`: which frames the clips are of, `[B, ..., T]`, in B videos of so many frames.
      size: of the frames, as for `read_clips`.

    Each batch is `{name: clips, ..., "label": [B], "index": [B]}`, with uint8 clips as `read_clips` gives them and each video's place in `videos`.

    Raises:
      TypeError, ValueError: an argument of another kind or range, or more videos a batch than there are.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("run/1", "run/2", "jump/3"):
    ...         (pathlib.Path(folder) / name).mkdir(parents=True)
    ...         Image.new("RGB", (8, 6)).save(pathlib.Path(folder) / name / "1.png")
    ...     first = lambda key, lengths, index: {"clip": np.zeros((len(index), 1), int)}
    ...     batch = next(ClipBatches(jax.random.key(0), videos(folder), 2, first, size=4))
    >>> {name: part.shape for name, part in batch.items()}
    {'clip': (2, 1, 4, 4, 3), 'label': (2,), 'index': (2,)}
    """

    def __init__(self, key: KeyLike, videos: Videos, batch: int, draw: Callable, *, size: int | tuple[int, int]):
        check.key("key", key)
        check.integer("batch", batch, at_least=1, at_most=len(videos))
        if not callable(draw):
            raise TypeError(f"draw must be a function, got {type(draw).__name__}")
        self._key, self._videos, self._batch, self._draw, self._size, self._step = key, videos, batch, draw, size, 0

    def get_state(self) -> dict[str, int]:
        return {"step": self._step}

    def set_state(self, state: dict[str, int]):
        self._step = state["step"]

    def __iter__(self):
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        index = np.asarray(shuffled(self._key, len(self._videos), self._batch, self._step))[jax.process_index() :: jax.process_count()]
        frames = [frames_of(self._videos.paths[place]) for place in index]
        drawn = self._draw(jax.random.fold_in(self._key, self._step), np.array([len(video) for video in frames]), index)
        self._step += 1
        clips = {name: read_clips(frames, places, size=self._size) for name, places in drawn.items()}
        return clips | {"label": self._videos.labels[index], "index": index}


def _folders(root):
    return [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")]


def _read(path, size):
    try:
        return folders.read_picture(path, size, "RGB")
    except Exception as error:  # a damaged file makes the decoders raise whatever they stumble over
        raise ValueError(f"{str(path)!r} is no picture that can be read ({error})") from None
