"""Counts whose rule is named when they are made, or when a range is asked for."""

from __future__ import annotations

from typing import Any

from ..errors import QrsTypeError, quote
from ..registry import unknown
from ..scheme import Scheme
from .bins import Bins
from .counted import Counted

__all__ = ["Histogram"]


class Histogram(Counted, id="histogram"):
    """Counts of the values in 16384 bins, from which the rule of another observer chooses a range.

    A bin holds the float32 values of one sign, exponent and first five bits of mantissa. Bins never move and
    counts are integers, so any split and order of the data gives the same state, bit for bit. It takes
    131,080 bytes, with ``axis`` that much for each channel and 8 bytes more, however much data is seen; an
    update takes as much again and 4 MiB, with ``axis`` also a copy of the batch. Collect once, then
    compare rules by ``to``.

    Parameters
    ----------
    axis : int, optional
        Keep a range for each channel along this axis.
    choice : str, default "mse"
        The rule, by the id of its observer: ``mse``, ``entropy``, or ``percentile`` with its default.

    Examples
    --------
    >>> import numpy as np, qrs
    >>> seen = qrs.observers.Histogram(choice="entropy")
    >>> seen.update(np.random.default_rng(0).normal(size=100_000))
    >>> seen.range("int8") == seen.to(qrs.observers.Entropy()).range("int8")
    True
    """

    def __init__(self, *, axis: int | None = None, choice: str = "mse") -> None:
        super().__init__(axis=axis)
        given: object = choice
        if not isinstance(given, str):
            raise QrsTypeError(f"choice is {quote(given)}, expected a string such as 'mse'")
        rules = [rule for rule in Counted.ids() if rule != self.id]
        if given not in rules:
            raise unknown("choice", given, rules)
        self.choice = choice

    def settings(self) -> dict[str, Any]:
        """Give the keyword arguments that make an observer like this one, as plain data for JSON.

        Returns
        -------
        dict

        Examples
        --------
        >>> import qrs
        >>> qrs.observers.Histogram(choice="entropy").settings()
        {'axis': None, 'choice': 'entropy'}
        """
        return {**super().settings(), "choice": self.choice}

    def _choose(self, bins: Bins, scheme: Scheme) -> tuple[float, float]:
        return Counted.by_id(self.choice)()._choose(bins, scheme)
