"""Sequential score matching: fit the score to the particles at every force, and move on."""

from dataclasses import replace
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..._check import as_float, as_positive_integer, describe, is_concrete
from ..._errors import DegenerateFitError
from ..._types import Key, Paths, Points, Scalar, Times, Weights
from ...flow import HalfState, check_solver, integrate, require_finite
from ...hamiltonian import warn_of_kinks
from ...problem import Problem
from ...score import (
    AbstractBasis,
    HermiteFit,
    HermiteScore,
    TotalDegree,
    default_window,
    fit_hermite,
    fit_score_and_phase,
    hermite_polynomials,
    smooth_path,
)
from ...solution import Diagnostics, Figure, Particles, energy_figure, over_time
from ...solver import BlanesMoan4, room_for
from ...stochastic import HermiteVelocity
from ...wavepacket import AbstractDesign, GaussHermitePoints, as_design, default_design
from .._steps import (
    DEFAULT_TOLERANCE,
    Moments,
    as_steps,
    as_tolerance,
    comparison_times,
    run_with_steps,
)
from ..method import AbstractMethod
from .solution import EnsembleSolution, initial_ensemble, sequential_terms

# Few coordinates afford more Gauss–Hermite nodes than exactness asks for, and a density that splits or
# bends needs them: nodes per axis, by dimension.
_DEFAULT_NODES = {1: 200, 2: 32, 3: 12}

_FIRST_STEPS = 64
# What a second design discards, where the first fails; its solution is taken if no particle goes so many times
# farther from the centre, in standard deviations.
_LARGER_DISCARD = 1e-3
RUNAWAY = 4.0

# The density of the fit is compared with that of the flow on at most so many particles, which start within so
# many standard deviations, or within the root of the dimension if that is more. The limit was chosen with
# benchmarks/battery.py, on the problems of even number. In more dimensions it allows as much for each coordinate.
_TRACERS = 256
_TRACER_RADIUS = 2.5
_LARGEST_MISMATCH = 0.035
_LARGEST_MISMATCH_PER_COORDINATE = 0.07
# Of the velocities: behind a barrier that is narrower than the packet they are rough long before the density is.
# In one dimension at degree 4, harmless problems of even number have up to 0.13, and barriers that reflect enough
# to make the moments wrong 0.21 or more.
_LARGEST_ROUGHNESS = 0.17


class TooFewParticlesError(ValueError):
    """There are fewer particles than basis functions."""


