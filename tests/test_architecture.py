"""The floors hold, unsafe code stays in its rooms, and no file outgrows its budget.

One table for each language says who stands on which floor; arrows point down only. A new file has to be
entered here, which is the moment to think about where it belongs.
"""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python" / "qrs"
CORE, BINDING = ROOT / "rust/core/src", ROOT / "rust/py/src"

RUST_FLOORS = [
    {"error"},
    {"isa", "mem"},
    {"intrinsics", "parallel", "grid", "rounding", "math", "finite", "values", "interrupt"},
    {"trellis"},
    {"format", "activation"},
    {"pack", "qparams"},
    {"emit", "blocks", "coded", "reading"},
    {"lines"},
    {"quantize", "dequantize", "reduce", "norm", "softmax"},
    {"fit"},
    {"gemm"},
    {"attention", "conv"},
    {"lib"},
]
PYTHON_FLOORS = [
    {"_core"},
    {"errors"},
    {"registry", "arrays", "progress", "container"},
    {"granularity", "machine", "scales", "formats"},
    {"scheme"},
    {"qtensor"},
    {"ops", "metrics", "functions"},
    {"observers", "algorithms", "entropy"},
    {"nn"},
    {"recipe", "report"},
    {"model"},
    {"calibration", "io"},
    {"quantization", "search", "qat"},
    {"diagnosis"},
    {"testing"},
    {"onnx", "torch", "checkpoint"},
    {"cli"},
    {"__init__", "__main__"},
]
# Orchestration stands above the native module and reaches it through the floors between.
NO_NATIVE = {"model", "recipe", "report", "calibration", "quantization", "search", "qat"}
# The one arrow upwards: `Model.save` imports `io` when it is called.
LATE = {("model", "io")}

# Where `unsafe` may stand: detection and dispatch, instructions in assembly, raw memory, the pool's lock and
# the hand-out of disjoint rectangles, the one call of a kernel, and the border to Python.
UNSAFE_ROOMS = {
    "rust/core/src/isa.rs",
    "rust/core/src/intrinsics.rs",
    "rust/core/src/mem.rs",
    "rust/core/src/parallel.rs",
    "rust/core/src/gemm/driver.rs",
    "rust/core/src/gemm/mod.rs",
    "rust/py/src/array.rs",
}
RUST_LINES, PYTHON_LINES, FUNCTION_LINES = 500, 350, 60
# The goal is a tenth. While the core holds integer formats only, a binding that lists every function of the
# border is a larger part of it; the share falls with each format and kernel that the core gains.
BINDING_SHARE = 0.20

RUST_FILES = sorted(CORE.rglob("*.rs")) + sorted(BINDING.rglob("*.rs"))
PYTHON_FILES = sorted(PACKAGE.rglob("*.py"))


def name(path):
    return path.relative_to(ROOT).as_posix()


def in_each(files):
    return pytest.mark.parametrize("path", files, ids=name)


def rust_code(path):
    """The lines of a file as (number, text) without comments, blank lines and test modules."""
    if path.name == "tests.rs":
        return []
    text = path.read_text().split("#[cfg(test)]\nmod tests", 1)[0]
    lines = ((number, re.sub(r"//.*", "", line).rstrip()) for number, line in enumerate(text.splitlines(), 1))
    return [(number, line) for number, line in lines if line.strip()]


def docstrings(tree):
    """The line numbers that docstrings take."""
    taken = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                taken.update(range(value.lineno, value.end_lineno + 1))
    return taken


def python_code(path):
    """The numbers of the lines that hold code."""
    text = path.read_text()
    without = docstrings(ast.parse(text))
    lines = enumerate(text.splitlines(), 1)
    return {n for n, line in lines if n not in without and line.strip() and not line.strip().startswith("#")}


def floor_of(module, floors):
    found = [number for number, floor in enumerate(floors) if module in floor]
    assert found, f"{module} stands on no floor: enter it in tests/test_architecture.py"
    return found[0]


