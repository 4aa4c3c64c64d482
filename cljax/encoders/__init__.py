"""Encoders: flax Linen modules from inputs to embeddings `[B, D]`, float32 whatever they compute in."""

from cljax.encoders.convolutional import ConvNet
from cljax.encoders.mlp import MLP, ProjectionHead
from cljax.encoders.protocol import Encoder

__all__ = ["ConvNet", "Encoder", "MLP", "ProjectionHead"]
