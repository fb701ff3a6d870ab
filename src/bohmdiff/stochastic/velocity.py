"""Current and osmotic velocity: what a process needs to know of a wave function."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._check import as_key, as_positive_integer, require
from .._precision import in_full_precision
from .._types import Key, Points, Time, Times, Vector, Weights
from ..flow import Score, bohmian_terms, check_ensemble, initial_halves, integrate
from ..method.given_score import FlowSolution
from ..method.sequential import EnsembleSolution
from ..method.split_operator import GridSolution
from ..problem import Problem, as_problem
from ..score import (
    AbstractBasis,
    TotalDegree,
    cubic_path,
    default_trust_radius,
    fit_velocity,
    hermite_polynomials,
)
from ..solution import Solution, as_solution
from ..wavepacket import AbstractDesign, SobolPoints, TruncatedPoints, as_design

_PARTICLES = 4096
_LARGEST_DEGREE, _MOST_FUNCTIONS = 6, 500


class Velocities(eqx.Module):
    r"""Density and phase of $\psi = \sqrt\rho\, e^{iS/\hbar}$ as velocities: all that a process needs to know.

    ```python
    velocities = bd.Velocities(problem, solution.score, bd.current_velocity(solution))
    velocities.current(0.5, x), velocities.osmotic(0.5, x)
    ```

    **Arguments:**

    - `problem`: for $\hbar$, the masses, the initial state and the span of time.
    - `score`: $\nabla\ln\rho$, any `s(t, x)` of shape `(d,)` for one particle.
    - `current`: $v_i = \partial_i S / m_i$, any `v(t, x)` of shape `(d,)`.

    **Units:** those of the problem: velocities in length / time, the score in 1 / length.

    **Raises:** `ValueError` for something that is no problem, or can't be called.
    """

    problem: Problem
    score: Callable[..., Array]
    current: Callable[..., Array]

    def __check_init__(self):
        as_problem(self.problem)
        for name in ("score", "current"):
            if not callable(getattr(self, name)):
                raise ValueError(
                    f"{name} must be a callable {name}(t, x) -> (d,), but {getattr(self, name)!r} was given."
                )

    def osmotic(self, t: Time, x: Vector) -> Vector:
        r"""$u_i = \frac{\hbar}{2 m_i}\,\partial_i\ln\rho$ at one point, shape `(d,)`."""
        hamiltonian = self.problem.hamiltonian
        return 0.5 * hamiltonian.hbar / hamiltonian.mass * self.score(t, x)


class HermiteVelocity(eqx.Module):
    r"""$v = m^{-1}\nabla S$ with the phase $S$ as a polynomial in a frame that moves with the ensemble, its
    coefficients cubic functions of time.

    ```python
    velocity = bd.current_velocity(solution, degree=4)
    velocity(0.5, x), velocity.misfit.max()
    ```

    **Arguments:**

    - `path`: a Diffrax interpolation whose value at `t` is a [`HermiteExpansion`][bohmdiff.HermiteExpansion] of
        the phase.
    - `mass`: of each coordinate, shape `(d,)`.
    - `misfit`: by how much the velocities of the particles differ from the field, root-mean-square with the
        masses as weights, at every step, shape `(steps + 1,)`.

    **Units:** length / time.

    **Raises:** nothing; it is made by [`current_velocity`][bohmdiff.current_velocity].
    """

    path: diffrax.CubicInterpolation
    mass: Vector
    misfit: Times

    def __call__(self, t: Time, x: Vector) -> Vector:
        expansion = self.path.evaluate(jnp.asarray(t, x.dtype))
        return expansion.correction_gradient(x[None])[0] / self.mass


@in_full_precision
def current_velocity(
    solution: Solution,
    *,
    degree: int | None = None,
    basis: AbstractBasis = TotalDegree(),  # noqa: B008
    particles: int | AbstractDesign | None = None,
    key: Key | None = None,
) -> Callable[..., Array]:
    r"""The current velocity $v = m^{-1}\nabla S$ of a solution as a function of time and place.

    ```python
    velocity = bd.current_velocity(solution)
    jax.vmap(lambda x: velocity(0.5, x))(x0)
    ```

    Where a solution has a method `velocity`, as those of [`GaussianDynamics`][bohmdiff.GaussianDynamics] and
    [`SplitOperator`][bohmdiff.SplitOperator], it is that, exactly. Others have velocities on their
    trajectories only. Particles are then moved once more under the score, and at every step the polynomial
    phase is fitted whose gradient comes closest to their momenta. The means of all polynomials of that degree
    then change in time as they do in the flow.

    **Arguments:**

    - `solution`: by any method.
    - `degree`: of the polynomial phase, at least 2. If not given, that of the score if it is a polynomial of
        less than 6, otherwise 6, or less where that would be more than 500 polynomials.
    - `basis`: which polynomials of that degree, e.g. [`Interactions(2)`][bohmdiff.Interactions]; all if not
        given.
    - `particles`: a design of initial points, or a number of scrambled Sobol points. If not given, 4096 Sobol
        points without the thousandth of the probability that lies farthest out, as a polynomial is no better than
        the worst of its particles.
    - `key`: for designs that make random choices; always the same ones if not given.

    **Units:** length / time.

    **Returns:** `solution.velocity`, or a [`HermiteVelocity`][bohmdiff.HermiteVelocity]: a function of a time and
    one point, of shape `(d,)`.

    **Raises:** `ValueError` for bad input, a solution that has neither velocity nor trajectories, and if the
    particles do not determine the polynomial.
    """
    as_solution(solution, "solution")
    own = getattr(solution, "velocity", None)
    if own is not None:
        return own
    if not isinstance(solution, EnsembleSolution | FlowSolution):
        raise ValueError(
            f"A {type(solution).__name__} has neither velocity(t, x) nor trajectories under a score from which "
            "one could be found: give it a method velocity(t, x) -> (d,)."
        )
    d = solution.problem.dimension
    if not isinstance(basis, AbstractBasis):
        raise ValueError(f"basis must be a rule such as Interactions(2), but {basis!r} was given.")
    if degree is None:
        degree = _default_degree(solution, basis)
    elif as_positive_integer(degree, "degree", "Pass the total degree of the polynomial.") < 2:
        raise ValueError(f"degree must be at least 2, which fits a Gaussian, but {degree} was given.")
    usual = TruncatedPoints(SobolPoints(_PARTICLES))
    design = usual if particles is None else as_design(particles, "particles")
    key = jax.random.key(0) if key is None else as_key(key)
    x0, weights = solution.problem.initial.particles(design, key)
    functions = hermite_polynomials(d, degree, basis).size
    if x0.shape[0] < functions:
        raise ValueError(
            f"{x0.shape[0]} particles cannot determine the {functions} polynomials of degree {degree} in {d} "
            "dimensions: pass more particles, or a lower degree."
        )
    problem, score, x0 = check_ensemble(solution.problem, solution.fitted, x0)
    velocity = _fitted(problem, score, x0, weights, degree, basis, solution.solver, solution.steps)
    return require(
        velocity,
        jnp.all(jnp.isfinite(velocity.misfit)),
        "No polynomial phase could be fitted at some time: particles became non-finite, or are too few. Pass "
        "more particles, a lower degree, or a design that reaches less far out.",
    )


def as_velocities(source: Any, key: Key | None) -> Velocities:
    """Velocities as they are, or those of a solution, at times that may be traced."""
    if isinstance(source, Velocities):
        return source
    if not isinstance(source, Solution):
        raise ValueError(
            "source must be a solution, as solve returns, or Velocities, but "
            f"{type(source).__name__} was given."
        )
    if isinstance(source, GridSolution):
        psi = source.tabulated()
        return Velocities(source.problem, psi.score, psi.velocity)
    return Velocities(source.problem, source.score, current_velocity(source, key=key))


def _default_degree(solution: EnsembleSolution | FlowSolution, basis: AbstractBasis) -> int:
    if isinstance(solution, EnsembleSolution):
        return min(solution.fitted.at(solution.problem.t0).degree, _LARGEST_DEGREE)
    d = solution.problem.dimension
    degrees = range(_LARGEST_DEGREE, 2, -1)
    return next((n for n in degrees if hermite_polynomials(d, n, basis).size <= _MOST_FUNCTIONS), 2)


@eqx.filter_jit
def _fitted(
    problem: Problem,
    score: Score,
    x0: Points,
    weights: Weights,
    degree: int,
    basis: AbstractBasis,
    solver: diffrax.AbstractSolver,
    steps: int,
) -> HermiteVelocity:
    d = problem.dimension
    mass = problem.hamiltonian.masses(d)
    trust_radius = default_trust_radius(d)
    drift, kick = bohmian_terms(problem, score)

    def fit(x: Points, v: Points):
        expansion = fit_velocity(x, v, weights, mass, degree, trust_radius, basis)
        error = v - expansion.correction_gradient(x) / mass
        return expansion, weights @ (error**2 @ mass) / jnp.sum(mass)

    def moving_fit(t: Any, y: Any, args: Any):
        position, velocity = y
        acceleration = kick.vector_field(t, position, args).motion
        moving = (position.motion, velocity.motion), (velocity.motion, acceleration)
        # The derivative of the fit along the motion makes its interpolation in time cubic.
        (expansion, square), (rate, _) = jax.jvp(fit, *moving)
        return expansion, rate, jnp.sqrt(square)

    solution = integrate(
        problem,
        (drift, kick),
        initial_halves(problem, x0, tangents=False),
        diffrax.SaveAt(t0=True, steps=True, fn=moving_fit),
        solver,
        steps,
    )
    assert solution.ts is not None
    assert solution.ys is not None
    expansions, rates, misfit = solution.ys
    return HermiteVelocity(cubic_path(solution.ts, expansions, rates), mass, misfit)
