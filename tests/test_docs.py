"""Every Python block of the README and of the documentation runs; every public name has its entry."""

import ast
import inspect
import operator
import re
import textwrap
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest

import bohmdiff
import bohmdiff.testing

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^(?P<indent> *)```python\n(?P<code>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> list[tuple[int, str]]:
    """The number of the line before each block of Python, and its code."""
    return [
        (text.count("\n", 0, match.start("code")), textwrap.dedent(match["code"]))
        for match in BLOCK.finditer(text)
    ]


def run_page(name: str, text: str) -> dict:
    namespace = {"__name__": "__page__"}
    for before, code in blocks(text):
        # Padded with empty lines, so that an error names the line of the page.
        exec(compile("\n" * before + code, name, "exec"), namespace)
    return namespace


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


# They train, or solve by every method.
LONG = {
    "docs/guide/initial-states.md",
    "docs/guide/long-runs.md",
    "docs/guide/own-method.md",
    "docs/guide/own-score.md",
    "docs/guide/own-solver.md",
    "docs/guide/testing.md",
    "docs/guide/training.md",
    "docs/guide/which-method.md",
    "docs/tutorial.md",
}
RUNNABLE = [
    pytest.param(page, id=name_of(page), marks=[pytest.mark.slow] if name_of(page) in LONG else [])
    for page in PAGES
    if blocks(page.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("page", RUNNABLE)
def test_blocks_of_a_page_run(page, monkeypatch, tmp_path):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    try:
        run_page(name_of(page), page.read_text(encoding="utf-8"))
    finally:
        plt.close("all")


def test_every_block_is_found():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert len(blocks(text)) == len(re.findall(r"^ *```+ *\{? *\.?(?:python|py)\b", text, re.MULTILINE))
    assert blocks((ROOT / "docs/guide/own-potential.md").read_text(encoding="utf-8"))


def test_blocks_share_their_names_and_errors_name_their_line():
    page = (
        "Text.\n\n```python\na = 1\n```\n\n    ```python\n    b = a + 1\n    ```\n\n```python\n1 / 0\n```\n"
    )
    assert run_page("page.md", page[: page.rindex("```python")])["b"] == 2
    with pytest.raises(ZeroDivisionError) as caught:
        run_page("page.md", page)
    assert str(caught.traceback[-1].path) == "page.md"
    assert caught.traceback[-1].lineno + 1 == page.splitlines().index("1 / 0") + 1


def test_the_gallery_shows_every_example():
    source = ast.parse((ROOT / "docs/_gallery.py").read_text(encoding="utf-8"))
    named = next(
        n for n in source.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "PICTURES"
    )
    pictures = ast.literal_eval(named.value)
    examples = {path.stem for path in (ROOT / "examples").glob("*.py") if not path.name.startswith("_")}
    assert set(pictures) == examples
    for files in pictures.values():
        assert files
        assert all((ROOT / "docs/images" / file).exists() for file in files)


def test_every_exported_name_has_its_entry():
    entries = re.findall(
        r"^::: bohmdiff\.([\w.]+)$",
        "\n".join(page.read_text(encoding="utf-8") for page in PAGES),
        re.MULTILINE,
    )
    assert len(entries) == len(set(entries))
    source = ROOT / "src" / "bohmdiff"
    exported = names_exported_by(source / "__init__.py") - {"plot"}
    for room in ("plot", "testing"):
        exported |= {f"{room}.{name}" for name in names_exported_by(source / room / "__init__.py")}
    # A room may show more than the top level exports; what it shows must exist.
    rooms = set(entries) - exported
    assert exported <= set(entries)
    for name in rooms:
        assert operator.attrgetter(name)(bohmdiff).__doc__


REFERENCE = sorted((ROOT / "docs/api").glob("*.md"))
ENTRY = re.compile(r"^::: bohmdiff\.([\w.]+)$", re.MULTILINE)


def entries_of(page: Path) -> list[str]:
    return ENTRY.findall(page.read_text(encoding="utf-8"))


def examples_of(name: str) -> list[str]:
    """The code in the docstring of a public name, and in those of its own methods."""
    thing = operator.attrgetter(name)(bohmdiff)
    texts = [inspect.getdoc(thing) or ""]
    if inspect.isclass(thing):
        members = vars(thing).values()
        texts += [inspect.getdoc(m) or "" for m in members if inspect.isfunction(m) and m.__doc__]
    return [code for text in texts for _, code in blocks(text)]


@pytest.fixture(scope="module")
def start_of_reference():
    page = ROOT / "docs/api/index.md"
    return run_page(name_of(page), page.read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("page", [pytest.param(p, id=name_of(p)) for p in REFERENCE if entries_of(p)])
def test_examples_of_the_reference_run(page, start_of_reference, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    for name in entries_of(page):
        for number, code in enumerate(examples_of(name)):
            exec(compile(code, f"example {number} of {name}", "exec"), dict(start_of_reference))
        plt.close("all")


def parameters_of(thing) -> list[str]:
    """What a user passes to it."""
    if inspect.isabstract(thing) or (inspect.isclass(thing) and issubclass(thing, Exception)):
        return []
    return [name for name in inspect.signature(thing).parameters if not name.startswith("_")]


# Made by the library and never by a user: their docstrings list what they hold.
RESULTS = {
    "Comparison",
    "EnsembleSolution",
    "FlowSolution",
    "GaussianSolution",
    "GridSolution",
    "LocalScore",
    "ObjectiveReport",
    "Pullback",
    "Trajectory",
    "flow.HalfState",
    "testing.Moments",
}


ARRAYS = ("Numbers", "Array", "Points", "Vector", "Matrix", "Times", "Paths", "Weights")
PHYSICAL = {
    "hamiltonian",
    "initial-states",
    "problem",
    "scores",
    "flow",
    "objectives",
    "methods",
    "solutions",
}


def signature_of(thing) -> str:
    try:
        return str(inspect.signature(thing))
    except (TypeError, ValueError):
        return ""


def lacks(name: str, physical: bool) -> list[str]:
    """What the docstring of a public name does not say."""
    thing = operator.attrgetter(name)(bohmdiff)
    text = inspect.getdoc(thing) or ""
    missing = [] if blocks(text) else ["an example"]
    parameters = [] if name in RESULTS else parameters_of(thing)
    if not parameters:
        return missing
    listed = text.partition("**Arguments:**")[2]
    missing += [parameter for parameter in parameters if not re.search(rf"`\*?{parameter}`", listed)]
    if "**Raises:**" not in text:
        missing.append("what it raises")
    if any(kind in signature_of(thing) for kind in ARRAYS) and "shape" not in text:
        missing.append("shapes")
    if physical and not re.search(r"\bunits?\b", text, re.IGNORECASE):
        missing.append("units")
    return missing


@pytest.mark.parametrize("page", [pytest.param(p, id=name_of(p)) for p in REFERENCE if entries_of(p)])
def test_docstrings_are_complete(page):
    found = {name: lacks(name, page.stem in PHYSICAL) for name in entries_of(page)}
    assert {name: what for name, what in found.items() if what} == {}


def names_exported_by(path: Path) -> set[str]:
    imports = [n for n in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(n, ast.ImportFrom)]
    # Constants need no page of their own.
    return {alias.name for node in imports for alias in node.names if not alias.name.isupper()}
