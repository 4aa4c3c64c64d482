"""What a data set that a small package ships consists of."""

import dataclasses
import hashlib
from collections.abc import Callable

from cljax.data.sources import DebianSource, Source
from cljax.data.stdlib import StandardLibrary


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set out of pinned packages; `cljax.data.catalogue` holds those that have a name.

    Attributes:
      name: what `load` is asked for.
      description: one line: what the rows are, and by which licence.
      sources: the files that it is made of.
      read: maps these files, `{path: bytes}`, to `{feature: rows}`, arrays or lists.
      features: maps the module `tensorflow_datasets` to `{feature: connector}`; an `Image` is given as a uint8 array `[height, width, channels]`.
      supervised: which feature is the input and which one the label.
      version: to be raised when `read` or `features` changes: what is cached is known by it and by the sources' hashes.
    """

    name: str
    description: str
    sources: tuple[Source | DebianSource | StandardLibrary, ...]
    read: Callable
    features: Callable
    supervised: tuple[str, str] = ("image", "label")
    version: str = "1.0.0"

    @property
    def sha256(self):
        """The source's SHA-256; of several sources, the SHA-256 of theirs."""
        first, *rest = (source.sha256 for source in self.sources)
        return hashlib.sha256("".join([first, *rest]).encode()).hexdigest() if rest else first

    @property
    def packages(self):
        """The pinned packages, `"scikit-learn==1.9.1"`, separated by blanks."""
        return " ".join(dict.fromkeys(source.requirement for source in self.sources))
