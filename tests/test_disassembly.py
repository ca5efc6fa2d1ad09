"""The inner loops of the built kernels: what a compiler or an innocent change makes of them.

A tile lives from keeping its sums in registers. Harmless-looking changes of a source were seen to move them
to the stack, at half the speed and with the right results, so no other test could tell.
"""

import platform
import re
import shutil
import subprocess
from dataclasses import dataclass

import pytest
from qrs import _core

pytestmark = [
    pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86-64 kernels"),
    pytest.mark.skipif(shutil.which("objdump") is None, reason="no objdump (binutils) to disassemble with"),
]

# A product of the kernels: `vpdpbusd`, the 8-bit and 16-bit pairs, the fused multiply-add of float32.
DOT = re.compile(r"vpdpbusd|vpmaddwd|vpmaddubsw|vfmadd\d+ps")
KERNEL = re.compile(r"gemm::kernel::(avx\w+::\w+)$")
BACKWARD = re.compile(r"^j\w+$")

# Moves and stack accesses that a loop may have. The 4 x 16 tile of float32 and 4-bit codes is a register
# short and yet faster for four rows than a panel that is widened first (43 against 26 GMAC/s on Zen 3).
ALLOWED = {"avx2::floats_u4": 12}


@dataclass(frozen=True)
class Instruction:
    address: int
    name: str
    operands: str

    @property
    def wasted(self) -> bool:
        """Whether it moves a vector between registers or touches the stack."""
        if not self.name.startswith("v"):
            return False
        move = self.name.startswith(("vmovdq", "vmovap", "vmovup")) and "(" not in self.operands
        return move or "%rsp" in self.operands


def kernels() -> dict[str, list[Instruction]]:
    """The instructions of every kernel function of the library."""
    command = ["objdump", "-d", "--no-show-raw-insn", "-C", _core.__file__]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, list[Instruction]] = {}
    code: list[Instruction] | None = None
    for line in listing.splitlines():
        if head := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            kernel = KERNEL.search(head[1])
            code = found.setdefault(kernel[1], []) if kernel else None
        elif code is not None and (entry := re.match(r"\s+([0-9a-f]+):\s+(\S+)\s*(.*)$", line)):
            code.append(Instruction(int(entry[1], 16), entry[2], entry[3]))
    return found


def inner_loops(code: list[Instruction]) -> list[list[Instruction]]:
    """The innermost loops: from the target of a backward jump to the jump, with no other loop inside."""
    index = {instruction.address: i for i, instruction in enumerate(code)}
    loops = []
    for end, instruction in enumerate(code):
        target = re.match(r"[0-9a-f]+", instruction.operands)
        if BACKWARD.match(instruction.name) and target:
            start = index.get(int(target[0], 16), end + 1)
            if start <= end:
                loops.append((start, end))
    inside = [
        (start, end)
        for start, end in loops
        if not any(start <= s and e <= end and (s, e) != (start, end) for s, e in loops)
    ]
    return [code[start : end + 1] for start, end in inside]


def products(loop: list[Instruction]) -> list[Instruction]:
    """The part of a loop from its first product to its last."""
    dots = [i for i, instruction in enumerate(loop) if DOT.match(instruction.name)]
    return loop[dots[0] : dots[-1] + 1] if dots else []


@pytest.fixture(scope="module")
def library() -> dict[str, list[Instruction]]:
    found = kernels()
    if not found:
        pytest.skip("the library has no symbols")
    return found


def test_every_kernel_of_the_table_is_found(library):
    for name in (
        "avx512vnni::bytes_i8",
        "avx512vnni::bytes_u4",
        "avx2::pairs",
        "avx2::bytes_n4",
        "avx2::floats",
    ):
        assert any(products(loop) for loop in inner_loops(library[name])), name


def test_no_tile_moves_its_sums_between_products(library):
    faults = {}
    for name, code in library.items():
        for loop in inner_loops(code):
            wasted = [instruction for instruction in products(loop) if instruction.wasted]
            if len(wasted) > ALLOWED.get(name.split("<")[0], 0):
                first = wasted[0]
                faults[name] = f"{len(wasted)} of {len(loop)}, first {first.name} {first.operands}"
    assert not faults