class SequentialScoreMatching(AbstractMethod):
    r"""Fits a polynomial score to all particles at every evaluation of the force.

    In a frame that moves and breathes with the ensemble, $\ln\rho$ is a Gaussian plus Hermite
    polynomials up to a total degree, found by implicit score matching: a small linear system in the
    particles' positions alone. Particles and fit together are a Hamiltonian system, so a symplectic
    solver keeps the energy. There is no training and no loss; the degree is what limits the accuracy.

    ```python
    solution = bd.solve(problem, bd.SequentialScoreMatching(degree=4))
    solution.mean(), solution.std(), solution.energy()
    ```

    **Arguments:**

    - `degree`: total degree of the polynomial, at least 2; 2 is a Gaussian wave packet whose width
        follows the ensemble.
    - `particles`: a design of initial points such as
        [`GaussHermitePoints(6)`][bohmdiff.GaussHermitePoints], or a number of scrambled Sobol points,
        which need a `key`. If not given: a pruned Gauss–Hermite grid with `degree + 2` nodes per axis, and
        at least 200, 32 and 12 in one, two and three dimensions, while that is at most 20,000 points,
        otherwise 16,384 Sobol points. Where the density of the fit and of the flow differ, a grid that reaches
        less far out is tried, and its solution is returned if its particles do not run away.
    - `steps`: equal steps from `t0` to `t1`. If not given, the first of 64, 128, ... whose moments would
        change by no more than the tolerance with half as many.
    - `solver`: any of the symplectic solvers.
    - `window`: beyond that many standard deviations from the centre of the ensemble particles count less and
        less in the fit, and its force on them ends, because nothing determines a polynomial in the far tail.
        The energy is conserved with any window. `math.inf` switches it off. If not given, $4 + \sqrt d$: the
        bulk of the particles is at $\sqrt d$.
    - `basis`: which polynomials of that degree. In many coordinates there are too many of them, and
        [`Interactions(2, reach=1)`][bohmdiff.Interactions], pairs of neighbours, or
        [`HyperbolicCross()`][bohmdiff.HyperbolicCross] leave few.
    - `tolerance`: the largest error of any mean or standard deviation due to the steps, in units of the latter.

    **Units:** those of the problem; `window` counts standard deviations. Moments have the shape `(K, d)`.

    **Raises:** `ValueError` for bad options and for fewer particles than basis functions;
    [`DegenerateFitError`][bohmdiff.DegenerateFitError] if the linear system becomes singular on the way.

    ??? cite "References"

        A. Hyvärinen, J. Mach. Learn. Res. 6, 695 (2005), for score matching;
        S. Garashchuk and V. A. Rassolov, J. Chem. Phys. 118, 2482 (2003) and 120, 1181 (2004), for
        energy-conserving fits of the quantum potential.
    """

    degree: int = eqx.field(default=4, static=True)
    particles: int | AbstractDesign | None = eqx.field(default=None, static=True)
    steps: int | None = eqx.field(default=None, static=True, converter=as_steps)
    solver: diffrax.AbstractSolver = eqx.field(default=BlanesMoan4(), static=True)
    window: float | None = eqx.field(
        default=None, static=True, converter=lambda v: None if v is None else as_float(v, "window")
    )
    basis: AbstractBasis = eqx.field(default=TotalDegree(), static=True)
    tolerance: float = eqx.field(default=DEFAULT_TOLERANCE, static=True, converter=as_tolerance)

    def __check_init__(self):
        as_positive_integer(self.degree, "degree", "Pass the total degree of the polynomial.")
        if self.degree < 2:
            raise ValueError(
                f"degree must be at least 2, which describes a Gaussian, but {self.degree} was given."
            )
        check_solver(self.solver)
        if self.particles is not None:
            as_design(self.particles, "particles")
        if not isinstance(self.basis, AbstractBasis):
            raise ValueError(f"basis must be a rule such as Interactions(2), but {self.basis!r} was given.")
        if self.window is not None and not self.window > 0:
            raise ValueError(f"window must be positive, but {self.window!r} was given.")

    def design(self, dimension: int) -> AbstractDesign:
        """The design of initial points that is used in `dimension` coordinates."""
        if self.particles is None:
            return default_design(dimension, max(self.degree + 2, _DEFAULT_NODES.get(dimension, 0)))
        return as_design(self.particles, "particles")

    def window_in(self, dimension: int) -> float:
        """The radius of the window that is used in `dimension` coordinates."""
        if self.window is None:
            return default_window(dimension)
        return self.window

    def run(self, problem: Problem, ts: Times, *, key: Key | None, progress: bool) -> EnsembleSolution:
        design = self.design(problem.dimension)
        if self.particles is not None or not isinstance(design, GaussHermitePoints):
            return self._solve(problem, ts, key, progress)
        nearer = replace(self, particles=replace(design, discard=_LARGER_DISCARD))
        try:
            solution = self._solve(problem, ts, key, progress)
        except DegenerateFitError:
            return nearer._solve(problem, ts, key, progress)
        if "density mismatch" not in solution.diagnostics.failed():
            return solution
        # Particles far out may be what goes wrong: see whether those that start closer to the centre do better.
        try:
            other = nearer._solve(problem, ts, key, progress)
        except DegenerateFitError:
            return solution
        held = float(jnp.max(other.farthest)) < RUNAWAY * float(other.farthest[0])
        return other if held else solution

    def _solve(self, problem: Problem, ts: Times, key: Key | None, progress: bool) -> EnsembleSolution:
        dimension = problem.dimension
        x0, weights = problem.initial.particles(self.design(dimension), key)
        functions = hermite_polynomials(dimension, self.degree, self.basis).size
        if x0.shape[0] < functions:
            raise TooFewParticlesError(
                f"{x0.shape[0]} particles cannot determine the {functions} basis functions of degree "
                f"{self.degree} in {dimension} dimensions: pass more particles, best several times as "
                "many, or a lower degree."
            )
        x0 = require_finite(problem, problem.hamiltonian.potential, x0, "potential")
        mean = weights @ x0
        width = jnp.sqrt(weights @ (x0 - mean[None]) ** 2)
        warn_of_kinks(problem.hamiltonian, problem.t0, mean, width, order=2)
        concrete = is_concrete((problem, x0, weights, ts))
        unstepped = replace(self, steps=None)

        def run(steps: int) -> tuple[_Run, Moments]:
            room = room_for(steps) if concrete else steps
            count = jnp.asarray(steps)
            ran, moments = _run(problem, unstepped, x0, weights, ts, count, room, progress)
            self._refuse_degenerate(problem, functions, steps, ran)
            return ran, moments

        (saved, every, paths, mismatch), steps, figures = run_with_steps(
            self, run, first=_FIRST_STEPS, order=self.solver.order(None) or 1
        )
        masses = problem.hamiltonian.masses(dimension)
        return EnsembleSolution(
            problem=problem,
            method=replace(self, steps=steps),
            ts=ts,
            particles=Particles(saved.position, weights, saved.log_density, saved.phase),
            fitted=HermiteScore(paths.score),
            current=HermiteVelocity(paths.phase, masses, every.misfit),
            condition_number=saved.condition_number,
            farthest=saved.farthest,
            diagnostics=_diagnostics(problem, ts, every, mismatch, figures),
            solver=self.solver,
            steps=steps,
            _energy=saved.energy,
        )

    def _refuse_degenerate(self, problem: Problem, functions: int, steps: int, ran: "_Run") -> None:
        """Raises where a fit was singular to working precision, and says when; not under a transformation."""
        if not is_concrete(ran):
            return
        limit = _largest_condition_number(problem)
        # By NumPy, since each operation of JAX would be compiled.
        bad = ~(np.asarray(ran.steps.condition_number) < limit)
        bad[-1] |= not np.all(np.isfinite(ran.saved.energy))
        if not np.any(bad):
            return
        first = int(np.argmax(bad))
        raise DegenerateFitError(
            f"The score fit became singular at t = {describe(ran.steps.t[first])}, in step {first} of {steps}: "
            f"the condition number of its {functions - 1} x {functions - 1} linear system is "
            f"{float(ran.steps.condition_number[first]):.1e}, and {limit:.0e} is the limit. Either particles ran "
            "away (pass a lower degree, or a design that reaches less far out), or they are too few for the "
            "basis (pass more particles or a lower degree), or the steps are too long (pass more), or "
            "they left a TabulatedPotential (pass outside='linear' to it)."
        )


