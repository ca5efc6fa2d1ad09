"""Observers: summaries of data, of constant size, that say which range a tensor's values have.

An observer collects and never computes a scale: `Observer.range` gives ``lo`` and ``hi``, and the scheme
makes parameters of them. Each observer is one file and one line here; its ``id`` is what files and recipes
hold.
"""

from .base import Observer
from .minmax import MinMax
from .moving_average import MovingAverage

__all__ = ["MinMax", "MovingAverage", "Observer"]
