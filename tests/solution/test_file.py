"""Solutions in files: what comes back, what must be passed again, and what is refused."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray
from tests.unchecked import unchecked_types

import bohmdiff as bd
from bohmdiff._closure import as_module
from bohmdiff.solution._file import _check_seal, _seal
from bohmdiff.solution._names import name_of, thing_named

KEY = jax.random.key(0)
TS = jnp.linspace(0.0, 1.0, 4)


class Pair(NamedTuple):
    first: Any
    second: Any


class Plain(bd.AbstractMethod):
    """A method of the user's own, with options of many kinds."""

    option: Any = None
    other: Any = eqx.field(default=None, static=True)

    def run(self, problem, ts, *, key, progress):
        return still(problem, self)


class Still(bd.AbstractParticleSolution):
    """A solution of the user's own, which compiles almost nothing."""

    problem: bd.Problem
    method: bd.AbstractMethod
    ts: jax.Array
    particles: bd.Particles
    diagnostics: bd.Diagnostics
    more: Any = None

    def energy(self):
        return jnp.full(self.ts.shape, 0.5)

    def move(self, x0):
        return jnp.broadcast_to(x0[:, None], (x0.shape[0], self.ts.size, x0.shape[1]))

    def score_at(self, t, x):
        return self.problem.initial.score(x)

    def velocity_at(self, t, x):
        return jnp.zeros_like(x)

    def log_density_at(self, t, x):
        return self.problem.initial.log_density(x)

    def wave_function_at(self, t, x):
        raise self.unavailable("wave_function", "Use SplitOperator.")


def packet():
    return bd.GaussianWavePacket([0.5, -0.2], 0.3)


def problem(potential=None, *, mass=1.0, t1=1.0, initial=None):
    hamiltonian = bd.Hamiltonian(potential or bd.DoubleWell(), mass)
    return bd.Problem(hamiltonian, packet() if initial is None else initial, t1)


def still(of, method=None, more=None):
    x, weights = packet().particles(bd.GaussHermitePoints(3))
    particles = bd.Particles(jnp.repeat(x[:, None], TS.size, axis=1), weights)
    diagnostics = bd.Diagnostics({"figure": bd.Figure(0.1, 1.0, "It is small.", "Nothing.")})
    return Still(of, Plain() if method is None else method, TS, particles, diagnostics, more)


def saved(solution, folder):
    solution.save(folder / "solution.nc")
    return folder / "solution.nc"


def assert_equal(again, solution):
    leaves, structure = jax.tree.flatten(solution)
    loaded, loaded_structure = jax.tree.flatten(again)
    assert loaded_structure == structure
    for one, other in zip(loaded, leaves, strict=True):
        assert type(one) is type(other)
        if isinstance(other, functools.partial):
            assert (one.func, one.args, one.keywords) == (other.func, other.args, other.keywords)
            continue
        if not isinstance(other, jax.Array | np.ndarray | np.generic | float | complex):
            assert one == other
            continue
        assert np.asarray(one).dtype == np.asarray(other).dtype
        assert np.shape(one) == np.shape(other)
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
        assert getattr(one, "weak_type", None) == getattr(other, "weak_type", None)


