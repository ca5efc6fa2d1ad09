"""The native surface: everything the Rust core offers to Python, in one list.

Arrays are C-contiguous and in native byte order; flat per-cell arrays hold one entry for each cell of the
grid that ``shape`` and ``block`` span (one block length per axis; cells are numbered in C order).
Every function releases the interpreter lock while it works.
"""

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
U8 = NDArray[np.uint8]
Shape = tuple[int, ...]
Cells = tuple[F32, I32, F32 | None]  # scale, zero point of each cell, levels of a learned format

class InternalError(RuntimeError): ...

__version__: str

# the machine
def isa() -> str: ...
def set_isa(name: str) -> None: ...
def available_isas() -> list[str]: ...
def kernels() -> list[dict[str, Any]]: ...
def get_num_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...

# tables
def formats() -> list[dict[str, Any]]: ...  # the fields of qrs.Format
def format(name: str) -> dict[str, Any]: ...  # also of names that are not listed
def levels(format: str) -> F32: ...  # of each code from the lowest on
def roundings() -> list[str]: ...
def fits() -> list[str]: ...
def activations() -> list[str]: ...
def scale_dtypes() -> list[str]: ...

# ranges and parameters
def qparams(
    lo: F32, hi: F32, format: str, symmetric: bool, narrow_range: bool, scale_dtype: str
) -> tuple[F32, I32]: ...
def turns(format: str, symmetric: bool, narrow_range: bool, scale_dtype: str) -> bool: ...  # fitted scales
def fit(
    x: F32,
    importance: F32 | None,
    block: Shape,
    fit: str,
    format: str,
    symmetric: bool,
    narrow_range: bool,
    scale_dtype: str,
    check_finite: bool,
) -> Cells: ...

# representation
def quantize(
    x: F32,
    importance: F32 | None,
    block: Shape,
    cells: Cells,
    format: str,
    narrow_range: bool,
    rounding: str,
    seed: int,
    check_finite: bool,
    saturate: bool,
    out: U8,
) -> None: ...
def dequantize(
    codes: U8, block: Shape, cells: Cells, format: str, out: F32
) -> None: ...  # out carries the shape
def dequantize_rows(
    codes: U8,
    shape: Shape,
    block: Shape,
    cells: Cells,
    format: str,
    rows: NDArray[np.int64],
    out: F32,
) -> None: ...  # shape is (rows, columns); out is (len(rows), columns)
def fake_quantize(
    x: F32,
    block: Shape,
    cells: Cells,
    format: str,
    narrow_range: bool,
    rounding: str,
    seed: int,
    saturate: bool,
    out: F32,
) -> None: ...
def pack(values: I32, format: str) -> U8: ...
def unpack(codes: U8, format: str, count: int) -> NDArray[Any]: ...  # int8, uint8, int16 or uint16

# reductions, one entry per cell
def min_max(x: F32, block: Shape, check_finite: bool) -> tuple[F32, F32]: ...
def moments(x: F32, block: Shape) -> tuple[F64, F64]: ...  # sum, sum of squares

# sum x², sum y², sum xy, sum (x−y)², max |x−y|
def error_sums(x: F32, y: F32) -> tuple[float, float, float, float, float]: ...

# products
def matmul_integer(
    a: NDArray[Any], b: NDArray[Any], a_zero_point: int, b_zero_point: int, out: I32
) -> None: ...

# entropy-coded streams
def entropy_encode(
    x: F32, importance: F32 | None, bits: float | None, step: float | None, states: int
) -> bytes: ...
def entropy_len(stream: U8) -> int: ...
def entropy_decode(stream: U8, out: F32) -> None: ...

@final
class Input:
    """How the float32 input of a product becomes integer codes."""

    @staticmethod
    def dynamic(format: str, symmetric: bool, narrow_range: bool, per_token: bool) -> Input: ...
    @staticmethod
    def blocks16() -> Input: ...
    @staticmethod
    def static_(format: str, scale: float, zero_point: int, narrow_range: bool) -> Input: ...

@final
class Panels:
    """A quantized weight (n, k) packed for products: sixteen columns side by side, k runs of four."""

    def __new__(cls, codes: U8, shape: Shape, block: Shape, cells: Cells, format: str) -> Panels: ...
    @property
    def nbytes(self) -> int: ...
    def linear(
        self,
        x: F32,
        bias: F32 | None,
        activation: str,
        input: Input | None,
        out: F32,
    ) -> None: ...  # x (..., k), out (..., n)
    def linear_requantized(
        self,
        x: F32,
        bias: F32 | None,
        activation: str,
        input: Input | None,
        format: str,
        scale: float,
        zero_point: int,
        narrow_range: bool,
        out: NDArray[Any],
    ) -> None: ...  # out int8 or uint8

@final
class Filters:
    """A quantized weight (filters, channels, height, width) packed for convolutions in groups."""

    def __new__(
        cls,
        codes: U8,
        shape: Shape,
        block: Shape,
        cells: Cells,
        format: str,
        groups: int,
    ) -> Filters: ...
    @property
    def groups(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    def conv2d(
        self,
        x: F32,
        bias: F32 | None,
        activation: str,
        input: Input | None,
        stride: tuple[int, int],
        padding: tuple[int, int, int, int],
        dilation: tuple[int, int],
        out: F32,
    ) -> None: ...  # x (batch, channels, h, w), out (batch, filters, ...), padding (top, left, bottom, right)

# float32 operations beside the products
def activate(x: F32, activation: str, out: F32) -> None: ...
def softmax(x: F32, out: F32) -> None: ...  # along the last axis
def layer_norm(x: F32, residual: F32 | None, weight: F32, bias: F32 | None, eps: float, out: F32) -> None: ...
def attention(
    q: F32, k: F32, v: F32, mask: F32 | None, heads: int, scale: float, out: F32
) -> None: ...  # q (batch, m, width), k and v (batch, n, width), mask (batch, n) added to the scores
