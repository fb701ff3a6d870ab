"""Gaussian wave packets that stay Gaussian: exact in a quadratic potential, Heller's elsewhere."""

from dataclasses import replace
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from ..._check import is_concrete, require
from ..._errors import NotFiniteError
from ..._types import Key, Matrix, Points, Scalar, Times, Vector
from ...hamiltonian import warn_of_kinks
from ...problem import Problem
from ...solution import Diagnostics, Figure, over_time
from ...solver import AbstractSymplecticSolver, BlanesMoan6, EqualSteps, room_for
from ...wavepacket import GaussianWavePacket, SobolPoints
from .._steps import (
    DEFAULT_TOLERANCE,
    Moments,
    as_steps,
    as_tolerance,
    comparison_times,
    run_with_steps,
)
from ..method import AbstractMethod
from .solution import GaussianSolution, PacketState

_FIRST_STEPS = 1000
# The part of the potential that is neglected is looked at on so many points, and may turn ψ by this angle.
_POINTS = 256
_LARGEST_ANHARMONICITY = 0.03


class GaussianDynamics(AbstractMethod):
    r"""A Gaussian in the quadratic expansion of the potential about its moving centre.

    Exact in any quadratic potential (bound, free or inverted, coupled, or time-dependent), and exact to
    $O(\hbar)$ elsewhere (the thawed Gaussian of Heller). The frequencies are those at the centre, so the method
    works at the top of a barrier as well as at the bottom of a well.

    ```python
    solution = bd.solve(problem, bd.GaussianDynamics())
    solution.wave_function(0.5, x)
    ```

    The centre $(q, p)$ is classical. With mass matrix $m$, $K = \nabla\nabla V(t, q)$, $\dot Q = m^{-1} P$,
    $\dot P = -K Q$, $Q(t_0) = 1$ and $P(t_0) = \nabla\nabla S_0 + \tfrac{i\hbar}{2} C_0^{-1}$,

    $$\psi = (2\pi)^{-d/4} \det(C)^{-1/4} \exp\frac{i}{\hbar}\Bigl[\tfrac12 (x-q)^\top P Q^{-1} (x-q)
    + p\cdot(x-q) + S\Bigr],\qquad C = Q\, C_0\, Q^\dagger$$

    where $C$ is the covariance of the density and $\dot S = \tfrac12 p\, m^{-1} p - V(t, q) -
    \tfrac{\hbar^2}{4}\operatorname{tr}(m^{-1} C^{-1})$ is the phase of the centre: its classical action
    minus the quantum potential there.

    **Arguments:**

    - `steps`: the number of equal steps, at least 1. If not given, the first of 1000, 2000, ... whose moments
        differ from those with half as many by no more than the tolerance. With 1000, over three periods
        of an oscillator, the moments are accurate to 1e-14, and the phase and the Bohmian flow of a squeezed
        state to 1e-11.
    - `solver`: a symplectic solver, e.g. [`BlanesMoan6`][bohmdiff.BlanesMoan6].
    - `tolerance`: the largest error of any mean or standard deviation due to the steps, in units of the latter.

    **Units:** those of the problem.

    **Returns** from [`solve`][bohmdiff.solve]: a `GaussianSolution`. `key` is not used.

    **Raises:** `ValueError` if the initial state is not a
    [`GaussianWavePacket`][bohmdiff.GaussianWavePacket]; [`NotFiniteError`][bohmdiff.NotFiniteError] if the
    solution does not stay finite.

    ??? cite "Reference"

        Heller, Time-dependent approach to semiclassical dynamics, J. Chem. Phys. 62 (1975) 1544.

        Hagedorn, Semiclassical quantum mechanics. I, Commun. Math. Phys. 71 (1980) 77, for $Q$ and $P$.
    """

    steps: int | None = eqx.field(default=None, static=True, converter=as_steps)
    solver: AbstractSymplecticSolver = eqx.field(default_factory=BlanesMoan6, static=True)
    tolerance: float = eqx.field(default=DEFAULT_TOLERANCE, static=True, converter=as_tolerance)

    def __check_init__(self):
        if not isinstance(self.solver, AbstractSymplecticSolver):
            raise ValueError(
                "solver must be a symplectic solver: VelocityVerlet(), Yoshida4(), BlanesMoan4(), "
                f"BlanesMoan6() or a subclass of AbstractSymplecticSolver, but {self.solver!r} was given."
            )

    def run(self, problem: Problem, ts: Times, *, key: Key | None, progress: bool) -> GaussianSolution:
        del key
        if not isinstance(problem.initial, GaussianWavePacket):
            raise ValueError(
                "GaussianDynamics needs a GaussianWavePacket as initial state, but "
                f"{type(problem.initial).__name__} was given. For other states use another method, such as "
                "SplitOperator."
            )
        mean, width = problem.initial.mean, jnp.sqrt(jnp.diag(problem.initial.covariance))
        warn_of_kinks(problem.hamiltonian, problem.t0, mean, width, order=2)
        concrete = is_concrete((problem, ts))
        initial = problem.initial

        def run(steps: int) -> tuple[tuple[Any, Any], Moments]:
            room = room_for(steps) if concrete else steps
            interpolation, finite = _integrate(
                problem, initial, self.solver, jnp.asarray(steps), room, progress
            )
            return (interpolation, finite), _moments(problem, interpolation)

        (interpolation, finite), steps, figures = run_with_steps(
            self, run, first=_FIRST_STEPS, order=self.solver.tableau.order
        )
        interpolation = require(
            interpolation,
            finite,
            f"GaussianDynamics(steps={steps}) met numbers that are not finite between t0 and t1. Pass "
            "more steps; if that does not help, the potential, or the path of the centre in it, is not "
            "finite.",
            NotFiniteError,
        )
        lost = Figure(
            1 - finite.astype(problem.dtype),
            limit=0.0,
            meaning="The packet became infinite or NaN between t0 and t1.",
            remedy="Pass more steps, or a potential that is finite on the path of the centre.",
        )
        # Its score is a property; pyright takes it for a field.
        return GaussianSolution(  # pyright: ignore[reportCallIssue]
            problem=problem,
            method=replace(self, steps=steps),
            ts=ts,
            interpolation=interpolation,
            diagnostics=Diagnostics(
                {"not finite": lost, "anharmonicity": _anharmonicity(problem, interpolation)} | figures,
                ts,
                problem.t1,
            ),
        )


