"""Turns the TeX of every page into MathML, which browsers draw themselves, and adds the font for it."""

import html
import re
from importlib.metadata import files
from typing import Any

from math_core import LatexError, LatexToMathML
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

# The output of pymdownx.arithmatex for $...$ and $$...$$, with the punctuation that follows.
FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<tex>.*?)\\[)\]]</(?P=tag)>(?P<after>[.,;:!?)]*)',
    re.DOTALL,
)
CONVERTER = LatexToMathML(fancy_error=False)
FONT = "STIXTwoMath-Regular.ttf"


def mathml(formula: re.Match[str]) -> str:
    """One formula; an unknown command is an error."""
    block = formula["tag"] == "div"
    drawn = CONVERTER.convert_with_local_state(
        html.unescape(formula["tex"]), displaystyle=block
    )
    if block:
        return f'<div class="formula">{drawn}</div>{formula["after"]}'
    # A line may end after a formula, but not before the comma.
    return (
        f'<span class="nobreak">{drawn}{formula["after"]}</span>'
        if formula["after"]
        else drawn
    )


def on_page_content(content: str, *, page: Page, **_: Any) -> str:
    """MkDocs calls this with the HTML of each page."""
    try:
        return FORMULA.sub(mathml, content)
    except LatexError as error:
        raise PluginError(f"{page.file.src_uri}: {error}") from error


def on_files(pages: Files, *, config: MkDocsConfig, **_: Any) -> Files:
    """MkDocs calls this with the files of the site."""
    font = next(
        file for file in files("ziamath") or [] if file.name == FONT
    )
    pages.append(
        File.generated(
            config, f"stylesheets/{FONT}", abs_src_path=str(font.locate())
        )
    )
    return pages
