"""The solution that two velocity fields make."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex

from ..._check import require
from ..._types import Paths, Points, Scalar, Time, Times, Vector, Weights
from ...problem import Problem
from ...solution.solution import place
from .._field_solution import MOST_STEPS, AbstractFieldSolution, moved


class VelocitySolution(AbstractFieldSolution):
    r"""An osmotic and a current velocity: what [`DeepStochasticMechanics`][bohmdiff.DeepStochasticMechanics]
    returns.

    ```python
    u, v = bd.velocity_networks(problem, width=4, key=key)
    trained = bd.solve(problem, bd.DeepStochasticMechanics(u, v, epochs=2, particles=16), key=key)
    trained.osmotic(0.5, x), trained.velocity(0.5, x), trained.history["residual"]
    ```

    - `osmotic`, `current`: the fields themselves, modules: after training, the trained ones.
    - `position`: particles that moved with the current velocity, at the saved times, shape `(M, K, d)`.
    - `weights`: of the particles, shape `(M,)`.
    - `history`: of the training, an `xarray.Dataset` over `epoch`.

    Moments are those of the particles, without noise; [`nelson_process`][bohmdiff.nelson_process] samples the
    process with noise. The score is that of the osmotic velocity, $s = 2mu/\hbar$. The energy is
    $\langle \tfrac m2 (u^2 + v^2) + V \rangle$. Density and phase at a place are found along the way by which the
    flow came there: $\ln\rho_0$ at its start less $\int\mathrm{div}\,v\,dt$, and $S_0$ plus the action
    $\int \tfrac m2 (v^2 + u^2) + \tfrac\hbar2\,\mathrm{div}\,u - V\,dt$.
    """

    problem: Problem
    method: eqx.Module
    ts: Times
    osmotic: Callable[..., Array]
    current: Callable[..., Array]
    position: Paths
    weights: Weights
    _history: str = eqx.field(static=True)

    @staticmethod
    def of(
        problem: Problem,
        method: eqx.Module,
        ts: Times,
        fields: tuple[Callable[..., Array], Callable[..., Array]],
        x0: Points,
        weights: Weights,
        history: str,
    ) -> "VelocitySolution":
        """The solution whose particles start at `x0`."""
        return VelocitySolution(
            problem, method, ts, *fields, moved(problem, fields[1], x0, ts), weights, history
        )

    def log_density(self, t: Time, x: Vector) -> Scalar:
        return self._traced_back(t, x)[0]

    def wave_function(self, t: Time, x: Vector) -> Complex[Array, ""]:
        log_density, phase = self._traced_back(t, x)
        return jnp.exp(jax.lax.complex(0.5 * log_density, phase / self.problem.hamiltonian.hbar))

    def _traced_back(self, t: Time, x: Vector) -> tuple[Scalar, Scalar]:
        """ln ρ and S at one point."""
        t, x = place(self.problem, t, x)
        x = jnp.asarray(x, self.ts.dtype)
        (log_density, phase), arrived = _traced_back(self, jnp.asarray(t, x.dtype), x)
        return require(
            (log_density, phase),
            arrived,
            "The flow that comes to this place can't be followed back to the start: the velocities are too rough "
            "on the way, or grow without bound. Ask for a place where there are particles.",
        )


@eqx.filter_jit
def _traced_back(
    solution: VelocitySolution, t: Scalar, x: Vector
) -> tuple[tuple[Scalar, Scalar], Bool[Array, ""]]:
    """ln ρ and S, and whether the start was reached with finite numbers."""
    problem = solution.problem
    hamiltonian, initial = problem.hamiltonian, problem.initial

    def rates(t: Any, y: Any, args: Any) -> tuple[Vector, Scalar, Scalar]:
        x, _, _ = y
        v = solution.current(t, x)
        kinetic = hamiltonian.kinetic_energy(v) + hamiltonian.kinetic_energy(solution.osmotic(t, x))
        spreading = 0.5 * hamiltonian.hbar * _divergence(lambda y: solution.osmotic(t, y), x)
        action = kinetic + spreading - hamiltonian.potential(t, x)
        return v, _divergence(lambda y: solution.current(t, y), x), action

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
        throw=False,  # said by whoever calls
    )
    assert traced.ys is not None
    start, expansion, action = (y[0] for y in traced.ys)
    found = initial.log_density(start) + expansion, initial.phase(start) - action
    reached = traced.result == diffrax.RESULTS.successful
    return found, reached & jnp.all(jnp.isfinite(jnp.stack(found)))


def _divergence(field: Callable[[Vector], Vector], x: Vector) -> Scalar:
    return jnp.trace(jax.jacfwd(field)(x))
