"""Solutions that are functions of time and place: their particles move with the current velocity."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import xarray
from jaxtyping import Array

from .._precision import in_full_precision
from .._types import Field, Paths, Points, Scalar, Time, Times, Vector, Weights
from ..flow import require_finite_paths
from ..problem import Problem
from ..solution import AbstractParticleSolution, Particles, particle_average
from ..solution._export import attributes
from ..training import history_dataset

MOST_STEPS = 4096


class AbstractFieldSolution(AbstractParticleSolution):
    """Two velocity fields and particles that moved with the current one."""

    osmotic: eqx.AbstractVar[Field]
    current: eqx.AbstractVar[Field]
    _history: eqx.AbstractVar[dict[str, Array]]

    @property
    def history(self) -> xarray.Dataset:
        """The log of the training over `epoch`, with the attributes of `to_xarray`."""
        return history_dataset(self._history).assign_attrs(attributes(self.problem, self.method))

    @in_full_precision
    def energy(self) -> Times:
        return field_energies(self.problem, self.osmotic, self.current, self.particles, self.ts)

    def move(self, x0: Points) -> Paths:
        return moved_paths(self.problem, self.current, x0, self.ts)

    def velocity_at(self, t: Scalar, x: Vector) -> Vector:
        return self.current(t, x)

    def score_at(self, t: Scalar, x: Vector) -> Vector:
        hamiltonian = self.problem.hamiltonian
        return 2 * hamiltonian.mass / hamiltonian.hbar * self.osmotic(t, x)


def moved(problem: Problem, current: Field, x0: Points, weights: Weights, ts: Times) -> Particles:
    """Particles that move with a velocity field, at `ts`."""
    return Particles(require_finite_paths(moved_paths(problem, current, x0, ts), ts), weights)


@eqx.filter_jit
def moved_paths(problem: Problem, current: Field, x0: Points, ts: Times) -> Paths:
    """Positions at `ts` of particles that move with a velocity field; infinite where they are lost."""
    (paths,) = along_flow(problem, lambda t, x: (current(t, x),), (x0,), ts)
    return paths


def along_flow(problem: Problem, rates: Any, y0: tuple[Array, ...], ts: Times) -> tuple[Array, ...]:
    """Integrates `y0` along the flow; returns it at `ts`, with the particles first.

    `rates(t, *y)` are the rates of one particle, its velocity first. Only positions control the step size.
    """
    x0, dtype = y0[0], y0[0].dtype

    def field(t: Any, y: tuple[Array, ...], args: Any) -> tuple[Array, ...]:
        return jax.vmap(lambda *one: rates(t, *one))(*y)

    tolerance = 1e-6 if dtype == jnp.float64 else 1e-4
    spread = jnp.max(jnp.std(x0, axis=0)) if x0.shape[0] > 1 else jnp.ones((), dtype)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        diffrax.Tsit5(),
        problem.t0.astype(dtype),
        problem.t1.astype(dtype),
        None,
        y0,
        saveat=diffrax.SaveAt(ts=ts),
        stepsize_controller=diffrax.PIDController(
            rtol=tolerance, atol=tolerance * spread, norm=lambda y: jnp.sqrt(jnp.mean(y[0] ** 2))
        ),
        max_steps=MOST_STEPS,
        throw=False,  # missing values are infinite, and the caller reports them
    )
    assert solution.ys is not None
    return tuple(jnp.moveaxis(values, 0, 1) for values in solution.ys)


@eqx.filter_jit
def field_energies(
    problem: Problem, osmotic: Field, current: Field, particles: Particles, ts: Times
) -> Times:
    """The mean energy of particles at `ts`, by two velocity fields."""
    hamiltonian = problem.hamiltonian

    def energy(t: Time, x: Vector) -> Scalar:
        fields = (osmotic(t, x), current(t, x))
        return sum(map(hamiltonian.kinetic_energy, fields), hamiltonian.potential(t, x))

    return particle_average(particles, ts, energy)
