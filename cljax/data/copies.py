"""Copies of what packages ship, in a folder of the user's: whole or not there, and checked whenever they are used."""

import contextlib
import os
import pathlib
import tempfile
import warnings

from cljax.core import provenance


def root(folder: str | os.PathLike | None = None) -> pathlib.Path:
    """Where data lie: copies of what packages ship, prepared sets, and folders of your own.

    Args:
      folder: a path, or None.

    Returns:
      `folder` as an absolute path; by default the environment variable `CLJAX_DATA`, else `~/.cache/cljax`.

    Raises:
      TypeError: `folder` is neither a path nor None.
    """
    if not isinstance(folder, (str, os.PathLike, type(None))):
        raise TypeError(f"folder must be a path or None, got {type(folder).__name__}")
    return pathlib.Path(folder or os.environ.get("CLJAX_DATA") or "~/.cache/cljax").expanduser().absolute()


def note(place, rows, digest):
    """Records that a user's own data was read: by its way in the folder of data sets where it lies there, else by its name."""
    place = pathlib.Path(place).absolute()
    name = place.relative_to(root()).as_posix() if root() in place.parents else place.name
    provenance.record(name, rows=rows, digest=f"sha256:{digest}", package="folder")


def ensure(path, folder, make):
    """Sees to it that the copy `path`, in `folder`, is there as it was made; of several processes that make it the first wins.

    A copy is sealed with the SHA-256 of its files; one that is not what was written is made anew, with a warning that names the file.

    Args:
      path: the copy.
      folder: what `root` gives.
      make: `make(scratch)` writes the copy somewhere in the folder `scratch` and returns where.

    Raises:
      ValueError: the folder can't be written, or the files are not to be had or are others than expected.
    """
    damaged = provenance.broken(path) if path.is_dir() else None
    if damaged:
        warnings.warn(f"{path / damaged} is damaged or missing: the copy is made anew", stacklevel=3)
    if damaged or not path.is_dir():
        try:
            _make(path, damaged, make)
        except OSError as error:
            raise ValueError(f"folder={str(folder)!r} cannot be written: {error.strerror or error}") from error
        except ValueError as error:
            if not damaged:
                raise
            raise ValueError(f"{path / damaged} is damaged or missing, and the copy cannot be made anew: {error}") from None


def _make(path, damaged, make):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".incomplete-") as scratch:
        made = make(pathlib.Path(scratch))
        provenance.seal(made)
        if damaged:
            with contextlib.suppress(FileNotFoundError):  # another process was quicker
                os.rename(path, os.path.join(scratch, "damaged"))
        try:
            os.rename(made, path)
        except OSError:
            if not path.is_dir():
                raise
