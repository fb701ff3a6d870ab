"""The package as a whole: what importing it does, what it exports, and which way its rooms import."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import pytest

import bohmdiff

SOURCE = Path(bohmdiff.__file__).parent
EXPORTED = sorted(
    alias.name
    for node in ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8")).body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
)

# Each may import those above it, never those below.
ORDER = ["hamiltonian", "wavepacket", "solver", "problem", "units", "network", "score", "flow"]
ORDER += [
    "objective",
    "training",
    "solution",
    "stochastic",
    "method",
    "eigen",
    "molecule",
    "plot",
    "testing",
]
# Usable by anyone with Diffrax, without the rest.
INDEPENDENT = {"solver"}
# Open to all, and importing none of the above.
COMMON = {"_check", "_closure", "_devices", "_errors", "_precision", "_text", "_types"}


def test_import_changes_no_setting_of_jax():
    script = """
import jax
names = sorted(jax.config.values)
before = {name: getattr(jax.config, name, None) for name in names}
import bohmdiff
after = {name: getattr(jax.config, name, None) for name in names}
assert len(names) > 20, names
changed = {name: (before[name], after[name]) for name in names if before[name] != after[name]}
assert not changed, changed
assert not jax.config.jax_enable_x64
import jax.numpy as jnp
assert bohmdiff.GaussianWavePacket([0.0], 1.0).mean.dtype == jnp.float32
assert "pyscf" not in __import__("sys").modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_names_that_users_write_are_there():
    names = "Hamiltonian GaussianWavePacket Problem MorseChain Quadratic DoubleWell HenonHeiles Eckart"
    names += " InteractingBosons AbstractScore GradientScore FlowState propagate solve Solution"
    names += " fisher_divergence SequentialScoreMatching compare plot"
    assert set(names.split()) <= set(EXPORTED)


def is_module(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, eqx.Module)


@pytest.mark.parametrize("name", EXPORTED)
def test_exported_names_are_documented(name):
    documentation = vars(bohmdiff)[name].__doc__
    assert documentation
    # Equinox writes a signature where a dataclass has no docstring.
    assert not documentation.startswith(f"{name}(")


@pytest.mark.parametrize("name", [n for n in EXPORTED if is_module(vars(bohmdiff)[n])])
def test_modules_are_abstract_or_final(name):
    cls = vars(bohmdiff)[name]
    ours = [base for base in cls.__mro__[1:] if base.__module__.startswith("bohmdiff")]
    for base in ours:
        # `Solution` is the one abstract class whose name users write without "Abstract".
        assert inspect.isabstract(base) or base.__name__.startswith("Abstract"), base
        for attribute, value in vars(base).items():
            concrete = inspect.isfunction(value) and not getattr(value, "__isabstractmethod__", False)
            if concrete and not attribute.startswith("__"):
                assert getattr(cls, attribute) is getattr(base, attribute), f"{attribute} is overridden"


def imported_rooms(path: Path) -> set[str]:
    """The parts of the package that the file at `path` imports."""
    package = ("bohmdiff", *path.relative_to(SOURCE).parent.parts)
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            targets = [[*base, alias.name] for alias in node.names]
        else:
            continue
        rooms |= {target[1] for target in targets if target[0] == "bohmdiff" and len(target) > 1}
    return rooms


FILES = [p for p in sorted(SOURCE.rglob("*.py")) if p != SOURCE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_one_way(path):
    room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    others = imported_rooms(path) - {room}
    assert others <= COMMON | set(ORDER), (
        f"imports {others - COMMON - set(ORDER)}, which has no place in ORDER"
    )
    if room in COMMON:
        assert others <= COMMON
    else:
        assert room in ORDER, f"{room} has no place in ORDER"
        allowed = set() if room in INDEPENDENT else set(ORDER[: ORDER.index(room)])
        assert others - COMMON <= allowed, f"{room} imports {others - COMMON - allowed}"


def test_the_reader_of_imports_sees_them():
    assert imported_rooms(SOURCE / "problem.py") == {
        "_check",
        "_closure",
        "_precision",
        "_types",
        "hamiltonian",
        "wavepacket",
    }
