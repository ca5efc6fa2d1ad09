"""Trellis-coded values, decoded a state at a time as docs/numerics.md says."""

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


# h1 and h0 of Ungerboeck's codes for 4 to 256 states, in octal.
POLYNOMIALS = {
    4: (0o2, 0o5),
    8: (0o4, 0o13),
    16: (0o4, 0o23),
    32: (0o10, 0o45),
    64: (0o24, 0o103),
    128: (0o126, 0o235),
    256: (0o362, 0o515),
}


def decode_tcq(codes, states, levels):
    """Values of codes `u + 2 i`: sixteen paths take turns, and start anew after 65536 values."""
    h1, h0 = POLYNOMIALS[states]
    out = np.empty(len(codes), np.float32)
    for i, code in enumerate(np.asarray(codes, int).tolist()):
        if i % 65536 == 0:
            path = [0] * 16
        path[i % 16] = bits = path[i % 16] << 1 & 2 * states - 1 | code & 1
        subset = 2 * ((bits & h0).bit_count() % 2) + (bits & h1).bit_count() % 2
        out[i] = levels[4 * (code >> 1) + subset]
    return out
