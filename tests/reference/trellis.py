"""Trellis-coded blocks, decoded a state at a time as docs/numerics.md says."""

import numpy as np

BLOCK = 256


def levels_1mad(state_bits):
    """Sums of the four bytes of a product."""
    x = (np.arange(2**state_bits, dtype=np.uint64) * 34038481 + 76625530) % 2**32
    total = sum((x >> shift & 255).astype(np.int64) for shift in (0, 8, 16, 24))
    return (total - 510).astype(np.float32) / np.float32(147.80054)


def levels_3inst(state_bits):
    """Sums of two float16 numbers around 0.92, their signs and mantissas from a product."""
    x = (np.arange(2**state_bits, dtype=np.uint64) * 89226354 + 64248484) % 2**32
    x = (x.astype(np.uint32) & 0x8FFF8FFF) ^ 0x3B603B60
    high, low = ((x >> shift).astype(np.uint16).view(np.float16) for shift in (16, 0))
    return (high + low).astype(np.float32) * np.float32(1 / 1.2437109)


def stream(block, bits):
    """The bits of a block in the order of its steps: words of 16 bits stand by their place in a segment."""
    words = np.frombuffer(block, "<u2").reshape(bits, BLOCK // 16).T.ravel()
    return "".join(f"{word:016b}" for word in words)


def states(block, bits, state_bits):
    """The state of each step: so many bits from the step's first on, around the end."""
    text = stream(block, bits) * 2
    return [int(text[bits * t : bits * t + state_bits], 2) for t in range(BLOCK)]


def decode(codes, bits, levels, size):
    """The levels of `size` elements."""
    blocks = np.asarray(codes, np.uint8).reshape(-1, BLOCK // 8 * bits)
    state_bits = len(levels).bit_length() - 1
    out = [levels[states(block.tobytes(), bits, state_bits)] for block in blocks]
    return np.concatenate([np.empty(0, np.float32), *out])[:size]
