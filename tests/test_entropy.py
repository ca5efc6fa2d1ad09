"""Entropy-coded streams: how near they come to the bound, and what damaged ones end in."""

import numpy as np
import pytest
import qrs
from hypothesis import given
from hypothesis import strategies as st
from machine import everywhere


def gauss(size, seed=0):
    return np.random.default_rng(seed).standard_normal(size, np.float32)


@pytest.mark.parametrize(("states", "gap"), [(8, 0.45), (256, 0.20)])
@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_normal_numbers_come_near_to_the_bound(bits, states, gap):
    x = gauss(1 << 18)
    data = qrs.entropy.encode(x, bits, states=states)
    # All that is written counts; the coder may take a hundredth of the bytes more than the entropy.
    spent = 8 * len(data) / x.size
    assert 0.99 * bits < spent <= bits
    assert qrs.compare(x, qrs.entropy.decode(data)).sqnr_db >= 20 * np.log10(2) * spent / 1.01 - gap


@pytest.mark.parametrize("size", [0, 1, 15, 17, 4096, 65536, 65537, 200_000])
def test_any_number_of_values_comes_back_within_some_steps(size):
    x = gauss(size, seed=size)
    y = qrs.entropy.decode(qrs.entropy.encode(x, step=0.125))
    assert y.shape == x.shape and y.dtype == np.float32
    # The step is fitted to the path: by a few percent, or, of a single value, to that.
    if size > 1000:
        numbers = np.round(y / 0.125)
        fitted = np.abs(y).max() / np.abs(numbers).max()
        assert 0.12 < fitted < 0.13 and np.allclose(y, numbers * fitted, rtol=1e-5)
    assert np.abs(x - y).max(initial=0) < 3 * 0.125


def test_streams_are_the_same_everywhere():
    x = gauss(100_000)
    first = qrs.entropy.encode(x, 2.25, states=16)
    for label, data in everywhere(lambda: qrs.entropy.encode(x, 2.25, states=16)):
        assert data == first, label
    for label, y in everywhere(lambda: qrs.entropy.decode(first)):
        assert np.array_equal(y, qrs.entropy.decode(first)), label


def test_shapes_and_targets():
    x = gauss(600).reshape(20, 30)
    data = qrs.entropy.encode(x[::-1], step=0.1)
    out = np.zeros((20, 60), np.float32)
    assert qrs.entropy.decode(data, out=out[:, ::2]) is not None
    assert np.array_equal(out[:, ::2], qrs.entropy.decode(memoryview(data), (20, 30)))
    assert qrs.compare(x[::-1], out[:, ::2]).sqnr_db > 20 and not out[:, 1::2].any()


def test_errors_are_spent_where_they_count_least():
    x, weights = gauss(50_000), np.exp(2 * gauss(50_000, seed=1))
    plain = qrs.entropy.decode(qrs.entropy.encode(x, 2))
    weighted = qrs.entropy.decode(qrs.entropy.encode(x, 2, importance=weights))
    assert np.sum(weights * (x - weighted) ** 2) < 0.9 * np.sum(weights * (x - plain) ** 2)


def test_what_is_cut_off_is_said_to_be():
    data = qrs.entropy.encode(gauss(3000), 3)
    for size in [*range(60), *range(60, len(data), 97)]:
        with pytest.raises(qrs.FormatError, match="stream is"):
            qrs.entropy.decode(data[:size])
    with pytest.raises(qrs.FormatError, match="followed by 1 bytes"):
        qrs.entropy.decode(data + b"\0")
    for junk in (b"", b"nothing of the kind", bytes(1000)):
        with pytest.raises(qrs.FormatError):
            qrs.entropy.decode(junk)


@given(st.data())
def test_damage_ends_in_an_error_or_in_numbers(draw):
    data = bytearray(qrs.entropy.encode(gauss(500), step=0.2))
    at = draw.draw(st.integers(0, len(data) - 1))
    data[at] ^= draw.draw(st.integers(1, 255))
    with pytest.raises(qrs.FormatError):
        qrs.entropy.decode(data)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({}, "expected one of the two"),
        ({"bits": 2, "step": 0.1}, "expected one of the two"),
        ({"bits": "2"}, "bits is '2', expected a number"),
        ({"bits": 21}, "0 to 20"),
        ({"bits": -1}, "0 to 20"),
        ({"bits": float("nan")}, "0 to 20"),
        ({"bits": 0.001}, "more"),
        ({"step": 0.0}, "step is 0"),
        ({"step": 1e-9}, "steps"),
        ({"bits": 2, "states": 12}, "4, 8, 16"),
        ({"bits": 2, "states": 2}, "4, 8, 16"),
        ({"bits": 2, "importance": -1}, "from 0 on"),
        ({"bits": 2, "importance": np.ones(3)}, "broadcasts"),
    ],
)
def test_what_cannot_be_done_is_named(how, words):
    with pytest.raises((ValueError, TypeError), match=words):
        qrs.entropy.encode(gauss(200), **how)
    with pytest.raises(ValueError, match="flat index 1"):
        qrs.entropy.encode([0.0, np.nan], 2)
    with pytest.raises(TypeError, match="expected bytes"):
        qrs.entropy.decode([1, 2])
    data = qrs.entropy.encode(gauss(6), step=0.5)
    with pytest.raises(ValueError, match="6 elements"):
        qrs.entropy.decode(data, (2, 2))
    with pytest.raises(TypeError, match="tuple of int"):
        qrs.entropy.decode(data, 6)
