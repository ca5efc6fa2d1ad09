"""The number formats, as the native table has them: what codes there are, and what levels they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _core
from .errors import QrsValueError, quote
from .registry import unknown

__all__ = ["FORMATS", "NAMES", "Format"]


@dataclass(frozen=True, slots=True)
class Format:
    """One row of the native format table: the codes a tensor may hold.

    Attributes
    ----------
    name : str
        The ``dtype`` of a `Scheme`.
    bits : int
        Bits of one packed code; where codes and scales stand together, those of an element, rounded up.
    kind : str
        ``"integer"``: the level of a code is the code; ``"float"``: a floating-point number; ``"table"``:
        one of a fixed table; ``"learned"``: one of a table that comes with the scales of a tensor;
        ``"block"``: codes and scales stand together in blocks of bytes, as in a GGUF file; ``"trellis"``:
        what a code stands for hangs on the codes before, and scales stand apart.
    signed : bool
        Whether codes are two's complement.
    min, max : int
        The lowest and the highest code.
    block : int or None
        Elements along an axis that share a scale, or stand in a block of bytes, where the format prescribes
        it.
    packing : (int, int) or None
        So many elements in so many bytes, which is not ``bits`` for each.
    scale_dtype : str or None
        What scales are stored as, where the format prescribes it.
    fit : str
        The ``fit`` of a `Scheme` that names none.
    overflows : bool
        Whether there is an infinity or a NaN for what is larger than the largest number.
    integral : bool
        Whether weights of it multiply with quantized inputs: levels are multiples of a step within 8 bits.

    Examples
    --------
    >>> Format.named("int4").bits, Format.named("int4").min, Format.named("float8_e4m3fn").kind
    (4, -8, 'float')
    """

    name: str
    bits: int
    kind: str
    signed: bool
    min: int
    max: int
    block: int | None
    packing: tuple[int, int] | None
    scale_dtype: str | None
    fit: str
    overflows: bool
    integral: bool

    @staticmethod
    @cache
    def named(name: str) -> Format:
        """Give the format of a name: a row of `FORMATS`, or one that a grammar describes.

        ``float:eXmY`` has X bits of exponent and Y of mantissa. ``trellis:B:L=N:code=C`` has B bits and N bits
        of state, ``tcq:B:states=N`` N states; what is left out is usual, and ``name`` leaves out what is usual.

        Parameters
        ----------
        name : str

        Returns
        -------
        Format

        Raises
        ------
        QrsValueError
            If there is none.
        """
        row = FORMATS.get(name)
        if row is None:
            try:
                row = Format(**_core.format(name))
            except ValueError:
                for start, form in GRAMMARS.items():
                    if name.startswith(start):
                        raise QrsValueError(f"dtype is {quote(name)}, expected {form}") from None
                raise unknown("dtype", name, (*FORMATS, *NAMES)) from None
        return row

    @property
    def levels(self) -> NDArray[np.float32]:
        """Level of each code from ``min`` to ``max``, of each state of a trellis.

        Codes of a learned format are their own; blocks have none.
        """
        return np.asarray(_core.levels(self.name))

    @property
    def code_dtype(self) -> np.dtype[Any]:
        """Type of an array with one code for each element."""
        return np.dtype(f"{'i' if self.signed else 'u'}{1 if self.bits <= 8 else 2}")

    def packed_bytes(self, size: int) -> int:
        """Count the bytes of packed codes: ``ceil(bits * size / 8)`` where there is no `packing`.

        Parameters
        ----------
        size : int
            How many codes.

        Returns
        -------
        int
        """
        if self.packing is None:
            return -(-self.bits * size // 8)
        elements, count = self.packing
        return -(-size // elements) * count

    @property
    def is_ternary(self) -> bool:
        """Whether there are three codes, of which five share a byte."""
        return self.max - self.min == 2


# What names that are in no row begin with, and what they look like.
GRAMMARS = {
    "float:": "float:eXmY with X from 1 to 7 bits of exponent and Y of mantissa, 3 to 8 bits or 16 with the sign",
    "trellis:": (
        "trellis:B with 1 to 4 bits, or trellis:B:L=N:code=C with 8 to 16 bits of state and the code table "
        "(L = 8, 10, 12), 1mad, 3inst or quintic"
    ),
    "tcq:": "tcq:B with 1 to 4 bits, or tcq:B:states=N with a power of two from 4 to 256",
}
NAMES = ("float:eXmY", "trellis:B:L=N:code=C", "tcq:B:states=N")
FORMATS: Mapping[str, Format] = {row["name"]: Format(**row) for row in _core.formats()}