EVERYTHING = {
    "bool": jnp.array([True, False]),
    "integers": (jnp.arange(3), jnp.arange(3, dtype=jnp.uint8), np.arange(4, dtype=np.int32), 2**70),
    "single": jnp.array([[1.1, jnp.inf], [jnp.nan, -0.0]], jnp.float32),
    "half": [jnp.ones(3, jnp.bfloat16), jnp.full(2, 1.5, jnp.float16)],
    "complex": jnp.array([1 - 2j, complex(jnp.inf, -0.0)]),
    "complex number": (jnp.asarray(1 + 2j), 3 - 4j, jnp.zeros((), jnp.complex64)),
    "nothing": (jnp.zeros((0, 3), jnp.float32), np.zeros(0, bool), None, (), [], {}),
    "weak": (jnp.asarray(1.5), jnp.broadcast_to(jnp.asarray(2.0), (2, 2)), jnp.asarray(3)),
    "numbers": (True, 1, 0.1, float("inf"), -0.0, np.float32(0.1), np.float64(0.1)),
    "text": "ħ ω\n",
    "library": (jnp.tanh, jax.nn.silu, bd.BlanesMoan4, jnp.add, functools.partial(jnp.sum, axis=0)),
    "dtype": (np.dtype("float32"), jnp.float32),
    "path": Path("a folder") / "ä.nc",
    "modules": (
        bd.BlanesMoan6(),
        bd.SobolPoints(8),
        eqx.nn.MLP(2, 1, 4, 1, jnp.tanh, key=KEY),
        # With its activations as modules, one of which is a lambda of Equinox.
        as_module(eqx.nn.MLP(2, 1, 4, 1, jax.nn.gelu, key=KEY)),
    ),
    "method of a module": packet().score,
}


def test_all_kinds_of_parts_come_back(tmp_path):
    shared = problem()
    solution = still(shared, Plain(jnp.arange(2.0), "static"), EVERYTHING | {"again": shared})
    again = bd.load(saved(solution, tmp_path), method=solution.method)
    assert_equal(again, solution)
    assert type(again) is Still
    assert again.more["again"] is again.problem
    assert list(again.more) == list(solution.more)


def test_a_loaded_solution_does_the_same_and_traces_nothing_anew(tmp_path):
    solution = still(problem())
    again = bd.load(saved(solution, tmp_path), method=solution.method)
    traces = []

    @jax.jit
    def score(of, x):
        traces.append(1)
        return of.score(0.3, x)

    x = jnp.array([0.1, 0.2])
    np.testing.assert_array_equal(score(solution, x), score(again, x))
    assert traces == [1]
    np.testing.assert_array_equal(again.trajectories(x[None]), solution.trajectories(x[None]))
    assert repr(again) == repr(solution)
    xarray.testing.assert_identical(again.to_xarray(), solution.to_xarray())


def test_others_read_the_moments(tmp_path):
    solution = still(problem(), more=jnp.array([1 + 2j, 3 - 4j]))
    path = saved(solution, tmp_path)
    with xarray.open_dataset(path) as dataset:
        xarray.testing.assert_identical(dataset.load(), solution.to_xarray())
        assert dataset["mean"].attrs["units"]
    with xarray.open_dataset(path, group="solution") as parts:
        ours = {str(parts[name].attrs.get("long_name")): parts[name].values for name in parts.variables}
        both = [name for name in parts.variables if parts[name].attrs.get("long_name") == "solution.more"]
        assert [parts[name].values.tolist() for name in both] == [[1, 3], [2, -4]]
    np.testing.assert_array_equal(ours["solution.particles.weights"], solution.particles.weights)
    np.testing.assert_array_equal(ours["problem.initial.mean"], [0.5, -0.2])


def harmonic(strength=1.0):
    def harmonic(t, x):
        return 0.5 * strength * jnp.sum(x**2) + 0.1 * t * x[0]

    return harmonic


@pytest.mark.parametrize("wrap", [lambda f: f, lambda f: bd.DoubleWell() + f], ids=["alone", "in a sum"])
def test_a_function_of_the_user_is_passed_and_compared(wrap, tmp_path):
    solution = still(problem(wrap(harmonic())), bd.GaussianDynamics(steps=3))
    path = saved(solution, tmp_path)
    with pytest.raises(
        ValueError, match=r"problem\.hamiltonian\.potential.* is the function .*harmonic, your own"
    ):
        bd.load(path)
    with pytest.raises(ValueError, match=r"bd\.load\(path, problem=\.\.\.\)"):
        bd.load(path, method=solution.method)
    assert_equal(bd.load(path, problem=solution.problem), solution)
    # The same values, from another function.
    again = bd.load(path, problem=problem(wrap(lambda t, x: 0.1 * x[0] * t + x @ x / 2)))
    np.testing.assert_array_equal(again.mean(), solution.mean())
    assert again.problem.hamiltonian.potential(0.0, jnp.ones(2)) == solution.problem.hamiltonian.potential(
        0.0, jnp.ones(2)
    )
    with pytest.raises(
        ValueError, match=r"potential that was passed differs .* At t = .*, x = .* it is .*, but"
    ):
        bd.load(path, problem=problem(wrap(harmonic(1.0001))))
    with pytest.raises(ValueError, match="differs from the saved one"):
        bd.load(path, problem=problem(wrap(lambda t, x: harmonic()(0.0, x))))


