"""A folder of pictures as arrays."""

import hashlib
import os
import pathlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from cljax.core import check
from cljax.data import copies


class Pictures(NamedTuple):
    """What `images` reads.

    Attributes:
      images: `[N, height, width, channels]`.
      labels: int32 `[N]`, places in `names`.
      names: the classes.
      skipped: paths of the broken files that were left out, relative to the folder.
    """

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    skipped: tuple[str, ...]


def images(
    folder: str | os.PathLike,
    *,
    size: int | tuple[int, int] | None = None,
    channels: Literal[1, 3] = 3,
    dtype: Literal["float32", "uint8"] = "float32",
    skip_broken: bool = False,
) -> Pictures:
    """Reads a folder of pictures into memory: each folder in it is a class, `folder/cat/1.png`.

    Classes and files are taken in the order of their names; a class may have folders of its own. Without any folder all pictures are of one class,
    named like the folder itself. Files that aren't named like pictures (`.txt`), and hidden ones, are passed over.

    Args:
      folder: the folder.
      size: an int or `(height, width)` in pixels: each picture is scaled to cover it and cropped around its centre. None: they must be of one size.
      channels: 3 for colour, 1 for grey.
      dtype: "float32" gives values in [0, 1], which the views and the data sets have; "uint8" gives 0 to 255 in a quarter of the memory.
      skip_broken: leave out files that can't be read as pictures; `skipped` names them.

    Returns:
      `Pictures(images, labels, names, skipped)`, in numpy.

    Raises:
      TypeError: an argument of a wrong kind.
      ValueError: no such folder, no picture in it, a broken file (its path), pictures of several sizes without `size`, or a bad size.
    """
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"folder must be a path, got {type(folder).__name__}")
    for side in () if size is None else size if isinstance(size, (tuple, list)) and len(size) == 2 else (size,):
        check.integer("size", side, at_least=1)
    check.choice("channels", channels, (1, 3))
    check.choice("dtype", dtype, ("float32", "uint8"))
    root, wanted = pathlib.Path(folder), (size, size) if isinstance(size, (int, np.integer)) else size
    if not root.is_dir():
        raise ValueError(f"folder must be a folder of pictures, got {str(folder)!r}, which is {'a file' if root.exists() else 'not there'}")
    found, labels, skipped = [], [], []
    files = _files(root)
    names = tuple(sorted({name for name, _ in files}))
    for name, path in files:
        place = path.relative_to(root).as_posix()
        try:
            found.append(read_picture(path, wanted, "RGB" if channels == 3 else "L"))
        except Exception as error:  # a damaged file makes the decoders raise whatever they stumble over
            if not skip_broken:
                raise ValueError(f"{place!r} in {str(folder)!r} is no picture that can be read ({error}); skip_broken=True leaves such out") from None
            skipped.append(place)
            continue
        if found[-1].shape != found[0].shape:
            sizes = " and ".join(str(image.shape[:2]) for image in (found[0], found[-1]))
            raise ValueError(f"the pictures in {str(folder)!r} differ in height and width, {sizes} ({place!r}): give size=")
        labels.append(names.index(name))
    if not found:
        raise ValueError(f"folder must hold a picture at least, got {str(folder)!r} with {len(skipped)} broken ones and no other")
    stacked = np.stack(found)
    copies.note(root, len(stacked), hashlib.sha256(stacked).hexdigest())
    return Pictures(stacked if dtype == "uint8" else stacked / np.float32(255), np.array(labels, np.int32), names, tuple(skipped))


def image_sets(folder: str | os.PathLike, parts: Sequence[str] = ("train", "validate"), **options) -> tuple[Pictures, ...]:
    """Reads the parts of a set of pictures, or the domains, each as `images` does: `folder/train/cat/1.png`.

    Args:
      folder: the folder.
      parts: the folders in it.
      **options: those of `images`.

    Returns:
      The `Pictures` of each part.

    Raises:
      TypeError: an argument of a wrong kind.
      ValueError: a part that `images` refuses, or parts with different classes.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for i, picture in enumerate(("photographs/bus", "photographs/car", "drawings/bus", "drawings/car")):
    ...         (pathlib.Path(folder) / picture).mkdir(parents=True)
    ...         Image.new("RGB", (9, 9), (i, i, i)).save(pathlib.Path(folder) / picture / "1.png")
    ...     [float(found.images.mean()) for found in image_sets(folder, ("photographs", "drawings"), dtype="uint8")]
    [0.5, 2.5]
    """
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"folder must be a path, got {type(folder).__name__}")
    if isinstance(parts, str) or not isinstance(parts, Sequence) or not parts:
        raise TypeError(f"parts must be a tuple of names, at least one, got {parts!r}")
    found = tuple(images(pathlib.Path(folder) / part, **options) for part in parts)
    check_classes(folder, parts, found)
    return found


def check_classes(folder, parts, found):
    """Raises where what was found in the parts of a folder has different classes, its `names`."""
    for part, read in zip(parts, found, strict=True):
        if read.names != found[0].names:
            raise ValueError(f"{str(folder)!r} must have the same classes in {parts[0]} and {part}, got {found[0].names} and {read.names}")


def _files(root):
    """Pairs of a class and a file that is named like a picture, in order."""
    files = [path for path in sorted(root.rglob("*")) if is_picture(path)]
    files = [path for path in files if not any(part.startswith(".") for part in path.relative_to(root).parts)]
    flat = [path for path in files if path.parent == root]
    if flat and len(flat) < len(files):
        raise ValueError(f"folder must hold either pictures or a folder a class, got {str(root)!r} with both: {flat[0].name!r} belongs to no class")
    return [(root.absolute().name if flat else path.relative_to(root).parts[0], path) for path in files]


def is_picture(path):
    """Whether a file is named like a picture."""
    return path.suffix.lower() in Image.registered_extensions() and not path.name.startswith(".") and path.is_file()


def read_picture(path, size, mode):
    """The picture as an array `[height, width, channels]`, scaled to cover a size and cropped to it."""
    with Image.open(path) as image:
        image = ImageOps.exif_transpose(image).convert(mode)
        if size is not None:
            image = ImageOps.fit(image, size[::-1], Image.Resampling.BICUBIC)
        return np.asarray(image).reshape(*image.size[::-1], -1)
