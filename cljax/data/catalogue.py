"""The data sets that small packages ship, by name."""

import gzip

import numpy as np

from cljax.data.dataset import Dataset
from cljax.data.sources import Source


def _read_digits(files):
    (content,) = files.values()
    table = np.loadtxt(gzip.decompress(content).decode().splitlines(), delimiter=",", dtype=np.float32)
    return {"image": table[:, :-1].reshape(-1, 8, 8) / 16, "label": table[:, -1].astype(np.int64)}


DIGITS = Dataset(
    name="digits",
    description="1797 handwritten digits, 8 x 8 grey images in [0, 1], ten classes (UCI optical recognition of handwritten digits; BSD-3-Clause).",
    sources=(
        Source("scikit-learn", "1.9.1", "sklearn/datasets/data/digits.csv.gz", "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"),
    ),
    read=_read_digits,
    features=lambda tfds: {"image": tfds.features.Tensor(shape=(8, 8), dtype=np.float32), "label": tfds.features.ClassLabel(num_classes=10)},
)

DATASETS = {dataset.name: dataset for dataset in (DIGITS,)}