def test_a_constant_that_is_added_is_seen_beside_a_large_one(tmp_path):
    path = saved(still(problem(lambda t, x: 1e6 + x @ x)), tmp_path)
    bd.load(path, problem=problem(lambda t, x: x @ x + 1e6), method=Plain())
    with pytest.raises(ValueError, match="differs"):
        bd.load(path, problem=problem(lambda t, x: 1e6 + 1.0001 * x @ x), method=Plain())


def test_infinite_values_are_compared(tmp_path):
    def box(edge):
        return lambda t, x: jnp.where(jnp.all(jnp.abs(x) < edge), 0.0, jnp.inf)

    path = saved(still(problem(box(1.0))), tmp_path)
    bd.load(path, problem=problem(box(1.0)), method=Plain())
    with pytest.raises(ValueError, match="differs"):
        bd.load(path, problem=problem(box(0.5)), method=Plain())


class Spring(bd.AbstractPotential):
    strength: Any
    power: int = 2

    def __call__(self, t, x):
        return 0.5 * self.strength * jnp.sum(x**self.power)


class Twisted(bd.AbstractPotential):
    strength: Any
    power: int = 2

    def __call__(self, t, x):
        return 0.5 * self.strength * jnp.sum(x**self.power) + 0.01 * x[0]


def test_a_class_of_the_user_is_passed_and_compared(tmp_path):
    # Arrays elsewhere of this class come from the file.
    solution = still(problem(Spring(jnp.asarray(2.0))), bd.GaussianDynamics(), Spring(jnp.arange(2.0), 3))
    path = saved(solution, tmp_path)
    with pytest.raises(
        ValueError, match=r"problem\.hamiltonian\.potential is of the class Spring, your own"
    ):
        bd.load(path)
    assert_equal(bd.load(path, problem=problem(Spring(jnp.asarray(2.0)))), solution)
    with pytest.raises(ValueError, match=r"potential\.strength is 2\. in the file, but 2\.1 was passed"):
        bd.load(path, problem=problem(Spring(jnp.asarray(2.1))))
    with pytest.raises(ValueError, match=r"potential\.power is 2 in the file, but 4 was passed"):
        bd.load(path, problem=problem(Spring(jnp.asarray(2.0), 4)))
    with pytest.raises(ValueError, match=r"potential that was passed differs from the saved one"):
        bd.load(path, problem=problem(Twisted(jnp.asarray(2.0))))


@pytest.mark.parametrize(
    ("other", "match"),
    [
        (problem(mass=2.0), r"problem\.hamiltonian\.mass is 1\. in the file, but 2\. was passed"),
        (problem(t1=1.5), r"problem\.t1 is 1\. in the file, but 1\.5 was passed"),
        (problem(bd.DoubleWell(1.0, 3.0)), r"potential\.minimum is 2\. in the file"),
        (problem(bd.Eckart(1.0, 1.0)), "is a DoubleWell in the file, but a Eckart was passed"),
        (problem(initial=bd.GaussianWavePacket([0.5, -0.2], [0.3, 0.4])), r"problem\.initial\.covariance"),
        (problem(initial=bd.GaussianWavePacket(jnp.array([0.5, -0.2], jnp.float32), 0.3)), "float32"),
    ],
)
def test_another_problem_is_refused(other, match, tmp_path):
    path = saved(still(problem(), bd.GaussianDynamics()), tmp_path)
    bd.load(path, problem=problem())
    with pytest.raises(ValueError, match=match):
        bd.load(path, problem=other)