class _Saved(NamedTuple):
    """At the saved times; particles first."""

    position: Paths
    phase: Float[Array, "M K"]
    log_density: Float[Array, "M K"]
    energy: Times
    condition_number: Times
    farthest: Times


class _Steps(NamedTuple):
    """At the start and after each step."""

    t: Times
    condition_number: Times
    misfit: Times
    roughness: Times
    energy: Times
    kinetic: Times


class _Fits(NamedTuple):
    """Of an ensemble at one time, or as functions of time."""

    score: Any
    phase: Any
    fisher_information: Any


class _OnTracers(NamedTuple):
    """The fitted ln ρ, and the divergence of the fitted velocity, on some particles."""

    log_density: Float[Array, "*N T"]
    divergence: Float[Array, "*N T"]


class _Run(NamedTuple):
    saved: _Saved
    steps: _Steps
    paths: _Fits
    mismatch: Times


@eqx.filter_jit
def _run(
    problem: Problem,
    method: SequentialScoreMatching,
    x0: Points,
    weights: Weights,
    ts: Times,
    count: Int[Array, ""],
    room: int,
    progress: bool,
) -> tuple[_Run, Moments]:
    hamiltonian = problem.hamiltonian
    mass = hamiltonian.masses(problem.dimension)
    window = method.window_in(problem.dimension)

    tracers = _tracers(x0.shape[0])

    def fit(x: Points) -> HermiteFit:
        return fit_hermite(x, weights, mass, method.degree, window, method.basis)

    def quantum(information: Scalar) -> Scalar:
        return 0.125 * hamiltonian.hbar**2 * information

    def energies(t: Any, x: Points, velocity: Points) -> tuple[Scalar, Scalar]:
        """The mean kinetic energy of the particles, and the mean potential energy."""
        kinetic = weights @ jax.vmap(hamiltonian.kinetic_energy)(velocity)
        return kinetic, weights @ jax.vmap(hamiltonian.potential, in_axes=(None, 0))(t, x)

    def moments(t: Any, y: tuple[HalfState, HalfState], args: Any) -> Moments:
        x = y[0].motion
        mean = weights @ x
        return Moments(mean, jnp.sqrt(weights @ (x - mean[None]) ** 2))

    def save(
        t: Any, y: tuple[HalfState, HalfState], args: Any
    ) -> tuple[Points, Float[Array, " M"], Scalar]:
        (x, action, _, _), (velocity, more_action, _, _) = y
        kinetic, potential = energies(t, x, velocity)
        return x, action + more_action, kinetic + potential

    def step(t: Any, y: tuple[HalfState, HalfState], args: Any) -> tuple[_Steps, _Fits, _OnTracers]:
        x, velocity = y[0].motion, y[1].motion
        fitted, phase = fit_score_and_phase(x, velocity, weights, mass, method.degree, window, method.basis)
        error = velocity - phase.correction_gradient(x) / mass[None]
        # The standard deviation of the momentum of a Gaussian.
        osmotic = 0.5 * hamiltonian.hbar / jnp.sqrt(weights @ (x - (weights @ x)[None]) ** 2)
        kinetic, potential = energies(t, x, velocity)
        kinetic = kinetic + quantum(fitted.fisher_information)
        steps = _Steps(
            t=t,
            condition_number=fitted.condition_number,
            misfit=jnp.sqrt(weights @ (error**2 @ mass) / jnp.sum(mass)),
            roughness=jnp.sqrt(weights @ jnp.mean((error * (mass / osmotic)[None]) ** 2, axis=1)),
            energy=kinetic + potential,
            kinetic=kinetic,
        )
        on_tracers = _OnTracers(
            fitted.expansion.log_densities(x[tracers]), phase.correction_laplacian(x[tracers], mass)
        )
        return steps, _Fits(fitted.expansion, phase, fitted.fisher_information), on_tracers

    solution = integrate(
        problem,
        sequential_terms(problem, lambda t, x: fit(x).expansion),
        initial_ensemble(problem, x0),
        diffrax.SaveAt(
            subs=[
                diffrax.SubSaveAt(ts=comparison_times(problem), fn=moments),
                diffrax.SubSaveAt(ts=ts, fn=save),
                diffrax.SubSaveAt(t0=True, steps=True, fn=step),
            ]
        ),
        method.solver,
        count,
        room=room,
        progress=progress,
    )
    assert solution.ys is not None
    compared, (positions, phases, classical), (steps, fits, on_tracers) = solution.ys
    paths = _Fits(*(smooth_path(steps.t, values, count) for values in fits))
    # What lies beyond the last step repeats it.
    own = jnp.minimum(jnp.arange(room + 1), count)
    steps, on_tracers = jax.tree.map(lambda leaf: leaf[own], (steps, on_tracers))
    start = paths.score.evaluate(problem.t0)
    square = jnp.sum(start.in_frame(x0[tracers]) ** 2, axis=1)
    sizes = jnp.where(square < max(_TRACER_RADIUS**2, problem.dimension), weights[tracers], 0)

    def of_density(given: tuple[Scalar, Points]) -> tuple[Float[Array, " M"], Scalar, Scalar]:
        t, x = given
        expansion = paths.score.evaluate(t)
        distance = jnp.sqrt(jnp.max(jnp.sum(expansion.in_frame(x) ** 2, axis=1)))
        return expansion.log_densities(x), quantum(paths.fisher_information.evaluate(t)), distance

    log_densities, quantum_energy, farthest = jax.lax.map(of_density, (ts, positions))
    saved = _Saved(
        position=jnp.moveaxis(positions, 0, 1),
        phase=phases.T,
        log_density=log_densities.T,
        energy=classical + quantum_energy,
        condition_number=jnp.interp(ts, steps.t, steps.condition_number),
        farthest=farthest,
    )
    at_start = jax.vmap(problem.initial.log_density)(x0[tracers])
    mismatch = _mismatch(steps.t, on_tracers, at_start, sizes / jnp.sum(sizes))
    return _Run(saved, steps, paths, mismatch), compared


