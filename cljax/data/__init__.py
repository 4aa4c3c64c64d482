"""Data sets by name: small real ones out of pinned packages, full-size ones through TensorFlow Datasets, all without TensorFlow; and a user's own."""

from cljax.data.catalogue import DATASETS
from cljax.data.dataset import Dataset
from cljax.data.folders import Pictures, images
from cljax.data.loading import builder, load
from cljax.data.sources import DebianSource, Source
from cljax.data.tables import pairs

__all__ = ["DATASETS", "Dataset", "DebianSource", "Pictures", "Source", "builder", "images", "load", "pairs"]