def test_another_method_is_refused(tmp_path):
    path = saved(still(problem(), bd.GaussianDynamics(steps=3)), tmp_path)
    bd.load(path, method=bd.GaussianDynamics(steps=3))
    with pytest.raises(ValueError, match=r"method\.steps is 3 in the file, but 4 was passed"):
        bd.load(path, method=bd.GaussianDynamics(steps=4))
    with pytest.raises(
        ValueError, match="method is a GaussianDynamics in the file, but a Plain was passed"
    ):
        bd.load(path, method=Plain())


def test_functions_of_the_initial_state(tmp_path):
    def kicked(kick):
        return bd.GaussianMixture(
            [0.5, 0.5], [[0.0, 0.0], [1.0, 0.0]], 0.5, phase=lambda x: kick * x[0] ** 2
        )

    path = saved(still(problem(initial=kicked(0.3))), tmp_path)
    bd.load(path, problem=problem(initial=kicked(0.3)), method=Plain())
    with pytest.raises(ValueError, match=r"problem\.initial\.phase that was passed differs"):
        bd.load(path, problem=problem(initial=kicked(0.31)), method=Plain())


def test_functions_of_the_method(tmp_path):
    def method(scale):
        return bd.GivenScore(lambda t, x: -scale * x / (1 + t))

    solution = still(problem(), method(1.0))
    path = saved(solution, tmp_path)
    with pytest.raises(
        ValueError, match=r"method\.score.* is the function .*lambda.*bd\.load\(path, method=\.\.\.\)"
    ):
        bd.load(path)
    assert_equal(bd.load(path, method=solution.method), solution)
    with pytest.raises(ValueError, match=r"method\.score.* that was passed differs .* it is \["):
        bd.load(path, method=method(1.01))
    with pytest.raises(ValueError, match=r"method\.score.* that was passed does not take"):
        bd.load(path, method=Plain(1, 2) and bd.GivenScore(lambda t, x: -jnp.sum(x)))


def test_a_function_of_the_problem_in_other_parts(tmp_path):
    """The method, and what it returns, may hold the problem in arrays of their own: it is passed once."""
    of = problem(harmonic())
    psi = bd.NeuralWaveFunction(of, width=2, depth=1, key=KEY)
    method = bd.PhysicsInformedNetwork(psi, training=bd.Training(epochs=1))
    assert method.psi.start.problem.hamiltonian.potential is not of.hamiltonian.potential
    solution = still(of, method, {"single": jax.tree.map(lambda leaf: leaf.astype(jnp.float32), of)})
    path = saved(solution, tmp_path)
    assert_equal(bd.load(path, problem=problem(harmonic())), solution)
    with pytest.raises(ValueError, match="does not close over as many"):
        bd.load(path, problem=problem(lambda t, x: x @ x / 2 + 0.1 * t * x[0]))


def test_what_can_not_be_found_again_is_not_saved(tmp_path):
    path = tmp_path / "solution.nc"
    with pytest.raises(
        ValueError, match=r"solution\.more\['f'\] is the function .*lambda.* no part of the problem"
    ):
        still(problem(), more={"f": lambda x: x}).save(path)
    with pytest.raises(ValueError, match=r"solution\.more is a random key"):
        still(problem(), more=KEY).save(path)
    assert list(tmp_path.iterdir()) == []


def test_an_optimizer_that_is_not_loaded_says_so(tmp_path):
    solution = still(problem(), Plain(1, bd.Training(optimizer=optax.adam(1e-3), epochs=7)))
    path = saved(solution, tmp_path)
    assert_equal(bd.load(path, method=solution.method), solution)
    score = bd.NeuralScore(problem(bd.Quadratic(1.0)), width=2, key=KEY)
    method = bd.SelfConsistentScoreMatching(
        score, training=bd.Training(optimizer=optax.adam(1e-3), epochs=3)
    )
    again = bd.load(saved(still(problem(), method), tmp_path))
    assert again.method.training.epochs == method.training.epochs
    with pytest.raises(ValueError, match=r"does not hold the optimizer .*load\(path, method=\.\.\.\)"):
        again.method.training.optimizer.init(jnp.ones(2))


