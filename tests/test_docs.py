"""Every Python block of the README and of the documentation runs; every public name has its entry."""

import ast
import importlib.util
import json
import operator
import re
import textwrap
import tomllib
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


# They solve by several methods, or train for a few epochs.
SLOW = {
    "README.md",
    "docs/api/index.md",
    "docs/getting-started.md",
    "docs/guide/cookbook.md",
    "docs/guide/devices.md",
    "docs/guide/export.md",
    "docs/guide/gradients.md",
    "docs/guide/initial-states.md",
    "docs/guide/own-method.md",
    "docs/guide/own-potential.md",
    "docs/guide/own-score.md",
    "docs/guide/scans.md",
    "docs/guide/training.md",
    "docs/guide/which-method.md",
}
# They train to the end, or try every law. CI runs the tutorial as a notebook.
LONG = {
    "docs/guide/long-runs.md",
    "docs/guide/nelson.md",
    "docs/guide/own-solver.md",
    "docs/guide/testing.md",
    "docs/tutorial.md",
}
MARKS = dict.fromkeys(SLOW, pytest.mark.slow) | dict.fromkeys(LONG, pytest.mark.long)
RUNNABLE = [
    pytest.param(page, id=name_of(page), marks=MARKS.get(name_of(page), []))
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


def test_code_is_not_wider_than_a_page():
    wide = {
        f"{name_of(page)}: {line}"
        for page in PAGES
        for _, code in blocks(page.read_text(encoding="utf-8"))
        for line in code.splitlines()
        if len(line) > 75
    }
    assert wide == set()


def test_nobody_is_sent_to_an_index_of_packages():
    for page in [*PAGES, *(ROOT / "src").rglob("*.py")]:
        assert not re.search(r"pip install \S*bohmdiff", page.read_text(encoding="utf-8")), page


def test_notebooks_are_their_pages():
    spec = importlib.util.spec_from_file_location("notebooks", ROOT / "docs/_notebooks.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    on_disk = {path.stem for path in (ROOT / "docs/notebooks").iterdir()}
    assert on_disk == set(made.NOTEBOOKS)
    for name, source in made.NOTEBOOKS.items():
        saved = json.loads(made.path_of(name).read_text(encoding="utf-8"))
        assert saved == made.notebook(*source), "run python docs/_notebooks.py"


def test_all_name_one_version():
    with open(ROOT / "pyproject.toml", "rb") as file:
        version = tomllib.load(file)["project"]["version"]
    assert bohmdiff.__version__ == version
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {version}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


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
    folder = ROOT / "examples"
    scripts = [path for path in folder.glob("**/*.py") if not path.name.startswith("_")]
    examples = {path.relative_to(folder).with_suffix("").as_posix() for path in scripts}
    # Those of the paper have a page of their own.
    assert set(pictures) == {name for name in examples if not name.startswith("paper/")}
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
    exported = names_exported_by(source / "__init__.py") - {"plot", "units"}
    for room in ("plot", "testing"):
        exported |= {f"{room}.{name}" for name in names_exported_by(source / room / "__init__.py")}
    exported.remove("plot.Units")  # it is `Units`
    # A room may show more than the top level exports; what it shows must exist.
    rooms = set(entries) - exported
    assert exported <= set(entries)
    for name in rooms:
        assert operator.attrgetter(name)(bohmdiff).__doc__


def names_exported_by(path: Path) -> set[str]:
    imports = [n for n in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(n, ast.ImportFrom)]
    # Constants need no page of their own.
    return {alias.name for node in imports for alias in node.names if not alias.name.isupper()}