def _at_comparison(problem: Problem, interpolation: diffrax.DenseInterpolation) -> GaussianSolution:
    # Neither the method nor the diagnostics matter here.
    return GaussianSolution(  # pyright: ignore[reportCallIssue]
        problem=problem,
        method=GaussianDynamics(),
        ts=comparison_times(problem),
        interpolation=interpolation,
        diagnostics=Diagnostics(),
    )


@eqx.filter_jit
def _moments(problem: Problem, interpolation: diffrax.DenseInterpolation) -> Moments:
    solution = _at_comparison(problem, interpolation)
    return Moments(solution.mean(), solution.std())


def _anharmonicity(problem: Problem, interpolation: diffrax.DenseInterpolation) -> Figure:
    with jax.ensure_compile_time_eval():
        normal = jnp.asarray(SobolPoints(_POINTS)(problem.dimension, jax.random.key(0))[0], problem.dtype)
    return over_time(
        _neglected(problem, interpolation, normal),
        comparison_times(problem),
        limit=_LARGEST_ANHARMONICITY,
        meaning="The potential beyond its quadratic expansion turns ψ by this angle, averaged over the density.",
        remedy="Trust earlier times only, or use another method, such as SequentialScoreMatching.",
    )


@eqx.filter_jit
def _neglected(problem: Problem, interpolation: diffrax.DenseInterpolation, normal: Points) -> Times:
    r"""$\int \text{std}(V - V_2)\, dt / \hbar$ until each time of comparison, which bounds the norm of the error
    of ψ, up to a phase."""
    solution, potential = _at_comparison(problem, interpolation), problem.hamiltonian.potential

    def spread(given: tuple[Scalar, Vector, Matrix]) -> Scalar:
        t, mean, covariance = given
        offsets = normal @ jnp.linalg.cholesky(covariance).T
        slope = jax.grad(potential, argnums=1)(t, mean)
        curvature = jax.hessian(potential, argnums=1)(t, mean)
        expanded = offsets @ slope + 0.5 * jnp.sum((offsets @ curvature) * offsets, axis=1)
        values = jax.vmap(potential, in_axes=(None, 0))(t, mean[None] + offsets)
        return jnp.std(values - expanded)

    ts = solution.ts
    rates = jax.lax.map(spread, (ts, solution.mean(), solution.covariance())) / problem.hamiltonian.hbar
    turned = jnp.cumsum(0.5 * (rates[1:] + rates[:-1]) * jnp.diff(ts))
    return jnp.concatenate([jnp.zeros_like(ts[:1]), turned])


