"""Contrastive learning in JAX: losses, samplers, memories and encoders as pure functions."""

import importlib

__version__ = "0.1.0"
__all__ = ["core", "data", "decoding", "encoders", "losses", "memory", "metrics", "pairwise", "retrieval", "samplers", "study", "train", "views"]


def __getattr__(name):
    # Each room is imported when it is first named, so that `import cljax` loads neither flax nor TensorFlow Datasets nor matplotlib.
    if name in __all__:
        return importlib.import_module(f"cljax.{name}")
    raise AttributeError(f"module 'cljax' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
