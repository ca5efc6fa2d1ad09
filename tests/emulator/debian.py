"""Debian packages of a known release, unpacked into a folder with everything they depend on.

Needs no root access and leaves the system's packages and lists alone: apt works on a state of its own, in
which nothing is installed, with the mirror that the system uses. Programs are run by the unpacked loader on
the unpacked libraries, so any release of Debian on x86-64 will do.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

RELEASE = "trixie"
CACHE = Path(__file__).resolve().parents[2] / "target" / "emulator"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
TARGETS = ["--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"]
LIBRARIES = "usr/lib/x86_64-linux-gnu"


class SetupError(Exception):
    """The emulator, or a piece it needs, is not available."""


def command(*words: str | Path, cwd: Path | None = None) -> str:
    """Run a command; give back its standard output."""
    try:
        return subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise SetupError(f"{error} {(getattr(error, 'stderr', '') or '').strip()[-500:]}") from error


class Apt:
    """apt on a state of its own below ``folder``."""

    def __init__(self, folder: Path) -> None:
        mirrors = re.findall(r"(?m)^Debian (\S+)$", command("apt-get", "indextargets", *TARGETS))
        if not mirrors:
            raise SetupError("apt knows no Debian mirror")
        (folder / "lists/partial").mkdir(parents=True)
        (folder / "cache/archives/partial").mkdir(parents=True)
        (folder / "status").touch()
        (folder / "sources").write_text(f"deb [signed-by={KEYRING}] {mirrors[0]} {RELEASE} main\n")
        settings = {
            "Dir::State": folder,
            "Dir::State::lists": folder / "lists",
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder / "cache",
            "Dir::Etc::sourcelist": folder / "sources",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Acquire::Languages": "none",
            "APT::Architecture": "amd64",
            "APT::Architectures::": "arm64",
        }
        self.options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        command("apt-get", *self.options, "update")

    def closure(self, names: Iterable[str]) -> list[str]:
        """Name the packages and all that they depend on."""
        plan = command("apt-get", *self.options, "-s", "--no-install-recommends", "install", *names)
        return re.findall(r"(?m)^Inst (\S+)", plan)

    def dependency(self, name: str, pattern: str) -> str:
        """Name what an empty package like ``linux-image-amd64`` stands for."""
        found = re.search(rf"Depends: ({pattern})", command("apt-cache", *self.options, "depends", name))
        if not found:
            raise SetupError(f"{name} depends on no {pattern}")
        return found[1]

    def unpack(self, names: Iterable[str], root: Path) -> None:
        """Download these packages, without others, and unpack them."""
        (packages := root / "packages").mkdir()
        command("apt-get", *self.options, "download", *names, cwd=packages)
        for package in packages.glob("*.deb"):
            command("dpkg", "-x", package, root)
        shutil.rmtree(packages)


def unpacked(name: str, wanted: list[str], alone: tuple[str, ...] = (), kernel: str = "") -> Path:
    """Fetch ``wanted`` with dependencies and ``alone`` without, once; give back their folder in the cache."""
    root = CACHE / name
    contents = " ".join([RELEASE, *wanted, *alone, kernel])
    complete = root / "complete"
    if complete.exists() and complete.read_text() == contents:
        return root
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    apt = Apt(root / "apt")
    kernels = [apt.dependency(kernel, r"linux-image-\d\S+")] if kernel else []
    apt.unpack([*apt.closure(wanted), *alone, *kernels], root)
    shutil.rmtree(root / "apt")
    complete.write_text(contents)
    return root


def program(root: Path, path: str) -> list[str]:
    """Give the words that start an unpacked program."""
    loader = root / LIBRARIES / "ld-linux-x86-64.so.2"
    return [str(loader), "--library-path", str(root / LIBRARIES), str(root / path)]
