"""Layers: functions with named arrays, in floats or in codes."""

from .activation import Activation
from .attention import MultiHeadAttention
from .base import Layer
from .combine import Add, MeanPool
from .conv import Conv2d
from .embedding import Embedding, Positions
from .function import Function
from .linear import Linear
from .norm import LayerNorm, Normalize
from .softmax import Softmax

__all__ = [
    "Activation",
    "Add",
    "Conv2d",
    "Embedding",
    "Function",
    "Layer",
    "LayerNorm",
    "Linear",
    "MeanPool",
    "MultiHeadAttention",
    "Normalize",
    "Positions",
    "Softmax",
]
