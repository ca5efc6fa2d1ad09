"""What qrs is measured against: one module for each library, found by being there.

A peer is a module with a ``VERSION`` and a function for each operation of ``workloads.json`` that its library
has, by the operation's name::

    def linear(data: Layer, threads: int) -> Iterator[Call]: ...

It yields every way worth trying, ready to run on so many threads: weights packed, sessions built, outputs
allocated where the library lets one; nothing where it cannot do the row. The fastest way whose result is good
enough is timed. What a call returns must pass through ``np.asarray``, or through the module's ``array``.

A module whose library is missing raises ImportError, and is left out.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

# For the environment, before a peer is loaded: threads that spin after their work take the cores from whoever
# is timed next. onnxruntime is told in its module, the others do not spin.
SETTINGS = {
    "OPENBLAS_THREAD_TIMEOUT": "10",  # as a power of two, in cycles; 26 by default
    "OMP_WAIT_POLICY": "passive",  # libgomp: torch
    "KMP_BLOCKTIME": "0",  # libiomp: MKL
}


def load(names: list[str]) -> tuple[dict[str, ModuleType], dict[str, str]]:
    """Import peers: those that are there, and for the others why not."""
    found, missing = {}, {}
    for name in names:
        try:
            found[name] = importlib.import_module(f"{__name__}.{name}")
        except ImportError as error:  # noqa: PERF203
            missing[name] = str(error)
    return found, missing


def names() -> list[str]:
    """Name every peer there is a module for; NumPy first."""
    known = [module.name for module in pkgutil.iter_modules(__path__)]
    return sorted(known, key=lambda name: (name != "numpy", name))
