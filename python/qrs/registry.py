"""Tables of named kinds: a class enters its table by being defined with an ``id``.

There is one table for each kind of thing (granularity, observer, layer, algorithm). Files, recipes and error
messages speak in ids, so an id keeps its meaning for ever and two classes never share one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar, TypeVar

from .errors import QrsValueError, quote

__all__ = ["Registered", "unknown"]

T = TypeVar("T", bound="Registered")


def unknown(kind: str, got: object, known: Iterable[str]) -> QrsValueError:
    """Build the error for a name that no table holds: it lists the known names and the nearest one.

    Parameters
    ----------
    kind : str
        What was looked up, as a reader would call it (``"rounding"``).
    got : object
        The name that came; anything, since it may come from a file.
    known : iterable of str
        The names that are accepted, in the order in which to list them.

    Returns
    -------
    QrsValueError
        To be raised by the caller.

    Examples
    --------
    >>> print(unknown("rounding", "half_evn", ["half_even", "floor"]))
    unknown rounding 'half_evn'; did you mean 'half_even'? known: half_even, floor
    """
    names = list(known)
    near = difflib.get_close_matches(got[:100], names, n=1) if isinstance(got, str) else []
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return QrsValueError(f"unknown {kind} {quote(got)}{hint} known: {', '.join(names) or 'none'}")


class Registered:
    """Base of every kind that is found by id.

    A direct subclass opens a table with ``kind=``; its own subclasses enter that table with ``id=``. A
    subclass without an ``id`` stands outside of the table and may serve as a base of further rows; it sees
    those rows alone.

    Examples
    --------
    >>> class Colour(Registered, kind="colour"): ...
    >>> class Red(Colour, id="red"): ...
    >>> Colour.by_id("red") is Red, Colour.ids()
    (True, ['red'])
    """

    kind: ClassVar[str] = "entry"
    id: ClassVar[str] = ""
    _table: ClassVar[dict[str, type[Any]]] = {}

    def __init_subclass__(cls, *, kind: str | None = None, id: str | None = None) -> None:
        super().__init_subclass__()
        cls.id = ""
        if kind is not None:
            cls.kind = kind
            cls._table = {}
        if id is None:
            return
        if not id:
            raise QrsValueError(f"id of {cls.__name__} is empty; choose one")
        taken = cls._table.get(id)
        if taken is not None:
            raise QrsValueError(
                f"{cls.kind} id {id!r} of {cls.__module__}.{cls.__qualname__} is taken by "
                f"{taken.__module__}.{taken.__qualname__}; choose another id"
            )
        cls.id = id
        cls._table[id] = cls

    @classmethod
    def ids(cls) -> list[str]:
        """List the ids of this kind, sorted."""
        return sorted(name for name, row in cls._table.items() if issubclass(row, cls))

    @classmethod
    def written_id(cls) -> str:
        """Return the id by which a file names this class.

        Raises
        ------
        QrsValueError
            If the class has none, so that nobody could read the file again.
        """
        if not cls.id:
            raise QrsValueError(
                f"{cls.__name__} has no id by which a file could name it; define the {cls.kind} with id="
            )
        return cls.id

    @classmethod
    def by_id(cls: type[T], id: object) -> type[T]:
        """Find the class behind an id.

        Raises
        ------
        QrsValueError
            If no class of this kind has the id; the message lists those that have one and the nearest.
        """
        found = cls._table.get(id) if isinstance(id, str) else None
        if found is None or not issubclass(found, cls):
            raise unknown(cls.kind, id, cls.ids())
        return found
