"""The public checks: they pass what qrs brings, and catch each kind of fault that they name."""

from dataclasses import dataclass

import numpy as np
import pytest
import qrs
from qrs import Scheme, per_group, testing
from qrs.observers import MinMax, MovingAverage, Observer
from qrs.testing import check_format, check_observer, check_scheme


@pytest.mark.parametrize("name", qrs.FORMATS)
def test_every_format_passes(name):
    check_format(name)


@pytest.mark.parametrize("shape", [(1,), (64,), (3, 4, 5), (2, 2, 2, 9)], ids=str)
def test_schemes_pass_on_other_shapes(shape):
    check_scheme("int8", shape, seed=2)
    check_scheme(Scheme("uint5", per_group(4), rounding="stochastic"), shape, seed=3)


def test_an_unknown_format_is_an_error_of_the_caller():
    with pytest.raises(ValueError, match="unknown dtype 'int9'"):
        check_format("int9")


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        (lambda x, q: np.asarray(q) + q.scale / 16, "fake_quantize equals"),
        (lambda x, q: np.asarray(q)[::-1], "fake_quantize equals"),
        (lambda x, q: x, "fake_quantize equals"),
        (lambda x, q: np.asarray(q, np.float64), "dtype"),
        (lambda x, q: np.asarray(q).reshape(-1), "shape"),
    ],
)
def test_a_fake_quantize_that_is_not_quantize_is_caught(monkeypatch, fault, law):
    def wrong(x, scheme, **how):
        return fault(x, qrs.quantize(x, scheme, **how))

    monkeypatch.setattr(testing, "fake_quantize", wrong)
    with pytest.raises(AssertionError, match=law):
        check_scheme("int8")


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        (lambda x: x * np.float32(1.02), "every value becomes the nearest level"),
        (lambda x: np.where(x > 0.5, -x, x), "every value becomes the nearest level"),
    ],
)
def test_a_quantize_that_is_off_is_caught(monkeypatch, fault, law):
    monkeypatch.setattr(testing, "quantize", lambda x, s, **how: qrs.quantize(fault(x), s, **how))
    monkeypatch.setattr(testing, "fake_quantize", lambda x, s, **how: qrs.fake_quantize(fault(x), s, **how))
    with pytest.raises(AssertionError, match=law):
        check_scheme(Scheme("int8", narrow_range=False))


class Wrong(MinMax):
    """A base for faulty observers; outside of the registry."""


class Forgetful(Wrong):
    def _merge(self, other):
        self.lo, self.hi = other.lo, other.hi


class Careless(Wrong):
    def _update(self, data, lo, hi):
        super()._update(data, lo, hi)
        data[...] = 0


class Upside(Wrong):
    def _range(self):
        return self.hi, self.lo


class Eager(Wrong):
    def range(self, scheme):
        return np.zeros((2, 0), np.float32) if not self.batches else super().range(scheme)


class Late(Wrong):
    def _update(self, data, lo, hi):
        self.lo, self.hi = lo, hi


class Writes(Wrong):
    def _update(self, data, lo, hi):
        if self.batches:
            np.minimum(self.lo, lo, out=self.lo)
            np.maximum(self.hi, hi + self.batches, out=self.hi)
        else:
            self.lo, self.hi = lo, hi


class Claims(MovingAverage):
    order_free = True


@pytest.mark.parametrize(
    ("kind", "law"),
    [
        (Forgetful, "merging what saw the parts"),
        (Careless, "update leaves its input alone"),
        (Upside, "lo is not above hi"),
        (Eager, "range without data raises NotCalibratedError"),
        (Late, "merging what saw the parts is seeing the whole"),
        (Claims, "merging what saw the parts is seeing the whole"),
        (Writes, "a shallow copy keeps what was seen"),
    ],
)
def test_a_faulty_observer_is_caught(monkeypatch, kind, law):
    monkeypatch.setitem(Observer._table, kind.__name__, kind)
    monkeypatch.setattr(kind, "id", kind.__name__)
    with pytest.raises(AssertionError, match=law):
        check_observer(kind())


def test_an_observer_of_a_third_party_passes(monkeypatch):
    monkeypatch.setattr(Observer, "_table", dict(Observer._table))

    class AbsMax(Observer, id="absmax"):
        arrays = ("top",)

        def _update(self, data, lo, hi):
            top = np.maximum(-lo, hi)
            self.top = np.maximum(self.top, top) if self.batches else top

        def _merge(self, other):
            self.top = np.maximum(self.top, other.top)

        def _range(self):
            return -self.top, self.top

    check_observer(AbsMax())
    check_observer(AbsMax(axis=1))
    assert isinstance(qrs.Static("int8", AbsMax()).observer, AbsMax)
    seen = AbsMax()
    seen.update([-3.0, 1.0])
    assert seen.qparams("int8") == Scheme("int8").qparams(-3.0, 3.0)
    with pytest.raises(ValueError, match="is taken by"):

        @dataclass
        class Other(Observer, id="absmax"):
            pass


def test_a_range_that_a_custom_observer_gets_wrong_is_refused():
    class Bad(MinMax):
        def _range(self):
            return self.lo, np.float32([np.nan])

    seen = Bad()
    seen.update([1.0])
    with pytest.raises(qrs.QrsValueError, match=r"range is \[1.0, NaN\] at index 0"):
        seen.qparams("int8")

    class Raises(MinMax):
        def _update(self, data, lo, hi):
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        Raises().update([1.0])
