"""A folder of videos, as pictures of their frames, that are read a clip at a time: of sets too large for memory."""

import os
import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Integer

from cljax.core import check
from cljax.data import folders


class Videos(NamedTuple):
    """What `videos` finds.

    Attributes:
      paths: the folder of each video.
      labels: int32 `[N]`, places in `names`.
      names: the classes.
    """

    paths: tuple[pathlib.Path, ...]
    labels: np.ndarray
    names: tuple[str, ...]


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


def _folders(root):
    return [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")]


def _read(path, size):
    try:
        return folders.read_picture(path, size, "RGB")
    except Exception as error:  # a damaged file makes the decoders raise whatever they stumble over
        raise ValueError(f"{str(path)!r} is no picture that can be read ({error})") from None
