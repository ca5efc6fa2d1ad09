"""Statistics: summaries of data, of constant size. Observers are those that say which range values have.

An observer collects and never computes a scale: `Observer.range` gives ``lo`` and ``hi``, and the scheme
makes parameters of them. `Gram` and `Magnitude` answer no range: they are what algorithms ask for. Each is
one file and one line here; its ``id`` is what files and recipes hold.
"""

from .base import Observer
from .entropy import Entropy
from .gram import Gram
from .histogram import Histogram
from .magnitude import Magnitude
from .minmax import MinMax
from .moving_average import MovingAverage
from .mse import MSE
from .percentile import Percentile
from .statistic import Statistic

__all__ = [
    "MSE",
    "Entropy",
    "Gram",
    "Histogram",
    "Magnitude",
    "MinMax",
    "MovingAverage",
    "Observer",
    "Percentile",
    "Statistic",
]