def test_a_default_optimizer_comes_back(tmp_path):
    score = bd.NeuralScore(problem(bd.Quadratic(1.0)), width=2, key=KEY)
    solution = still(problem(), bd.SelfConsistentScoreMatching(score, training=bd.Training(epochs=3)))
    assert_equal(bd.load(saved(solution, tmp_path)), solution)


# Files.


def test_every_flipped_byte_is_noticed(tmp_path):
    path = saved(still(problem(), bd.GaussianDynamics()), tmp_path)
    whole = path.read_bytes()
    for place in [*range(0, len(whole), len(whole) // 199), *range(len(whole) - 100, len(whole))]:
        damaged = bytearray(whole)
        damaged[place] ^= 64
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged"):
            _check_seal(path)
    with pytest.raises(ValueError, match=r"solution\.nc .*damaged or changed"):
        bd.load(path)
    path.write_bytes(whole)
    bd.load(path)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.999])
def test_a_part_of_a_file_is_refused(part, tmp_path):
    path = saved(still(problem(), bd.GaussianDynamics()), tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(ValueError, match=r"not a solution that bohmdiff saved, or it was damaged"):
        bd.load(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "other.nc"
    with pytest.raises(ValueError, match=r"other\.nc cannot be read: .*No such file"):
        bd.load(path)
    with pytest.raises(ValueError, match="cannot be read"):
        bd.load(tmp_path)
    path.write_text("A text.")
    with pytest.raises(ValueError, match="not a solution that bohmdiff saved"):
        bd.load(path)
    still(problem()).to_xarray().to_netcdf(path, engine="h5netcdf")
    with pytest.raises(ValueError, match="not a solution that bohmdiff saved"):
        bd.load(str(path))


def rewritten(path, change):
    """The same file with another structure, and a checksum that agrees."""
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"\nbohmdiff solution")])
    with h5py.File(path, "r+") as file:
        text = file["solution/structure"][()].decode()
        file["solution/structure"][()] = change(text)
    _seal(path)


def test_a_newer_format_is_refused(tmp_path, monkeypatch):
    path = saved(still(problem(), bd.GaussianDynamics()), tmp_path)
    monkeypatch.setattr("bohmdiff.solution._file._FORMAT", 2)
    rewritten(path, lambda text: text)
    bd.load(path)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"has format 2, .* reads formats up to 1"):
        bd.load(path)


UNTRUSTED = [
    "os:system",
    "builtins:eval",
    "subprocess:Popen",
    "pickle:loads",
    "jax.numpy:load",
    "jax.numpy:save",
    "jax:pure_callback",
    "jax._src.numpy.lax_numpy:save",
    "bohmdiff.solution._file:os.system",
    "bohmdiff.solution._file:os",
    "bohmdiff.solution._file:Path",
    "bohmdiff.solution._names:importlib.import_module",
    "bohmdiff.problem:Problem.__class__.mro",
    "bohmdiff.nothing:here",
    "bohmdiff..problem:Problem",
    "antigravity:fly",
    "",
    ":",
]


@pytest.mark.parametrize("name", UNTRUSTED)
def test_only_classes_and_functions_of_known_libraries_have_names(name):
    assert thing_named(name) is None


def test_a_file_imports_and_calls_nothing(tmp_path):
    path = saved(still(problem(), bd.GaussianDynamics(), {"f": jnp.tanh}), tmp_path)
    rewritten(path, lambda text: text.replace("jax.numpy:tanh", "antigravity:fly"))
    before = set(sys.modules)
    with pytest.raises(
        ValueError, match=r"solution\.more\['f'\] is .*antigravity.* does not know or does not trust"
    ):
        bd.load(path)
    assert set(sys.modules) - before == set()
    path = saved(still(problem(), bd.GaussianDynamics()), tmp_path)
    rewritten(
        path, lambda text: text.replace("bohmdiff.hamiltonian.potentials:DoubleWell", "subprocess:Popen")
    )
    with pytest.raises(
        ValueError, match=r"problem\.hamiltonian\.potential is of a class that is not known"
    ):
        bd.load(path)
    path = saved(still(problem(), bd.GaussianDynamics()), tmp_path)
    rewritten(path, lambda text: text.replace('"barrier"', '"depth"'))
    with pytest.raises(
        ValueError, match="a DoubleWell with depth, minimum, but now a DoubleWell has barrier, minimum"
    ):
        bd.load(path)


