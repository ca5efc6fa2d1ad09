"""Low-bit tensors and models, quantized and run in integers on CPUs.

>>> import numpy as np, qrs
>>> w = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
>>> q = qrs.quantize(w, qrs.Scheme("int8", qrs.per_channel(0)))
>>> q
QTensor(Scheme('int8', per_channel(0)), shape=(3, 4), 24 bytes, 16 bits per element)
>>> bool(qrs.compare(w, q).sqnr_db > 40)
True
"""

from . import entropy, nn, observers, onnx, testing
from ._core import InternalError, __version__
from .calibration import Statistics, calibrate, load_stats
from .errors import FormatError, NotCalibratedError, QrsError, QrsTypeError, QrsValueError
from .io import load
from .machine import available_isas, get_num_threads, isa, kernels, set_isa, set_num_threads
from .metrics import Comparison, compare
from .model import Model, Node
from .ops import Dynamic, Static, fake_quantize, linear, matmul_integer, quantize
from .qtensor import QTensor
from .quantization import quantize_model
from .recipe import Recipe, Rule
from .report import Report
from .scheme import (
    FORMATS,
    Format,
    Granularity,
    QParams,
    Scheme,
    per_block,
    per_channel,
    per_group,
    per_tensor,
    per_token,
)

__all__ = [
    "FORMATS",
    "Comparison",
    "Dynamic",
    "Format",
    "FormatError",
    "Granularity",
    "InternalError",
    "Model",
    "Node",
    "NotCalibratedError",
    "QParams",
    "QTensor",
    "QrsError",
    "QrsTypeError",
    "QrsValueError",
    "Recipe",
    "Report",
    "Rule",
    "Scheme",
    "Static",
    "Statistics",
    "__version__",
    "available_isas",
    "calibrate",
    "compare",
    "entropy",
    "fake_quantize",
    "get_num_threads",
    "isa",
    "kernels",
    "linear",
    "load",
    "load_stats",
    "matmul_integer",
    "nn",
    "observers",
    "onnx",
    "per_block",
    "per_channel",
    "per_group",
    "per_tensor",
    "per_token",
    "quantize",
    "quantize_model",
    "set_isa",
    "set_num_threads",
    "testing",
]
