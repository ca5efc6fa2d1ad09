"""What goes wrong, as classes: one root and a subclass for each way out.

Every subclass also derives from the built-in exception that a caller would expect, so ``except ValueError``
keeps working. A message names the argument, says what came, what is accepted and the way out. Nothing of qrs
is imported here: the native module raises these classes too.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from typing import TypeVar

__all__ = [
    "FormatError",
    "NotCalibratedError",
    "QrsError",
    "QrsTypeError",
    "QrsValueError",
    "expect",
    "expect_all",
    "quote",
]

T = TypeVar("T")
_LONGEST = 400


class QrsError(Exception):
    """Root of every error that qrs raises on purpose."""


class QrsValueError(QrsError, ValueError):
    """A value, shape, name or range that the call cannot accept."""


class QrsTypeError(QrsError, TypeError):
    """An argument of the wrong type, or an array of the wrong dtype."""


class FormatError(QrsError, ValueError):
    """Saved data that is damaged, foreign, or newer than this version; the message names the field."""


class NotCalibratedError(QrsError, RuntimeError):
    """A range was asked for before any data was seen."""


class _Short(reprlib.Repr):
    """``repr`` with bounds that keep the names of a model's layers legible."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxfrozenset = 20
        self.maxstring = self.maxother = _LONGEST // 2

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write integers of more than 4300 digits.
        return repr(x) if x.bit_length() <= 1024 else f"<int of {x.bit_length()} bits>"


_short = _Short()


def quote(value: object) -> str:
    """Write a value into a message: its ``repr``, cut in the middle where it is long.

    Examples
    --------
    >>> quote("int8"), quote([1, 2])
    ("'int8'", '[1, 2]')
    >>> len(quote(range(10**6))), len(quote(list(range(10**6)))), quote(10**5000)
    (17, 75, '<int of 16610 bits>')
    """
    text = _short.repr(value)
    half = _LONGEST // 2
    return text if len(text) <= _LONGEST else f"{text[:half]}...{text[-half:]}"


def expect(value: object, kind: type, name: str, hint: str = "") -> None:
    """Raise a `QrsTypeError` unless an argument is of a kind; ``hint`` says how to get one."""
    if not isinstance(value, kind):
        raise QrsTypeError(f"{name} is {quote(value)}, expected a {kind.__name__}{hint}")


def expect_all(values: object, kind: type[T], name: str) -> tuple[T, ...]:
    """Take an iterable of one kind as a tuple; a string is refused, since its letters are no list of names.

    Examples
    --------
    >>> expect_all(["x", "mask"], str, "inputs")
    ('x', 'mask')
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise QrsTypeError(f"{name} is {quote(values)}, expected a list of {kind.__name__}")
    taken = tuple(values)
    for value in taken:
        if not isinstance(value, kind):
            raise QrsTypeError(f"{name} hold {quote(value)}, expected {kind.__name__}")
    return taken
