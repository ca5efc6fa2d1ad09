"""The operators of ONNX as functions of NumPy arrays, in one table.

Each takes its inputs by position, with None for an optional one that is left out, and its attributes by name,
as the specification of ONNX states them for opset 23; it returns one array, or a tuple where the operator has
several outputs. Dtypes stay as they are given.
"""

from . import elementwise, quantized, reductions, shapes, windows
from .base import TABLE

__all__ = ["TABLE", "elementwise", "quantized", "reductions", "shapes", "windows"]
