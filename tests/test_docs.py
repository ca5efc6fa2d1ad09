"""The documentation is true: its code runs, and its tables list what the registries hold."""

import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest
import qrs
from qrs import _core
from qrs.registry import Registered

ROOT = Path(__file__).parents[1]
PAGES = [path for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))] if path.exists()]
MODULES = sorted(
    ".".join(("qrs", *path.relative_to(ROOT / "python/qrs").with_suffix("").parts)).removesuffix(".__init__")
    for path in (ROOT / "python/qrs").rglob("*.py")
    if path.name != "__main__.py"
)


def name(path):
    return path.relative_to(ROOT).as_posix()


def blocks(page):
    """The ```python blocks of a page as (line, code)."""
    text = page.read_text()
    for match in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield text[: match.start(1)].count("\n") + 1, match[1]


@pytest.fixture(autouse=True)
def registries():
    """What an example registers leaves with it: later tests see the tables that qrs itself fills."""
    tables = [(opened._table, dict(opened._table)) for opened in Registered.__subclasses__()]
    yield
    for table, before in tables:
        table.clear()
        table.update(before)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_code_blocks_run(page, tmp_path, monkeypatch):
    """In one namespace per page and in order, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for line, code in blocks(page):
        if "import onnx" in code:
            pytest.importorskip("onnx", reason="an extra: pip install onnx")
        # Padding makes tracebacks show the line of the page.
        exec(compile("\n" * (line - 1) + code, name(page), "exec"), names)


@pytest.mark.parametrize("module", MODULES)
def test_docstring_examples_run(module, tmp_path, monkeypatch):
    if module.startswith("qrs.onnx"):
        pytest.importorskip("onnx", reason="an extra: pip install onnx")
    monkeypatch.chdir(tmp_path)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert not doctest.testmod(importlib.import_module(module), optionflags=flags).failed


def test_public_functions_have_an_example():
    """Every function of the top level shows a use, which the tests run."""
    functions = [getattr(qrs, public) for public in qrs.__all__ if inspect.isfunction(getattr(qrs, public))]
    assert functions
    assert not [function.__name__ for function in functions if ">>>" not in (function.__doc__ or "")]


def public_callables():
    """Every function and method that a user may call, as (name, function); a method may inherit its text."""
    for module in (qrs, qrs.nn, qrs.observers, qrs.onnx, qrs.testing):
        for public in module.__all__:
            value = getattr(module, public)
            if inspect.isfunction(value):
                yield f"{module.__name__}.{public}", value
            elif inspect.isclass(value) and not issubclass(value, BaseException):
                for attribute in vars(value):
                    method = getattr(value, attribute)
                    if not attribute.startswith("_") and inspect.isroutine(method):
                        yield f"{module.__name__}.{public}.{attribute}", method


@pytest.mark.parametrize("called", [pytest.param(f, id=name) for name, f in public_callables()])
def test_parameters_and_results_are_described(called):
    """In the sections of numpydoc; a parameter is at least named there."""
    doc, signature = inspect.getdoc(called), inspect.signature(called)
    parts = dict(re.findall(r"^(\w+)\n-{4,}\n(.*?)(?=^\w+\n-{4,}\n|\Z)", doc, re.DOTALL | re.MULTILINE))
    named = re.findall(r"^([*\w, ]+?)(?: :|$)", parts.get("Parameters", ""), re.MULTILINE)
    named = {name.strip("* ") for line in named for name in line.split(",")}
    assert {name for name in signature.parameters if name != "self"} <= named
    assert ("Returns" in parts) == (signature.return_annotation not in (None, "None"))


# ---- tables


def table(page, kind):
    """The cells of the table marked `<!-- table: kind -->`, without markup, header left out."""
    text = (ROOT / page).read_text()
    found = re.search(rf"<!-- table: {kind} -->\n((?:\|.*\n)+)", text)
    assert found, f"{page} has no table {kind}"
    rows = found[1].strip().splitlines()[2:]
    return [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows]


def first_column(page, kind):
    return [re.match(r"[\w-]+", row[0])[0] for row in table(page, kind)]


def test_the_format_table_is_the_registry():
    rows = [[name, row.kind, f"{row.bits:g}", str(row.block or "any")] for name, row in qrs.FORMATS.items()]
    assert [[*row[:3], row[5]] for row in table("docs/formats.md", "formats")] == rows


@pytest.mark.parametrize(
    ("page", "kind", "registry"),
    [
        ("docs/numerics.md", "roundings", _core.roundings),
        ("docs/numerics.md", "scale_dtypes", _core.scale_dtypes),
        ("docs/numerics.md", "activations", _core.activations),
    ],
)
def test_tables_list_the_registry(page, kind, registry):
    assert first_column(page, kind) == list(registry())


def test_the_instruction_sets_of_this_machine_are_in_the_table():
    assert set(_core.available_isas()) <= set(first_column("docs/embedding.md", "isas"))


def test_the_preset_table_is_the_registry():
    assert first_column("docs/guide.md", "presets") == qrs.Recipe.presets()


def test_the_granularity_table_is_the_registry():
    assert sorted(first_column("docs/numerics.md", "granularities")) == qrs.Granularity.ids()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{name(page)} links to {target}"
