"""Run a static x86-64 Linux program on an emulated CPU, by default one that has AVX512-VNNI.

Boots a stock Debian kernel in the Bochs emulator with an initramfs that holds just busybox and the
program, and passes on the program's output and exit code. Needs no root access: see `debian.py`.

    RUSTFLAGS="-C target-feature=+crt-static" cargo test --no-run --target x86_64-unknown-linux-gnu
    python tests/emulator/run.py --env QRS_ISA=avx512vnni TEST_BINARY --test-threads=1

The program starts in an empty folder and sees only the files given with --file, at the same path.
Exit code: the program's own, or 2 with a message starting "emulator:" if there is none to pass on.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pty
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from debian import LIBRARIES, SetupError, command, program, unpacked

PACKAGES = ["bochs", "bochs-term", "bochsbios", "vgabios", "genisoimage", "isolinux", "syslinux-common"]
PACKAGES += ["busybox-static"]
KERNEL = "linux-image-cloud-amd64"  # Built-in serial console, LZ4-compressed, few drivers.

# clearcpuid hides features from the kernel, not from the program: Bochs 2.7 reports the PKRU state and
# the compacted XSAVE size wrongly, on which Linux switches AVX off; and, finding fast strings disabled,
# Linux 6.1 crashes in its memmove for "fast short rep mov". The last two options leave out the kernel's
# cryptography self-tests and certificates, over half of the boot time.
CMDLINE = (
    "console=ttyS1,115200 quiet loglevel=1 panic=-1 nokaslr mitigations=off tsc=reliable no_timer_check "
    "random.trust_cpu=on apparmor=0 audit=0 edd=off clearcpuid=pku,xsaves,xsavec,fsrm "
    "cryptomgr.notests=1 initcall_blacklist=load_system_certificate_list"
)

# ttyS0 carries standard output; ttyS1 standard error, kernel panics and the final exit marker.
MARKER = "@@exit-code="
INIT = """#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
for port in 0 1; do $b stty -F /dev/ttyS$port raw -echo; done
cd /work
$b env {command} </dev/null >/dev/ttyS0 2>/dev/ttyS1
echo "{marker}$?" >/dev/ttyS1
$b poweroff -f
"""

# A low ips shortens the waits of firmware and drivers: it is the instructions that make a guest second.
BOCHSRC = """cpu: model={cpu}, ips=10000000, reset_on_triple_fault=0
memory: guest=512, host=512
romimage: file={root}/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file={root}/usr/share/vgabios/vgabios.bin
ata0-master: type=cdrom, path=boot.iso, status=inserted
boot: cdrom
clock: sync=none
display_library: term
com1: enabled=1, mode=file, dev=stdout
com2: enabled=1, mode=file, dev=stderr
log: /dev/null
panic: action=fatal
"""


def cpio(files: dict[str, bytes]) -> bytes:
    """Pack executable files, and the folders above them, as an initramfs ("newc" format)."""
    folders = {"dev", "proc", "tmp", "work"} | {str(up) for name in files for up in Path(name).parents}
    entries = [(name, stat.S_IFDIR | 0o755, b"") for name in sorted(folders - {"."})]
    entries += [(name, stat.S_IFREG | 0o755, data) for name, data in files.items()]
    out = bytearray()
    for inode, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        path = name.encode() + b"\0"
        fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + path
        out += bytes(-len(out) % 4) + data + bytes(-len(data) % 4)
    return bytes(out)


def build_image(root: Path, work: Path, options: argparse.Namespace) -> None:
    """Write the boot image: boot loader, kernel, and the initramfs with the program."""
    line = shlex.join([*options.env, "/program", *options.args])
    files = {"init": INIT.format(command=line, marker=MARKER).encode()}
    files |= {"program": options.program.read_bytes(), "bin/busybox": (root / "usr/bin/busybox").read_bytes()}
    for given in options.file:
        found = (path for path in (given, *given.rglob("*")) if path.is_file())
        files |= {str(path.absolute())[1:]: path.read_bytes() for path in found}
    (iso := work / "iso").mkdir()
    (iso / "initrd").write_bytes(cpio(files))
    shutil.copy(next((root / "boot").glob("vmlinuz-*")), iso / "linux")
    for name in ("ISOLINUX/isolinux.bin", "syslinux/modules/bios/ldlinux.c32"):
        shutil.copy(root / "usr/lib" / name, iso)
    (iso / "isolinux.cfg").write_text(f"default x\nlabel x\nkernel linux\nappend initrd=initrd {CMDLINE}\n")
    boot = ["-b", "isolinux.bin", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"]
    command(*program(root, "usr/bin/genisoimage"), "-quiet", *boot, "-o", "boot.iso", "iso", cwd=work)


def emulate(root: Path, work: Path, options: argparse.Namespace) -> int:
    """Boot the image, pass the program's output on, and give back its exit code."""
    (work / "bochsrc").write_text(BOCHSRC.format(root=root, cpu=options.cpu))
    (work / "commands").write_text("c\n")  # Debian's build starts in its debugger: continue.
    env = os.environ | {"LTDL_LIBRARY_PATH": str(root / LIBRARIES / "bochs/plugins"), "TERM": "vt100"}
    words = [*program(root, "usr/bin/bochs-bin"), "-q", "-f", "bochsrc", "-rc", "commands"]
    # The text display needs a terminal; what it draws is kept only to explain a failed start.
    (ours, theirs), screen = pty.openpty(), bytearray()
    bochs = subprocess.Popen(words, cwd=work, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)

    def drain() -> None:
        with contextlib.suppress(OSError):  # The terminal goes away with the emulator.
            while data := os.read(ours, 65536):
                screen.extend(data)

    threading.Thread(target=drain, daemon=True).start()
    try:
        bochs.wait(options.timeout)
    except subprocess.TimeoutExpired:
        screen.extend(b"\nthe deadline passed")
    finally:
        bochs.kill()
        bochs.wait()
    out, err = (path.read_bytes() if path.exists() else b"" for path in (work / "stdout", work / "stderr"))
    messages, _, code = err.partition(MARKER.encode())
    for stream, text in ((sys.stdout, out), (sys.stderr, messages)):
        stream.buffer.write(text)
        stream.flush()
    if result := re.match(rb"\d+", code):
        return int(result[0])
    raise SetupError(f"no result; the emulator said: {screen[-999:].decode(errors='replace')}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Run a static program on an emulated CPU.")
    parser.add_argument("--cpu", default="corei7_icelake_u", help="Bochs CPU model")
    parser.add_argument("--timeout", type=float, default=600, help="deadline in seconds")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--file", action="append", default=[], type=Path, help="file or folder to add")
    parser.add_argument("program", type=Path, help="statically linked x86-64 Linux program")
    parser.add_argument("args", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # Leave no emulator behind.
    try:
        if not options.program.is_file():
            raise SetupError(f"no such program: {options.program}")
        root = unpacked("bochs", PACKAGES, kernel=KERNEL)
        with tempfile.TemporaryDirectory(prefix="emulator-") as work:
            build_image(root, Path(work), options)
            return emulate(root, Path(work), options)
    except SetupError as error:
        print(f"emulator: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
