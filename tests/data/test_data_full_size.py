"""The full-size sets that experiments ask for by name, in a small copy of the layout in which TensorFlow Datasets prepares them."""

import sys

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from cljax import data

SETS = {
    "cifar10": ("3.0.2", 10, ("id", "image", "label"), ("train", "test")),
    "cifar100": ("3.0.2", 100, ("id", "image", "label", "coarse_label"), ("train", "test")),
    "svhn_cropped": ("3.1.0", 10, ("image", "label"), ("train", "test", "extra")),
}
HELD_OUT = {name for part in data.CIFAR_FS.values() for name in part}
NAMES = sorted([*HELD_OUT, *(f"{letter}{n}" for letter in "abcdefghijklmnop" for n in range(4))])  # the others' names don't matter
ROWS = {"train": 6, "test": 3, "extra": 2}


class Prepared(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes a set's features and splits as its own builder does, with few rows."""

    url_infos = None

    def __init__(self, name, folder):
        self.name, (version, self.classes, self.kept, self.splits) = name, SETS[name]
        self.VERSION = tfds.core.Version(version)
        super().__init__(data_dir=folder, file_format="array_record")

    def _info(self):
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(32, 32, 3)),
            "label": tfds.features.ClassLabel(names=NAMES) if self.classes == 100 else tfds.features.ClassLabel(num_classes=self.classes),
            "coarse_label": tfds.features.ClassLabel(num_classes=20),
        }
        kept = tfds.features.FeaturesDict({name: features[name] for name in self.kept})
        return tfds.core.DatasetInfo(builder=self, features=kept, supervised_keys=("image", "label"))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in self.splits}

    def _generate_examples(self, split):
        for i in range(ROWS[split]):
            image = Image.fromarray(np.full((32, 32, 3), (25 * i + len(split)) % 256, np.uint8))
            row = {"id": f"{split}_{i}", "image": image, "label": (7 * i) % self.classes, "coarse_label": i % 20}
            yield i, {name: row[name] for name in self.kept}


@pytest.mark.parametrize("name", SETS)
def test_a_full_size_set_is_read_by_its_splits(name, tmp_path, caplog):
    Prepared(name, tmp_path).download_and_prepare()
    (x, y), (test_x, test_y) = data.load(f"tfds:{name}", split=("train", "test"), folder=tmp_path)
    assert (x.shape, x.dtype, y.dtype, test_x.shape) == ((6, 32, 32, 3), np.float32, np.int32, (3, 32, 32, 3))
    rows = np.rint((np.asarray(x)[:, 0, 0, 0] * 255 - len("train")) / 25).astype(int)
    assert sorted(rows) == list(range(6)) and y.tolist() == [(7 * row) % SETS[name][1] for row in rows]
    assert float(np.max(x)) <= 1 and len(test_y) == 3
    shuffled, _ = data.load(f"tfds:{name}", split="train[:50%]", folder=tmp_path, key=jax.random.key(0))
    assert shuffled.shape == (3, 32, 32, 3)
    (first, _), (rest, _) = data.load(f"tfds:{name}", split=(5, 4), key=jax.random.key(0), folder=tmp_path)
    assert len(first) == 5 and len(rest) == 4
    assert "tensorflow" not in sys.modules and not caplog.records  # Pillow decodes; nobody has to install OpenCV


def test_classes_of_cifar_fs_are_parted_and_numbered_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("CLJAX_DATA", str(tmp_path))
    monkeypatch.setitem(ROWS, "train", 200)  # row i is of class 7 i mod 100: two of each
    Prepared("cifar100", tmp_path).download_and_prepare()
    parts = dict(zip(("test", "train", "validate"), data.cifar_fs(("test", "train", "validate")), strict=True))
    assert {name: (len(x), len(set(y.tolist())), y.max()) for name, (x, y) in parts.items()} == {
        "test": (40 + np.isin([0, 7, 14], [NAMES.index(name) for name in data.CIFAR_FS["test"]]).sum(), 20, 19),
        "train": (128 + np.isin([0, 7, 14], [i for i, name in enumerate(NAMES) if name not in HELD_OUT]).sum(), 64, 63),
        "validate": (32 + np.isin([0, 7, 14], [NAMES.index(name) for name in data.CIFAR_FS["validate"]]).sum(), 16, 15),
    }
    images, labels = parts["test"]
    assert images.shape[1:] == (32, 32, 3) and images.dtype == np.float32 and labels.dtype == np.int32
    everything, known = map(np.asarray, data.load("tfds:cifar100", split="all"))
    for name, number in (("baby", 0), ("worm", 19)):  # the first and the last by name
        np.testing.assert_array_equal(images[labels == number], everything[known == NAMES.index(name)])
    assert [len(names) for names in data.CIFAR_FS.values()] == [16, 20] and len(HELD_OUT) == 36
    with pytest.raises(ValueError, match="split must be one of 'train', 'validate', 'test', got 'val'"):
        data.cifar_fs(("val",))


def test_groups_of_classes_are_parted_in_fc100(tmp_path, monkeypatch):
    monkeypatch.setenv("CLJAX_DATA", str(tmp_path))
    monkeypatch.setitem(ROWS, "train", 100)  # row i is of class 7 i mod 100 and of group i mod 20
    Prepared("cifar100", tmp_path).download_and_prepare()
    parts = dict(zip(("train", "validate", "test"), data.fc100(("train", "validate", "test")), strict=True))
    assert {name: (len(x), y.min(), y.max(), len(set(y.tolist()))) for name, (x, y) in parts.items()} == {
        "train": (62, 0, 59, 60),  # three more rows are of groups 0, 1 and 2
        "validate": (20, 0, 19, 20),
        "test": (21, 0, 19, 20),
    }
    classes = np.sort([7 * row % 100 for row in range(100) if row % 20 in data.FC100["test"]])
    images, known = map(np.asarray, data.load("tfds:cifar100", split="all"))
    for image, number in zip(*parts["test"], strict=True):
        assert (image == images[known == classes[number]]).all(axis=(1, 2, 3)).any()
    assert sorted(number for part in data.FC100.values() for number in part) == [0, 7, 8, 11, 12, 13, 14, 16]
    with pytest.raises(TypeError, match="split must be a tuple of names, got 'test'"):
        data.fc100("test")
