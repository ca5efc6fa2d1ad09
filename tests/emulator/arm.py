"""Build the core's tests for 64-bit Arm and run them on emulated CPUs, one for each of its instruction sets.

    python tests/emulator/arm.py [names of tests]

QEMU emulates user programs, so this is fast. The Rust toolchain of the system has no standard library for Arm
unless one was added: rustc and that library, binutils and a C compiler come from Debian, see ``debian.py``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from debian import SetupError, program, unpacked

ROOT = Path(__file__).resolve().parents[2]
TARGET = "aarch64-unknown-linux-gnu"
# Debian keeps a recent Rust for building web browsers.
PACKAGES = ["rustc-web", "gcc-14-aarch64-linux-gnu", "libc6-dev-arm64-cross", "qemu-user"]
STANDARD_LIBRARY = "libstd-rust-web-dev:arm64"
# The CPUs: without dot products, with them, and with matrix products too.
CPUS = {"neon": "cortex-a72", "neondot": "neoverse-n1", "neoni8mm": "max"}


def wrappers(root: Path) -> Path:
    """Write the programs that cargo calls; give back their folder."""
    (folder := root / "wrappers").mkdir(exist_ok=True)
    # What gcc starts has to be started with the loader too. The linker is found by -B, in a folder apart: the
    # system's own compiler must not find it on the path.
    (linker := root / "linker").mkdir(exist_ok=True)
    run = linker / "run"
    gcc = program(root, "usr/bin/aarch64-linux-gnu-gcc-14")
    words = {
        run: program(root, "")[:-1],
        linker / "ld": program(root, "usr/bin/aarch64-linux-gnu-ld"),
        folder / "rustc": program(root, "usr/bin/rustc"),
        folder / "aarch64-linux-gnu-ar": program(root, "usr/bin/aarch64-linux-gnu-ar"),
        folder / "aarch64-linux-gnu-gcc": [*gcc, "-wrapper", str(run), f"-B{linker}", f"--sysroot={root}"],
    }
    for path, line in words.items():
        path.write_text(f'#!/bin/sh\nexec {" ".join(line)} "$@"\n')
        path.chmod(0o755)
    return folder


def build(root: Path) -> str:
    """Build the tests as one static program; give back its path."""
    folder = wrappers(root)
    upper = TARGET.upper().replace("-", "_")
    settings = {
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "RUSTC": str(folder / "rustc"),
        "CARGO_TARGET_DIR": str(ROOT / "target/arm"),
        f"CARGO_TARGET_{upper}_LINKER": "aarch64-linux-gnu-gcc",
        f"CARGO_TARGET_{upper}_RUSTFLAGS": "-C target-feature=+crt-static",
    }
    words = ["cargo", "test", "--no-run", "--quiet", "--package", "qrs-core", "--lib", "--target", TARGET]
    done = subprocess.run(
        [*words, "--message-format=json"],
        cwd=ROOT,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SetupError("the build failed")
    found = (json.loads(line).get("executable") for line in done.stdout.splitlines())
    (path,) = (path for path in found if path)
    return path


def main() -> int:
    try:
        root = unpacked("arm", PACKAGES, alone=(STANDARD_LIBRARY,))
        tests = build(root)
    except SetupError as error:
        print(f"emulator: {error}", file=sys.stderr)
        return 2
    for isa, cpu in CPUS.items():
        print(f"{isa} on {cpu}", flush=True)
        words = [str(root / "usr/bin/qemu-aarch64"), "-cpu", cpu, tests, *sys.argv[1:]]
        code = subprocess.run(words, env=os.environ | {"QRS_ISA": isa}, check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
