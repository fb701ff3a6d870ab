"""Makes the gallery out of the scripts in examples/: what they say of themselves, and their pictures."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
MARK = "<!-- examples -->"
# The order in which they are shown: from the simplest to the longest.
ORDER = ["morse_chain", "double_well", "custom_potential", "train_double_well", "train_morse_chain"]


def examples() -> list[Path]:
    """The scripts in order; those that it does not name come last."""
    scripts = [path for path in (ROOT / "examples").glob("*.py") if not path.name.startswith("_")]
    place = {name: number for number, name in enumerate(ORDER)}
    return sorted(scripts, key=lambda path: (place.get(path.stem, len(ORDER)), path.stem))


def pictures(script: Path) -> list[str]:
    """Those of a script, relative to the documentation: its name, and what is after a dash."""
    found = (ROOT / "docs/images/gallery").glob(f"{script.stem}-*.*")
    return [path.relative_to(ROOT / "docs").as_posix() for path in sorted(found)]


def entry(script: Path) -> str:
    """One example in Markdown."""
    docstring = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    title, _, rest = docstring.partition("\n\n")
    shown = "\n\n".join(f"![{title}]({picture})" for picture in pictures(script))
    return f"## {title.rstrip('.')}\n\n`python examples/{script.name}`\n\n{shown}\n\n{rest}\n"


def on_page_markdown(markdown: str, **_) -> str:
    """What MkDocs calls for every page."""
    return markdown.replace(MARK, "\n".join(entry(script) for script in examples()))
