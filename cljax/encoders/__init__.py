"""Encoders: flax Linen modules from inputs to embeddings `[B, D]`, float32 whatever they compute in."""

from cljax.encoders.bag import BagOfTokens, DeepAveraging
from cljax.encoders.chain import Chain, chained, with_head
from cljax.encoders.conv1d import ConvNet1D
from cljax.encoders.conv3d import ConvNet3D
from cljax.encoders.convolutional import ConvNet
from cljax.encoders.decoder import Cache, Decoder
from cljax.encoders.mlp import MLP, Autoencoder, ProjectionHead
from cljax.encoders.parts import embed, in_lists, in_parts
from cljax.encoders.pretrained import load_pretrained, save_pretrained
from cljax.encoders.prompt import prompted
from cljax.encoders.protocol import Encoder
from cljax.encoders.resnet import ResNet, ResNet3D, resnet3d50, resnet18, resnet50
from cljax.encoders.text import TextTransformer
from cljax.encoders.training import apply_in_training
from cljax.encoders.vocabulary import add_tokens
from cljax.encoders.weight_norm import WeightNormHead

__all__ = [
    "Autoencoder",
    "BagOfTokens",
    "Cache",
    "Chain",
    "ConvNet",
    "ConvNet1D",
    "ConvNet3D",
    "Decoder",
    "DeepAveraging",
    "Encoder",
    "MLP",
    "ProjectionHead",
    "ResNet",
    "ResNet3D",
    "TextTransformer",
    "WeightNormHead",
    "add_tokens",
    "apply_in_training",
    "chained",
    "embed",
    "in_lists",
    "in_parts",
    "load_pretrained",
    "prompted",
    "resnet18",
    "resnet3d50",
    "resnet50",
    "save_pretrained",
    "with_head",
]
