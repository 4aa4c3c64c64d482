"""Which classes of a data set are learnt from, and which ones few-shot tasks are made of."""

import os
from collections.abc import Sequence

import numpy as np

from cljax.core import check
from cljax.data import loading

CIFAR_FS = {  # the classes of CIFAR-100; those that are in neither are learnt from
    "validate": (
        *("beaver", "beetle", "butterfly", "camel", "cattle", "crab", "crocodile", "flatfish", "lamp", "maple_tree", "motorcycle", "otter"),
        *("sea", "shark", "television", "tractor"),
    ),
    "test": (
        *("baby", "bed", "bicycle", "chimpanzee", "fox", "leopard", "man", "pickup_truck", "plain", "poppy", "rocket", "rose", "snail"),
        *("sweet_pepper", "table", "telephone", "wardrobe", "whale", "woman", "worm"),
    ),
}


FC100 = {"validate": (8, 11, 13, 16), "test": (0, 7, 12, 14)}  # groups of classes, by their numbers; the classes of the others are learnt from


def cifar_fs(split: Sequence[str] = ("train", "test"), *, folder: str | os.PathLike | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
    """CIFAR-FS: 64 classes of CIFAR-100 to learn from, 16 to validate on and 20 to make tasks of, with 600 images each.

    It is read from `"tfds:cifar100"`, which must be prepared, its two splits together.

    Args:
      split: which of "train", "validate" and "test".
      folder: as in `load`.

    Returns:
      For each `(images, labels)`, in numpy: float32 `[rows, 32, 32, 3]` in [0, 1], int32 `[rows]`, numbers of the part's classes in the order of
      their names.

    Raises:
      TypeError, ValueError: an unknown part; CIFAR-100 isn't prepared.

    Reference:
      Bertinetto et al., "Meta-learning with differentiable closed-form solvers", ICLR 2019, section 4.2.
    """
    _check(split)
    names = loading.builder("tfds:cifar100", folder=folder).info.features["label"].names
    images, labels = map(np.asarray, loading.load("tfds:cifar100", split="all", folder=folder))
    numbers = {part: [names.index(name) for name in CIFAR_FS[part]] for part in CIFAR_FS}
    return _parted(images, labels, numbers, range(len(names)), split)


def fc100(split: Sequence[str] = ("train", "test"), *, folder: str | os.PathLike | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
    """FC100: 60 classes of CIFAR-100 to learn from, 20 to validate on and 20 to make tasks of, those of a group of like classes all in one part.

    It is read from `"tfds:cifar100"`, which must be prepared, its two splits together.

    Args:
      split: which of "train", "validate" and "test".
      folder: as in `load`.

    Returns:
      As `cifar_fs`.

    Raises:
      TypeError, ValueError: an unknown part; CIFAR-100 isn't prepared.

    Reference:
      Oreshkin et al., "TADAM: Task dependent adaptive metric for improved few-shot learning", NeurIPS 2018, section 4.1 and its supplement.
    """
    _check(split)
    columns = loading.load("tfds:cifar100", split="all", features=("image", "label", "coarse_label"), folder=folder)
    images, labels, groups = map(np.asarray, columns)
    numbers = {part: np.unique(labels[np.isin(groups, FC100[part])]).tolist() for part in FC100}
    return _parted(images, labels, numbers, np.unique(labels).tolist(), split)


def _parted(images, labels, numbers, known, split):
    """The images of each part and the numbers of their classes, given those of all parts but the first, in the order of all numbers."""
    elsewhere = {number for part in numbers.values() for number in part}
    numbers = {"train": [number for number in known if number not in elsewhere]} | numbers
    found = []
    for part in split:
        rows = np.isin(labels, numbers[part])
        found.append((images[rows], np.searchsorted(np.sort(numbers[part]), labels[rows]).astype(np.int32)))
    return found


def _check(split):
    if isinstance(split, str) or not isinstance(split, Sequence):
        raise TypeError(f"split must be a tuple of names, got {split!r}")
    for part in split:
        check.choice("split", part, ("train", *CIFAR_FS))