def test_names_are_found_again():
    things = (bd.DoubleWell, bd.solve, bd.Solution.score, jnp.tanh, jax.nn.gelu, jnp.add, bd.Problem)
    assert all(thing_named(name_of(thing)) is thing for thing in things)
    assert all(name_of(thing) is None for thing in (harmonic, Spring, len, os.system, lambda: 0, 3))


@pytest.mark.parametrize("name", ["with a space.nc", "größe ħω 波.nc", "no suffix", "a" * 250 + ".nc"])
def test_strange_names(name, tmp_path):
    solution = still(problem(), bd.GaussianDynamics())
    folder = tmp_path / "a folder ψ"
    folder.mkdir()
    solution.save(str(folder / name))
    assert [path.name for path in folder.iterdir()] == [name]
    assert_equal(bd.load(folder / name), solution)


def test_bad_paths(tmp_path):
    solution = still(problem())
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere"):
        solution.save(tmp_path / "nowhere" / "solution.nc")
    with pytest.raises(ValueError, match="it is a folder"):
        solution.save(tmp_path)
    with unchecked_types():
        with pytest.raises(ValueError, match="path must be the name of a file"):
            solution.save(3)
        with pytest.raises(ValueError, match="path must be the name of a file"):
            bd.load(None)
        with pytest.raises(ValueError, match="problem must be a Problem"):
            bd.load(tmp_path, problem=bd.DoubleWell())
        with pytest.raises(ValueError, match="method must be a method"):
            bd.load(tmp_path, method="split operator")


def test_a_link_is_followed(tmp_path):
    solution = still(problem(), bd.GaussianDynamics())
    (tmp_path / "there").mkdir()
    (tmp_path / "link.nc").symlink_to(tmp_path / "there" / "solution.nc")
    solution.save(tmp_path / "link.nc")
    assert (tmp_path / "link.nc").is_symlink()
    assert_equal(bd.load(tmp_path / "there" / "solution.nc"), solution)


def test_who_reads_an_old_file_keeps_it(tmp_path):
    path = saved(still(problem(), bd.GaussianDynamics()), tmp_path)
    before = path.read_bytes()
    with path.open("rb") as reader:
        still(problem(t1=2.0), bd.GaussianDynamics()).save(path)
        assert reader.read() == before
    assert bd.load(path).problem.t1 == 2


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = saved(still(problem(), bd.GaussianDynamics()), tmp_path)
    before = path.read_bytes()

    def full(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match=r"solution\.nc cannot be written: No space left"):
        still(problem(t1=2.0), bd.GaussianDynamics()).save(path)
    assert [one.name for one in tmp_path.iterdir()] == ["solution.nc"]
    assert path.read_bytes() == before


def test_a_traced_solution_is_not_saved(tmp_path):
    def inside(solution):
        solution.save(tmp_path / "solution.nc")
        return solution.ts

    with pytest.raises(ValueError, match="traces has no values yet"):
        jax.jit(inside)(still(problem()))


def test_double_precision_is_not_lost(tmp_path):
    path = saved(still(problem(), bd.GaussianDynamics()), tmp_path)
    with (
        jax.enable_x64(False),
        pytest.raises(ValueError, match=r"float64, which JAX does not hold now.*jax_enable_x64"),
    ):
        bd.load(path)


# Methods.


def closed_form(of, ts):
    return bd.solve(of, bd.GaussianDynamics(steps=8), ts=ts)


def network_of(of):
    return bd.NeuralScore(of, width=2, depth=1, key=KEY)