@eqx.filter_jit
def _integrate(
    problem: Problem,
    initial: GaussianWavePacket,
    solver: AbstractSymplecticSolver,
    steps: Int[Array, ""],
    room: int,
    progress: bool,
):
    hamiltonian, d = problem.hamiltonian, problem.dimension
    mass, hbar, potential = hamiltonian.masses(d), hamiltonian.hbar, hamiltonian.potential

    def drift(t, momenta: PacketState, args):
        del t, args
        rows = jax.tree.map(lambda half: half / mass.reshape(-1, *(1,) * (half.ndim - 1)), momenta)
        action = 0.5 * momenta.centre @ rows.centre
        return eqx.tree_at(lambda state: state.action, rows, action)

    def kick(t, positions: PacketState, args):
        del args
        q = positions.centre
        value, gradient = jax.value_and_grad(potential, argnums=1)(t, q)
        curvature = jax.hessian(potential, argnums=1)(t, q)
        precision = jnp.linalg.inv(positions.covariance(initial.covariance))
        # The Hessian of the quantum potential, −ħ²/4 C⁻¹ m⁻¹ C⁻¹, acts on the Bohmian flow alone.
        quantum = -0.25 * hbar**2 * (precision / mass[None]) @ precision
        return PacketState(
            centre=-gradient,
            real=-curvature @ positions.real,
            imaginary=-curvature @ positions.imaginary,
            flow=-(curvature + quantum) @ positions.flow,
            action=-value - 0.25 * hbar**2 * jnp.sum(jnp.diag(precision) / mass),
        )

    one, zero = jnp.eye(d, dtype=problem.dtype), jnp.zeros((d, d), problem.dtype)
    positions = PacketState(initial.mean, one, zero, one, zero[0, 0])
    width = 0.5 * hbar * jnp.linalg.inv(initial.covariance)
    momenta = PacketState(initial.momentum, initial.chirp, width, initial.chirp, zero[0, 0])
    t0, t1 = problem.t0, problem.t1
    solution = diffrax.diffeqsolve(
        (diffrax.ODETerm(drift), diffrax.ODETerm(kick)),
        solver,
        t0,
        t1,
        None,
        (positions, momenta),
        saveat=diffrax.SaveAt(t1=True, dense=True),
        stepsize_controller=EqualSteps(t0, t1, steps),
        max_steps=room,
        throw=False,  # numbers that are not finite are found below
        progress_meter=diffrax.TqdmProgressMeter() if progress else diffrax.NoProgressMeter(),
    )
    finite = jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(solution.ys)]))
    assert solution.interpolation is not None
    return solution.interpolation, finite
