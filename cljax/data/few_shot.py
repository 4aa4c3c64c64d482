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
    if isinstance(split, str) or not isinstance(split, Sequence):
        raise TypeError(f"split must be a tuple of names, got {split!r}")
    for part in split:
        check.choice("split", part, ("train", *CIFAR_FS))
    names = loading.builder("tfds:cifar100", folder=folder).info.features["label"].names
    images, labels = map(np.asarray, loading.load("tfds:cifar100", split="all", folder=folder))
    held_out = {name for part in CIFAR_FS.values() for name in part}
    classes = {"train": [name for name in names if name not in held_out]} | CIFAR_FS
    found = []
    for part in split:
        number = {names.index(name): i for i, name in enumerate(classes[part])}
        rows = np.isin(labels, list(number))
        found.append((images[rows], np.array([number[label] for label in labels[rows].tolist()], np.int32)))
    return found