FEW = {"particles": bd.GaussHermitePoints(16), "steps": 4}
TRAINED = {"training": bd.Training(epochs=2), "particles": 32}
METHODS = {
    "GaussianDynamics": lambda of: bd.GaussianDynamics(steps=8),
    "SplitOperator": lambda of: bd.SplitOperator(32, -6.0, 6.0),
    "SequentialScoreMatching": lambda of: bd.SequentialScoreMatching(degree=4, steps=8),
    "GivenScore": lambda of: bd.GivenScore(closed_form(of, TS).score, **FEW),
    "a function": lambda of: bd.GivenScore(lambda t, x: -x / 0.3, **FEW),
    "SelfConsistentScoreMatching": lambda of: bd.SelfConsistentScoreMatching(
        network_of(of), **TRAINED, steps=4
    ),
    "DeepStochasticMechanics": lambda of: bd.DeepStochasticMechanics(
        *bd.velocity_networks(of, width=2, depth=1, key=KEY), **TRAINED
    ),
    "PhysicsInformedNetwork": lambda of: bd.PhysicsInformedNetwork(
        bd.NeuralWaveFunction(of, width=2, depth=1, key=KEY), **TRAINED
    ),
}
QUICK = ["SplitOperator"]
LONG = ["SelfConsistentScoreMatching", "DeepStochasticMechanics", "PhysicsInformedNetwork"]


def marked(name):
    return [pytest.mark.long] if name in LONG else [] if name in QUICK else [pytest.mark.slow]


@pytest.mark.parametrize("name", [pytest.param(name, marks=marked(name)) for name in METHODS])
@pytest.mark.filterwarnings("ignore:The solution by")
def test_solutions_of_every_method(name, tmp_path):
    def posed(strength=1.0):
        potential = bd.DoubleWell(2.0) + (lambda t, x: 0.5 * strength * x @ x)
        return bd.Problem(bd.Hamiltonian(potential), bd.GaussianWavePacket([0.5], 0.3), 1.0)

    of = posed()
    method = METHODS[name](of)
    solution = bd.solve(of, method, ts=TS, key=jax.random.key(1))
    path = saved(solution, tmp_path)
    with pytest.raises(ValueError, match=r"problem=\.\.\."):
        bd.load(path)
    passed = {"method": method} if name == "a function" else {}
    again = bd.load(path, problem=of, **passed)
    assert_equal(again, solution)
    traces = []

    @jax.jit
    def everything(one, x):
        traces.append(1)
        return one.score(0.3, x), one.velocity(0.3, x), one.trajectories(x[None])

    ours, theirs = (everything(one, jnp.array([0.4])) for one in (solution, again))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    # The same function, written once more, is traced no more either.
    everything(bd.load(path, problem=posed(), **passed), jnp.array([0.4]))
    # But what was trained lies on the devices of the training.
    assert len(traces) == (2 if name in LONG else 1)
    with pytest.raises(ValueError, match="differs"):
        bd.load(path, problem=posed(1.001), **passed)


@pytest.mark.slow
def test_single_precision(tmp_path):
    packet = bd.GaussianWavePacket(jnp.array([0.5], jnp.float32), 0.3)
    of = bd.Problem(bd.Hamiltonian(lambda t, x: 0.5 * x @ x), packet, 1.0)
    solution = bd.solve(of, bd.GaussianDynamics(steps=8), ts=TS)
    again = bd.load(saved(solution, tmp_path), problem=of)
    assert_equal(again, solution)
    assert again.mean().dtype == jnp.float32


@pytest.mark.slow
def test_another_process_loads(tmp_path):
    of = bd.Problem(bd.Hamiltonian(bd.DoubleWell()), bd.GaussianWavePacket([0.5], 0.3), 1.0)
    solution = bd.solve(of, bd.SplitOperator(32, -6.0, 6.0), ts=TS)
    script = f"""
import jax, json
jax.config.update("jax_enable_x64", True)
import bohmdiff as bd
print(json.dumps(bd.load({str(saved(solution, tmp_path))!r}).mean().tolist()))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(json.loads(done.stdout), solution.mean(), rtol=1e-12)
