"""Breaks the code on purpose, one small change at a time, and asks whether the tests notice.

    python tests/mutants.py                       # all targets, two at a time; takes hours
    python tests/mutants.py flow/quantum.py       # one of them; --lines 88 91 only some of its lines
    python tests/mutants.py --list

Changed are: + and −, * and /, ** into *, the sign of a term, every number (floats by one part in 10⁸, whole
numbers by one), the direction of a comparison, a transposition. Left alone are messages, docstrings and
annotations. Each mutant is a copy of the package, whose tests run until the first one fails. What survives is
printed, and the exit code is the number of survivors. Mutants that can make no difference are named in
`EQUIVALENT`, with the reason.
"""

import argparse
import ast
import copy
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import hypothesis
import pytest
from hypothesis import Phase

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "bohmdiff"
# What is broken, and the tests that must see it, the quickest first.
TARGETS = {
    "flow/quantum.py": ["tests/flow/test_flow.py", "tests/flow/test_exactness.py"],
    "flow/terms.py": [
        "tests/flow/test_flow.py",
        "tests/objective/test_fisher.py",
        "tests/flow/test_exactness.py",
    ],
    "flow/state.py": ["tests/flow/test_flow.py"],
    "solver/tableau.py": ["tests/solver"],
    "solver/symplectic.py": ["tests/solver"],
    "objective/objective.py": ["tests/objective/test_at_one_time.py", "tests/objective/test_objectives.py"],
    "objective/divergences.py": ["tests/objective/test_at_one_time.py"],
    "objective/caustic.py": ["tests/objective/test_at_one_time.py"],
    "objective/energy.py": ["tests/objective/test_at_one_time.py"],
    "objective/fisher.py": [
        "tests/objective/test_fisher.py",
        "tests/objective/test_objectives.py::test_defaults_are_those_of_the_diagnostic",
    ],
    "objective/evaluate.py": ["tests/objective/test_evaluate.py", "tests/objective/test_fisher.py"],
}
# (file, the line without indentation, the change): why nothing can notice.
SAME = "the long way round gives the same"
THRESHOLD = "between rounding and mistakes, and nothing is that close to it"
CLAMPED = "JAX takes an index beyond the end for the last one, which it is"
MASKED = "the weight of what is masked is zero"
EQUIVALENT: dict[tuple[str, str, str], str] = {
    ("flow/terms.py", "if directions.shape[0] < x.shape[0]:", "turned round"): SAME,
    ("flow/terms.py", "if directions.shape[0] < x.shape[0]:", "0 changed"): SAME,
    ("solver/tableau.py", "_TOLERANCE = 1e-13", "1e-13 changed"): THRESHOLD,
    (
        "solver/symplectic.py",
        "return CubicHermite if self.tableau.order <= 4 else QuinticHermite",
        "4 changed",
    ): "orders are even",
    (
        "solver/symplectic.py",
        "carry, _ = stage(carry, [c[0] for c in coefficients])",
        "0 changed",
    ): CLAMPED,
    (
        "solver/symplectic.py",
        "jax.tree.map(lambda leaf, i=i: leaf[i], c) for i in (0, 1)",
        "1 changed",
    ): CLAMPED,
    (
        "objective/objective.py",
        "return ensemble.weights @ jnp.where(ensemble.kept, values, 0)",
        "0 changed",
    ): MASKED,
    (
        "objective/objective.py",
        "return jnp.sqrt(ensemble.weights)[:, None] * jnp.where(ensemble.kept[:, None], errors, 0)",
        "0 changed",
    ): MASKED,
    ("objective/divergences.py", "error = jnp.where(ensemble.kept, error, 0)", "0 changed"): MASKED,
    **{
        (
            "objective/evaluate.py",
            "_CHECKPOINT_BYTES = 2**28",
            change,
        ): "how much memory, not what comes out"
        for change in ("** to *", "2 changed", "28 changed")
    },
}

SWAPPED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult}
TURNED = {ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq}
SYMBOL = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"}


class Mutant(NamedTuple):
    file: str
    line: int
    change: str
    source: str


def mutants(file: str) -> Iterator[Mutant]:
    """All of a file that make a difference to its syntax tree."""
    text = (PACKAGE / file).read_text(encoding="utf-8")
    lines = text.splitlines()
    tree = ast.parse(text)
    for number, (node, change) in enumerate(places(tree)):
        changed = copy.deepcopy(tree)
        target, _ = list(places(changed))[number]
        mutate(target)
        here = lines[node.lineno - 1].strip()
        if (file, here, change) not in EQUIVALENT:
            yield Mutant(
                file,
                node.lineno,
                f"{change:12} in  {here}",
                ast.unparse(ast.fix_missing_locations(changed)),
            )


