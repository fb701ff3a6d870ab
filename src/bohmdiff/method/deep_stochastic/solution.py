"""The solution from two velocity fields."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float

from ..._check import require
from ..._errors import ParticlesLostError
from ..._types import Field, Paths, Points, Scalar, Time, Times, Vector, Weights
from ...flow import require_finite_paths
from ...problem import Problem
from ...solution import Diagnostics, Particles
from .._field_solution import MOST_STEPS, AbstractFieldSolution, along_flow


class VelocitySolution(AbstractFieldSolution):
    r"""An osmotic and a current velocity: what [`DeepStochasticMechanics`][bohmdiff.DeepStochasticMechanics]
    returns.

    ```python
    u, v = bd.velocity_networks(problem, width=4, key=key)
    method = bd.DeepStochasticMechanics(
        u, v, training=bd.Training(epochs=2), particles=16
    )
    trained = bd.solve(problem, method, key=key)
    trained.osmotic(0.5, x), trained.velocity(0.5, x)
    trained.history["residual"]
    ```

    - `osmotic`, `current`: the trained fields, as modules.
    - `particles`: [`Particles`][bohmdiff.Particles] that moved with the current velocity, with density and phase.
    - `history`: the log of the training, an `xarray.Dataset` over `epoch`.

    Moments are those of the particles, without noise; [`nelson_process`][bohmdiff.nelson_process] samples the
    process with noise. The score is that of the osmotic velocity, $s = 2mu/\hbar$. The energy is
    $\langle \tfrac m2 (u^2 + v^2) + V \rangle$. To find density and phase at a point, the flow is traced
    back to its start: they are $\ln\rho_0$ there minus $\int\mathrm{div}\,v\,dt$, and $S_0$ plus the action
    $\int \tfrac m2 (v^2 + u^2) + \tfrac\hbar2\,\mathrm{div}\,u - V\,dt$.
    """

    problem: Problem
    method: eqx.Module
    ts: Times
    osmotic: Callable[..., Array]
    current: Callable[..., Array]
    particles: Particles
    diagnostics: Diagnostics
    _history: dict[str, Array]

    @staticmethod
    def of(
        problem: Problem,
        method: eqx.Module,
        ts: Times,
        fields: tuple[Callable[..., Array], Callable[..., Array]],
        x0: Points,
        weights: Weights,
        history: dict[str, Array],
    ) -> "VelocitySolution":
        """The solution whose particles start at `x0`."""
        position, log_density, phase = _with_amplitudes(problem, *fields, x0, ts)
        particles = Particles(require_finite_paths(position, ts), weights, log_density, phase)
        return VelocitySolution(
            problem=problem,
            method=method,
            ts=ts,
            osmotic=fields[0],
            current=fields[1],
            particles=particles,
            diagnostics=Diagnostics(ts=ts, t1=problem.t1),
            _history=history,
        )

    def log_density_at(self, t: Scalar, x: Vector) -> Scalar:
        return self._traced_back(t, x)[0]

    def wave_function_at(self, t: Scalar, x: Vector) -> Complex[Array, ""]:
        log_density, phase = self._traced_back(t, x)
        return jnp.exp(jax.lax.complex(0.5 * log_density, phase / self.problem.hamiltonian.hbar))

    def _traced_back(self, t: Scalar, x: Vector) -> tuple[Scalar, Scalar]:
        """ln ρ and S at one point."""
        found, arrived = _traced_back(self, t, x)
        return require(
            found,
            arrived,
            "Could not trace x back to t0: the velocities are too rough on the way, or grow without bound. "
            "Pass a place where there are particles.",
            ParticlesLostError,
        )


def _rates(
    problem: Problem, osmotic: Field, current: Field, t: Time, x: Vector
) -> tuple[Vector, Scalar, Scalar]:
    """Velocity, its divergence, and the rate of the phase along the flow."""
    hamiltonian = problem.hamiltonian
    v = current(t, x)
    kinetic = hamiltonian.kinetic_energy(v) + hamiltonian.kinetic_energy(osmotic(t, x))
    spreading = 0.5 * hamiltonian.hbar * _divergence(lambda y: osmotic(t, y), x)
    action = kinetic + spreading - hamiltonian.potential(t, x)
    return v, _divergence(lambda y: current(t, y), x), action


@eqx.filter_jit
def _with_amplitudes(
    problem: Problem, osmotic: Field, current: Field, x0: Points, ts: Times
) -> tuple[Paths, Float[Array, "M K"], Float[Array, "M K"]]:
    """Positions, ln ρ and S of particles that start at `x0`."""
    initial = problem.initial
    phase = jax.vmap(initial.phase)(x0)

    def rates(t: Any, x: Vector, *_: Scalar) -> tuple[Array, ...]:
        return _rates(problem, osmotic, current, t, x)

    position, expansion, phases = along_flow(problem, rates, (x0, jnp.zeros_like(phase), phase), ts)
    return position, jax.vmap(initial.log_density)(x0)[:, None] - expansion, phases


@eqx.filter_jit
def _traced_back(
    solution: VelocitySolution, t: Scalar, x: Vector
) -> tuple[tuple[Scalar, Scalar], Bool[Array, ""]]:
    """ln ρ and S, and whether the start was reached with finite numbers."""
    problem, initial = solution.problem, solution.problem.initial

    def rates(t: Any, y: Any, args: Any) -> tuple[Vector, Scalar, Scalar]:
        return _rates(problem, solution.osmotic, solution.current, t, y[0])

    tolerance = 1e-8 if x.dtype == jnp.float64 else 1e-5
    zero = jnp.zeros((), x.dtype)
    traced = diffrax.diffeqsolve(
        diffrax.ODETerm(rates),
        diffrax.Tsit5(),
        t,
        problem.t0.astype(x.dtype),
        None,
        (x, zero, zero),
        stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
        max_steps=MOST_STEPS,
        throw=False,  # the caller reports it
    )
    assert traced.ys is not None
    start, expansion, action = (y[0] for y in traced.ys)
    found = initial.log_density(start) + expansion, initial.phase(start) - action
    reached = traced.result == diffrax.RESULTS.successful
    return found, reached & jnp.all(jnp.isfinite(jnp.stack(found)))


def _divergence(field: Callable[[Vector], Vector], x: Vector) -> Scalar:
    return jnp.trace(jax.jacfwd(field)(x))
