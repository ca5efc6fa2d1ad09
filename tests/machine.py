"""The instruction sets and thread counts that tests force, restored afterwards."""

from contextlib import contextmanager

import qrs
from qrs import _core

ISAS = _core.available_isas()
THREADS = (1, 2)


@contextmanager
def machine(isa=None, threads=None):
    """Runs a block on one instruction set and with one thread budget."""
    before = qrs.isa(), qrs.get_num_threads()
    try:
        if isa is not None:
            qrs.set_isa(isa)
        if threads is not None:
            qrs.set_num_threads(threads)
        yield
    finally:
        qrs.set_isa(before[0])
        qrs.set_num_threads(before[1])


def everywhere(compute):
    """`compute()` on every instruction set and thread count, as (label, result) pairs."""
    for isa in ISAS:
        for threads in THREADS:
            with machine(isa, threads):
                yield f"{isa}, {threads} thread(s)", compute()