def places(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Where something can be changed, always in the same order."""
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for node in value if isinstance(value, list) else [value]:
            if not isinstance(node, ast.AST) or isinstance(node, ast.Raise | ast.JoinedStr | ast.Assert):
                continue
            if isinstance(node, ast.BinOp) and type(node.op) in SWAPPED:
                yield node, f"{SYMBOL[type(node.op)]} to {SYMBOL[SWAPPED[type(node.op)]]}"
            elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
                yield node, "sign lost"
            elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
                yield node, f"{node.value} changed"
            elif isinstance(node, ast.Compare) and type(node.ops[0]) in TURNED:
                yield node, "turned round"
            elif isinstance(node, ast.Attribute) and node.attr == "T":
                yield node, "T lost"
            yield from places(node)


def mutate(node: ast.AST) -> None:
    """Changes one node, in place."""
    if isinstance(node, ast.BinOp):
        node.op = SWAPPED[type(node.op)]()
    elif isinstance(node, ast.UnaryOp):
        node.op = ast.UAdd()
    elif isinstance(node, ast.Constant):
        value = node.value
        node.value = value + 1 if isinstance(value, int) else value * (1 + 1e-8) if value else 1e-8
    elif isinstance(node, ast.Compare):
        node.ops[0] = TURNED[type(node.ops[0])]()
    elif isinstance(node, ast.Attribute):
        node.attr = "real"  # the array itself


class Tests:
    """A plugin of pytest: the quickest tests first, by the seconds that each took before, and no search for the
    smallest example that fails."""

    def __init__(self, seconds: dict[str, float]):
        self.seconds, self.taken = seconds, {}

    def pytest_sessionstart(self):
        phases = [phase for phase in Phase if phase not in (Phase.shrink, Phase.explain)]
        hypothesis.settings.register_profile("mutants", hypothesis.settings(), phases=phases)
        hypothesis.settings.load_profile("mutants")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        items.sort(key=lambda item: self.seconds.get(item.nodeid, 0.0))

    def pytest_runtest_logreport(self, report):
        self.taken[report.nodeid] = self.taken.get(report.nodeid, 0.0) + report.duration


def run_tests(file: str, source: str | None, seconds: dict[str, float]) -> tuple[int, dict[str, float]]:
    """The exit code of the tests of a file, with another text in its place if there is one."""
    os.chdir(ROOT)
    sys.dont_write_bytecode = True
    plugin = Tests(seconds)
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nowhere:
        package = Path(folder) / "bohmdiff"
        shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
        if source is not None:
            (package / file).write_text(source, encoding="utf-8")
        sys.path.insert(0, folder)
        os.environ["PYTHONPATH"] = folder  # of processes that tests start
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)
        options = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", "slow or not slow"]
        code = pytest.main([*options, *TARGETS[file]], plugins=[plugin])
        imported = sys.modules.get("bohmdiff")  # none, where the change makes that impossible
        assert imported is None or Path(imported.__file__).is_relative_to(folder)
    return int(code), plugin.taken


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], help="files below src/bohmdiff (all)")
    parser.add_argument("--lines", type=int, nargs="+", help="only those on these lines of the files")
    parser.add_argument("--list", action="store_true", help="show the mutants, run nothing")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    chosen = [mutant for file in options.targets or TARGETS for mutant in mutants(file)]
    if options.lines:
        chosen = [mutant for mutant in chosen if mutant.line in options.lines]
    if options.list:
        print(*(f"{m.file}:{m.line}: {m.change}" for m in chosen), sep="\n")
        return 0
    # The environment of the tests, from before JAX is imported.
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["diffrax", "hypothesis", "lineax", "matplotlib.pyplot", "optax", "xarray"]
    )
    survivors = 0
    # A process for each run, forked from one that has imported everything but the package.
    with context.Pool(options.processes, maxtasksperchild=1) as pool:
        files = {tuple(TARGETS[mutant.file]): mutant.file for mutant in chosen}
        unchanged = {tests: pool.apply_async(run_tests, (file, None, {})) for tests, file in files.items()}
        seconds = {}
        for tests, job in unchanged.items():
            code, seconds[tests] = job.get()
            if code != 0:
                raise SystemExit(f"{' '.join(tests)} fail without any change: exit code {code}.")
        jobs = [
            pool.apply_async(run_tests, (one.file, one.source, seconds[tuple(TARGETS[one.file])]))
            for one in chosen
        ]
        for mutant, job in zip(chosen, jobs, strict=True):
            code, _ = job.get()
            # 1: a test failed; 2 and 4: the tests could not even be collected.
            if code not in (0, 1, 2, 4):
                raise SystemExit(f"The tests of {mutant.file} ended with exit code {code}.")
            said = "SURVIVED" if code == 0 else "killed  "
            print(said, f"{mutant.file}:{mutant.line}: {mutant.change}", flush=True)
            survivors += code == 0
    print(f"{len(chosen)} mutants, {survivors} survived")
    return min(survivors, 255)


if __name__ == "__main__":
    sys.exit(main())