def _largest_condition_number(problem: Problem) -> float:
    return 0.1 / float(jnp.finfo(problem.dtype).eps)


def _largest_mismatch(d: int) -> float:
    return _LARGEST_MISMATCH if d == 1 else _LARGEST_MISMATCH_PER_COORDINATE * d**0.5


def _tracers(number: int) -> np.ndarray:
    return np.arange(0, number, -(-number // _TRACERS))


def _diagnostics(
    problem: Problem,
    saved: Float[Array, " S"],
    steps: _Steps,
    mismatch: Times,
    more: dict[str, Figure],
) -> Diagnostics:
    figures = {
        "condition number": over_time(
            steps.condition_number,
            steps.t,
            limit=_largest_condition_number(problem),
            meaning="The linear system of the score fit is nearly singular.",
            remedy="Pass a lower degree, more particles, or a design that reaches less far out.",
        ),
        "density mismatch": over_time(
            mismatch,
            steps.t,
            limit=_largest_mismatch(problem.dimension),
            meaning="The fitted ln ρ differs from the ln ρ that the flow of the particles produces; this is the "
            "root-mean-square difference.",
            remedy="Trust earlier times only, pass a larger degree, or use SplitOperator where d ≤ 4.",
        ),
        "velocity mismatch": over_time(
            steps.roughness,
            steps.t,
            limit=_LARGEST_ROUGHNESS,
            meaning="The velocities of the particles are no gradient of a polynomial of this degree; this is the "
            "root-mean-square difference, in units of ħ/(2mσ). The potential has a part that is narrower than "
            "the packet, and the waves that it reflects are missing.",
            remedy="Trust earlier times only, or use SplitOperator where d ≤ 4.",
        ),
    }
    energy = energy_figure(problem, steps.t, steps.energy, steps.kinetic)
    return Diagnostics(figures | more | energy, saved, problem.t1)


def _mismatch(ts: Times, on_tracers: _OnTracers, at_start: Float[Array, " T"], weights: Weights) -> Times:
    r"""The standard deviation over tracers of $\ln\rho$ of the fit, less $\ln\rho_0 - \int\nabla\cdot v\,dt$."""
    log_density, divergence = on_tracers
    lost = jnp.cumsum(0.5 * (divergence[1:] + divergence[:-1]) * jnp.diff(ts)[:, None], axis=0)
    excess = log_density.at[1:].add(lost) - at_start[None]
    return jnp.sqrt((excess - (excess @ weights)[:, None]) ** 2 @ weights)
