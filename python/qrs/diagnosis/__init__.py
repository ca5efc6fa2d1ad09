"""What quantization did to a model: noise by layer and by source, milliseconds, and a page that shows it."""

from .base import Noise
from .differences import Differences, differences
from .page import Diagnosis, diagnose, page
from .sources import PARTS, Histogram, Sources, sources
from .times import Times, times

__all__ = [
    "PARTS",
    "Diagnosis",
    "Differences",
    "Histogram",
    "Noise",
    "Sources",
    "Times",
    "diagnose",
    "differences",
    "page",
    "sources",
    "times",
]
