"""What goes wrong, as classes: one root and a subclass for each way out.

Every subclass also derives from the built-in exception that a caller would expect, so ``except ValueError``
keeps working. A message names the argument, says what came, what is accepted and the way out. Nothing of qrs
is imported here: the native module raises these classes too.
"""

from __future__ import annotations

__all__ = ["FormatError", "NotCalibratedError", "QrsError", "QrsTypeError", "QrsValueError"]


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


def expect(value: object, kind: type, name: str, hint: str = "") -> None:
    """Raise a `QrsTypeError` unless an argument is of a kind; ``hint`` says how to get one."""
    if not isinstance(value, kind):
        raise QrsTypeError(f"{name} is {value!r}, expected a {kind.__name__}{hint}")
