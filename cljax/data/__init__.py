"""Data sets by name: small real ones out of pinned packages, full-size ones through TensorFlow Datasets, all without TensorFlow."""

from cljax.data.catalogue import DATASETS
from cljax.data.dataset import Dataset
from cljax.data.loading import builder, load
from cljax.data.sources import Source

__all__ = ["DATASETS", "Dataset", "Source", "builder", "load"]
