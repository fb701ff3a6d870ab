"""Makes the gallery out of the scripts in examples/: what they say of themselves, and their pictures."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
MARK = "<!-- examples -->"
# From the simplest to the longest, with their pictures in docs/images.
PICTURES = {
    "morse_chain": ["morse_chain.png"],
    "double_well": ["double_well.png", "double_well.gif"],
    "custom_potential": ["gallery/custom_potential.png"],
    "train_double_well": ["gallery/train_double_well.png"],
    "train_morse_chain": ["gallery/training.png", "gallery/moments.png"],
    "stochastic/experiments": ["gallery/bosons.png"],
}


def entry(script: Path) -> str:
    """One example in Markdown."""
    docstring = (
        ast.get_docstring(ast.parse(script.read_text(encoding="utf-8")))
        or ""
    )
    title, _, rest = docstring.partition("\n\n")
    name = script.relative_to(ROOT / "examples").with_suffix("").as_posix()
    shown = "\n\n".join(
        f"![{title}](images/{picture})" for picture in PICTURES[name]
    )
    return f"## {title.rstrip('.')}\n\n`python examples/{name}.py`\n\n{shown}\n\n{rest}\n"


def on_page_markdown(markdown: str, **_) -> str:
    """What MkDocs calls for every page."""
    return markdown.replace(
        MARK,
        "\n".join(
            entry(ROOT / "examples" / f"{name}.py") for name in PICTURES
        ),
    )
