"""Every public name has a docstring that says what it takes, its shapes and units, and what it raises, with an
example that runs."""

import inspect
import operator
import re
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest

import bohmdiff
import bohmdiff.testing
from tests.test_docs import ROOT, blocks, name_of, run_page

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


# They train, try every law, compile for long, or compute a molecule.
LONG = {
    "AutomaticDegree",
    "BlanesMoan6",
    "DeepStochasticMechanics",
    "NormalModes",
    "PhysicsInformedNetwork",
    "SelfConsistentScoreMatching",
    "ToleranceNotReachedError",
    "TrainingDivergedError",
    "TrainingError",
    "TrainingNotSavedError",
    "VelocitySolution",
    "WaveFunctionSolution",
    "Yoshida4",
    "plot.training",
}


def entry(page: Path, name: str):
    long = page.stem == "testing" or name in LONG
    return pytest.param(name, id=name, marks=pytest.mark.long if long else pytest.mark.slow)


@pytest.mark.parametrize("name", [entry(page, name) for page in REFERENCE for name in entries_of(page)])
@pytest.mark.filterwarnings("ignore:The solution by GaussianDynamics may be wrong")
def test_examples_of_the_reference_run(name, start_of_reference, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
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
    "Flux",
    "GaussianSolution",
    "GridSolution",
    "HermiteSolution",
    "HermiteState",
    "HermiteVelocity",
    "Lines",
    "LocalScore",
    "NormalModes",
    "ObjectiveReport",
    "Pullback",
    "Particles",
    "Spectrum",
    "StationaryStates",
    "Trajectory",
    "VelocitySolution",
    "WaveFunctionSolution",
    "flow.HalfState",
    "objective.Ensemble",
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
    "processes",
    "molecules",
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