def module_of(path, root):
    """The first part below the source folder: `gemm` for `gemm/driver.rs`."""
    return path.relative_to(root).parts[0].split(".")[0]


def imports(path, top_level_only=False):
    """What a Python file imports at run time, as (module, names, line); relative imports resolved."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else [n for n in ast.walk(tree) if not is_type_checking(n)]
    if not top_level_only:
        hidden = {id(inner) for n in ast.walk(tree) if is_type_checking(n) for inner in ast.walk(n)}
        nodes = [n for n in nodes if id(n) not in hidden]
    package = ["qrs", *path.relative_to(PACKAGE).parts[:-1]]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, [], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module, [alias.name for alias in node.names], node.lineno


def is_type_checking(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def own_imports(path):
    """The modules of qrs that a file imports, by their first part."""
    for module, names, line in imports(path):
        parts = module.split(".")
        if parts[0] != "qrs":
            continue
        below = [parts[1]] if len(parts) > 1 else [n for n in names if (PACKAGE / n).is_dir() or is_module(n)]
        yield from ((part, line) for part in below)


def is_module(stem):
    return stem == "_core" or (PACKAGE / f"{stem}.py").exists()


# ---- floors


@in_each([path for path in RUST_FILES if path.is_relative_to(CORE)])
def test_rust_arrows_point_down(path):
    own = module_of(path, CORE)
    floor = floor_of(own, RUST_FLOORS)
    for number, line in rust_code(path):
        for used in re.findall(r"\bcrate::([a-z_][a-z_0-9]*)\b(?!!)", line):
            if used != own and (CORE / f"{used}.rs").exists() | (CORE / used).is_dir():
                assert floor_of(used, RUST_FLOORS) < floor, (
                    f"{name(path)}:{number} reaches up or sideways to {used}"
                )


def test_kernels_know_instructions_and_lines_only():
    for path in CORE.glob("gemm/kernel/*.rs"):
        used = {u for _, line in rust_code(path) for u in re.findall(r"\bcrate::([a-z_]+)\b", line)}
        assert used <= {"isa", "intrinsics", "mem"}, f"{name(path)} uses {sorted(used)}"


@in_each(PYTHON_FILES)
def test_python_arrows_point_down(path):
    own = module_of(path, PACKAGE)
    floor = floor_of(own, PYTHON_FLOORS)
    for used, line in own_imports(path):
        if used != own and (own, used) not in LATE:
            assert floor_of(used, PYTHON_FLOORS) < floor, (
                f"{name(path)}:{line} reaches up or sideways to {used}"
            )
            assert used != "_core" or own not in NO_NATIVE, (
                f"{name(path)}:{line} reaches past the floors between"
            )


@in_each([path for path in PYTHON_FILES if path.parent != PACKAGE and path.stem not in ("base", "__init__")])
def test_brothers_know_their_base(path):
    """In a folder of like things, each file stands on `base.py`; none imports the folder as a whole."""
    folder = f"qrs.{path.parent.name}"
    assert all(module != folder for module, _, _ in imports(path)), f"{name(path)} imports {folder}"


@in_each(PYTHON_FILES)
def test_importing_needs_numpy_alone(path):
    """What else a file needs, it imports where it is used."""
    for module, _, line in imports(path, top_level_only=True):
        first = module.split(".")[0]
        assert first in {"qrs", "numpy"} | sys.stdlib_module_names, f"{name(path)}:{line} imports {first}"


# ---- unsafe code and CPU features


@in_each(RUST_FILES)
def test_unsafe_stays_in_its_rooms_and_says_why(path):
    lines = path.read_text().splitlines()
    for number, line in rust_code(path):
        if not re.search(r"\bunsafe\b", line):
            continue
        where = f"{name(path)}:{number}"
        assert name(path) in UNSAFE_ROOMS or re.search(r"unsafe fn\(", line), f"{where} has unsafe"
        if re.search(r"unsafe (\{|impl\b)", line):
            above = [text.strip() for text in lines[: number - 1]]
            while above and above[-1].startswith("#["):
                above.pop()
            comment = []
            while above and above[-1].startswith("//"):
                comment.append(above.pop())
            assert any("SAFETY:" in text for text in comment), f"{where} does not say why it is sound"


@in_each([p for p in RUST_FILES if p.parent.name in ("kernel", "format") and p.name != "mod.rs"])
def test_kernels_and_formats_forbid_unsafe_code(path):
    assert "#![forbid(unsafe_code)]" in path.read_text()


@in_each([path for path in RUST_FILES if path.name != "isa.rs"])
def test_one_file_names_cpu_features(path):
    pattern = (
        r"is_x86_feature_detected|is_aarch64_feature_detected|target_feature|\"(avx|sse|fma|f16c|neon|amx)"
    )
    for number, line in rust_code(path):
        assert not re.search(pattern, line), f"{name(path)}:{number}"


@in_each([path for path in RUST_FILES if path.name != "parallel.rs"])
def test_one_file_names_the_thread_pool(path):
    for number, line in rust_code(path):
        assert not re.search(r"\brayon\b|\bthread::(spawn|scope)\b", line), f"{name(path)}:{number}"


def test_a_kernel_is_named_once():
    names = [
        n for p in RUST_FILES for _, line in rust_code(p) for n in re.findall(r'"(gemm_[a-z0-9_]+)"', line)
    ]
    assert names
    assert sorted(names) == sorted(set(names))


# ---- what the package never does


@in_each(PYTHON_FILES)
def test_nothing_is_unpickled_or_evaluated(path):
    tree = ast.parse(path.read_text())
    for module, _, line in imports(path):
        assert module.split(".")[0] not in {"pickle", "marshal", "shelve", "yaml"}, f"{name(path)}:{line}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"eval", "exec", "compile", "__import__"}, f"{name(path)}:{node.lineno}"
            for keyword in node.keywords:
                allowed = keyword.arg != "allow_pickle" or ast.unparse(keyword.value) == "False"
                assert allowed, f"{name(path)}:{node.lineno}"


def test_the_reference_is_short_and_stands_alone():
    files = sorted((ROOT / "tests/reference").glob("*.py"))
    assert sum(len(path.read_text().splitlines()) for path in files) <= 760
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                named = [node.module]
            assert not {"qrs"} & {n.split(".")[0] for n in named}, name(path)


# ---- sizes


@in_each(RUST_FILES + PYTHON_FILES)
def test_files_stay_within_their_budget(path):
    if path.suffix == ".rs":
        assert len(rust_code(path)) <= RUST_LINES
    else:
        assert len(python_code(path)) <= PYTHON_LINES


@in_each(PYTHON_FILES)
def test_python_functions_stay_short(path):
    code = python_code(path)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = len(code & set(range(node.lineno, node.end_lineno + 1)))
            assert length <= FUNCTION_LINES, f"{name(path)}:{node.lineno} {node.name} has {length} lines"


@in_each(RUST_FILES)
def test_rust_functions_stay_short(path):
    """rustfmt closes a function with a brace at the indentation of its `fn`."""
    lines = rust_code(path)
    for index, (number, line) in enumerate(lines):
        if start := re.match(r"(\s*)(pub(\([a-z]+\))? )?(const )?(unsafe )?fn (\w+)", line):
            rest = lines[index:]
            end = next((i for i, (_, text) in enumerate(rest) if text == start[1] + "}"), 0)
            assert end < FUNCTION_LINES, f"{name(path)}:{number} {start[6]} has {end + 1} lines"


def test_the_binding_is_thin():
    core, binding = (sum(len(rust_code(p)) for p in root.rglob("*.rs")) for root in (CORE, BINDING))
    print(f"binding {binding} lines, core {core}: {binding / core:.1%}")
    assert binding <= BINDING_SHARE * core
