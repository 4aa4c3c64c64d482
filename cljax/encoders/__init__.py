"""Encoders: flax Linen modules from inputs to embeddings `[B, D]`, float32 whatever they compute in."""

from cljax.encoders.chain import Chain
from cljax.encoders.convolutional import ConvNet
from cljax.encoders.mlp import MLP, ProjectionHead
from cljax.encoders.protocol import Encoder
from cljax.encoders.resnet import ResNet, resnet18, resnet50

__all__ = ["Chain", "ConvNet", "Encoder", "MLP", "ProjectionHead", "ResNet", "resnet18", "resnet50"]
