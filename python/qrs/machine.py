"""The machine: which instruction sets it has, which one is in use, and how many threads large calls take."""

from __future__ import annotations

import sys
from typing import Any

from . import _core
from .arrays import integer
from .errors import QrsValueError, expect

__all__ = ["available_isas", "get_num_threads", "isa", "kernels", "set_isa", "set_num_threads"]


def isa() -> str:
    """Return the instruction set in use: the last `set_isa`, else ``QRS_ISA``, else the highest of this CPU.

    Returns
    -------
    str

    Raises
    ------
    QrsValueError
        If ``QRS_ISA`` is none that this machine runs.

    Examples
    --------
    >>> import qrs
    >>> qrs.isa() in qrs.available_isas()
    True
    """
    return _core.isa()


def available_isas() -> list[str]:
    """Return the instruction sets that this machine runs.

    Returns
    -------
    list of str
        In ascending order.

    Examples
    --------
    >>> import qrs
    >>> qrs.available_isas()[0]
    'portable'
    """
    return _core.available_isas()


def set_isa(name: str) -> None:
    """Use an instruction set from now on, in every thread; results are the same on all of them, bit for bit.

    Parameters
    ----------
    name : str
        One of `available_isas`.

    Raises
    ------
    QrsTypeError
        If ``name`` is not a string.
    QrsValueError
        If this machine does not run it; the message lists those that it does.

    Examples
    --------
    >>> import qrs
    >>> before = qrs.isa()
    >>> qrs.set_isa("portable")
    >>> qrs.isa()
    'portable'
    >>> qrs.set_isa(before)
    """
    expect(name, str, "name", "; qrs.available_isas() lists them")
    _core.set_isa(name)


def get_num_threads() -> int:
    """Return the number of threads that large calls use.

    Returns
    -------
    int
        The last `set_num_threads`, else ``QRS_NUM_THREADS``, else ``OMP_NUM_THREADS``, else the CPUs that
        affinity and container limits leave; at most 256.

    Raises
    ------
    QrsValueError
        If the variable that decides is not a whole number from 1.

    Examples
    --------
    >>> import qrs
    >>> qrs.get_num_threads() >= 1
    True
    """
    return _core.get_num_threads()


def set_num_threads(threads: int) -> None:
    """Set the number of threads that large calls use from now on; results are the same for all, bit for bit.

    Parameters
    ----------
    threads : int
        From 1; more than 256 count as 256.

    Raises
    ------
    QrsTypeError
        If ``threads`` is not an integer.
    QrsValueError
        If it is less than 1.

    Examples
    --------
    >>> import qrs
    >>> before = qrs.get_num_threads()
    >>> qrs.set_num_threads(1)
    >>> qrs.get_num_threads()
    1
    >>> qrs.set_num_threads(before)
    """
    number = integer(threads, "threads")
    if number < 1:
        raise QrsValueError(f"threads is {number}, expected at least 1")
    # What a native integer cannot hold is clamped as well.
    _core.set_num_threads(min(number, sys.maxsize))


def kernels() -> list[dict[str, Any]]:
    """List the kernels of products.

    Returns
    -------
    list of dict
        In the order in which a product asks them: ``name``, ``isa``, and ``supported``, which is whether this
        machine runs it.

    Examples
    --------
    >>> import qrs
    >>> {kernel["isa"] for kernel in qrs.kernels() if kernel["supported"]} <= set(qrs.available_isas())
    True
    """
    return _core.kernels()
