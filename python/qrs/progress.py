"""How long work tells how far it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeAlias, TypeVar

from .errors import QrsTypeError, quote

__all__ = ["Progress", "track"]

T = TypeVar("T")
Progress: TypeAlias = bool | Callable[[int, int | None], None] | None


def track(items: Iterable[T], progress: Progress, label: str, total: int | None = None) -> Iterator[T]:
    """Yield items and report each finished one.

    Parameters
    ----------
    items : iterable
    progress : None, bool or callable
        None and False report nothing. True shows a bar of ``tqdm``, or a counter on the standard error stream
        when ``tqdm`` is not installed. A callable is called as ``progress(done, total)``, with total None
        when unknown.
    label : str
        What the bar is called.
    total : int, optional
        Number of items; taken from ``len`` when possible.

    Raises
    ------
    QrsTypeError
        When ``progress`` is none of these.

    Examples
    --------
    >>> list(track("ab", lambda done, total: print(done, "of", total), "letters"))
    1 of 2
    2 of 2
    ['a', 'b']
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if progress is None or progress is False:
        return iter(items)
    if progress is not True:
        if not callable(progress):
            raise QrsTypeError(f"progress is {quote(progress)}, expected None, True or a callable")
        return _told(items, progress, total)
    try:
        from tqdm import tqdm  # type: ignore[import-untyped]
    except ImportError:
        return _told(items, _counter(label), total)
    return iter(tqdm(items, desc=label, total=total))


def _told(items: Iterable[T], tell: Callable[[int, int | None], None], total: int | None) -> Iterator[T]:
    for done, item in enumerate(items, 1):
        yield item
        tell(done, total)


def _counter(label: str) -> Callable[[int, int | None], None]:
    def show(done: int, total: int | None) -> None:
        of = "" if total is None else f"/{total}"
        end = "\n" if done == total else ""
        sys.stderr.write(f"\r{label} {done}{of}{end}")
        sys.stderr.flush()

    return show
