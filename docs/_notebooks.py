"""Makes the notebooks in docs/notebooks out of pages: python docs/_notebooks.py"""

import json
import re
from pathlib import Path

DOCS = Path(__file__).parent
# The page of each notebook, and the section of it, if not all.
NOTEBOOKS = {
    "tutorial": ("tutorial.md", None),
    "spectrum": ("guide/cookbook.md", "A spectrum"),
    "fit": ("guide/scans.md", "Fit a parameter"),
}
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def notebook(page: str, section: str | None) -> dict:
    """A page, or the first block of it and one section, as a notebook."""
    text = (DOCS / page).read_text(encoding="utf-8")
    if section is not None:
        start, _, rest = text.partition(f"\n## {section}\n")
        body = rest.partition("\n## ")[0]
        imports = BLOCK.search(start)
        text = f"# {section}\n\n{imports[0]}\n\n{body}"
    cells = []
    # The pattern has one group, so that text and code take turns.
    for number, part in enumerate(BLOCK.split(text)):
        kind = "code" if number % 2 else "markdown"
        source = part.strip("\n")
        if kind == "markdown":
            source = for_notebooks(source, (DOCS / page).parent)
        if source:
            cells.append(cell(kind, source, f"cell-{number}"))
    metadata = {
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }
    return {
        "cells": cells,
        "metadata": metadata,
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def cell(kind: str, source: str, name: str) -> dict:
    made = {
        "cell_type": kind,
        "id": name,
        "metadata": {},
        "source": source.splitlines(keepends=True),
    }
    return made | (
        {"execution_count": None, "outputs": []} if kind == "code" else {}
    )


def for_notebooks(text: str, folder: Path) -> str:
    """Text of a page: without references to the API, and with links that work from docs/notebooks."""
    text = re.sub(r"\[(`[^`]+`)\]\[[^\]]+\]", r"\1", text)

    def link(found: re.Match[str]) -> str:
        target, _, anchor = found[1].partition("#")
        place = (folder / target).resolve().relative_to(DOCS.resolve())
        return f"](../{place.as_posix()}{'#' + anchor if anchor else ''})"

    return re.sub(r"\]\((?!https?://|#)([^)]+)\)", link, text)


def path_of(name: str) -> Path:
    return DOCS / "notebooks" / f"{name}.ipynb"


if __name__ == "__main__":
    for name, source in NOTEBOOKS.items():
        path_of(name).parent.mkdir(exist_ok=True)
        text = json.dumps(notebook(*source), indent=1, ensure_ascii=False)
        path_of(name).write_text(text + "\n", encoding="utf-8")
        print(f"wrote {path_of(name)}")
