"""Solutions that are functions of time and place: their particles move with the current velocity."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import xarray
from jaxtyping import Array, Float

from .._check import as_positive_integer
from .._precision import in_full_precision
from .._types import Field, Key, Numbers, Paths, Points, Scalar, Time, Times, Vector, Weights
from ..flow import as_positions, require_finite_paths
from ..problem import Problem
from ..solution._export import attributes
from ..solution.solution import Solution, place
from ..training._history import read_history
from ..wavepacket import RandomPoints

MOST_STEPS = 4096


class AbstractFieldSolution(Solution):
    """Two velocity fields and particles that moved with the current one."""

    osmotic: eqx.AbstractVar[Field]
    current: eqx.AbstractVar[Field]
    position: eqx.AbstractVar[Paths]
    weights: eqx.AbstractVar[Weights]
    _history: eqx.AbstractVar[str]

    @property
    def history(self) -> xarray.Dataset:
        """Of the training: everything that its log has, over `epoch`, with the attributes of `to_xarray`."""
        return read_history(self._history).assign_attrs(attributes(self.problem, self.method))

    @in_full_precision
    def mean(self) -> Float[Array, "K d"]:
        return jnp.einsum("m,mkd->kd", self.weights, self.position)

    @in_full_precision
    def std(self) -> Float[Array, "K d"]:
        return jnp.sqrt(jnp.einsum("m,mkd->kd", self.weights, (self.position - self.mean()) ** 2))

    @in_full_precision
    def energy(self) -> Times:
        return _energies(self)

    def sample(self, key: Key, n: int) -> Float[Array, "n K d"]:
        """`n` new Bohmian trajectories: random starts from ρ0, moved with the current velocity."""
        n = as_positive_integer(n, "n", "Pass how many trajectories.")
        return self.trajectories(self.problem.initial.particles(RandomPoints(n), key)[0])

    @in_full_precision
    def trajectories(self, x0: Numbers) -> Paths:
        """The paths of particles that start at `x0`, shape `(M, d)`, at the saved times: `(M, K, d)`."""
        x0 = as_positions(x0, self.problem.dimension).astype(self.ts.dtype)
        return moved(self.problem, self.current, x0, self.ts)

    def velocity(self, t: Time, x: Vector) -> Vector:
        r"""The current velocity $\nabla S / m$ at one point, shape `(d,)`."""
        t, x = place(self.problem, t, x)
        return self.current(t, x)

    def score(self, t: Time, x: Vector) -> Vector:
        t, x = place(self.problem, t, x)
        hamiltonian = self.problem.hamiltonian
        return 2 * hamiltonian.mass / hamiltonian.hbar * self.osmotic(t, x)


def moved(problem: Problem, current: Field, x0: Points, ts: Times) -> Paths:
    """Where particles are that move with a velocity field, at `ts`."""
    return require_finite_paths(_moved(problem, current, x0, ts), ts)


@eqx.filter_jit
def _moved(problem: Problem, current: Field, x0: Points, ts: Times) -> Paths:
    def velocity(t: Any, x: Points, args: Any) -> Points:
        return jax.vmap(lambda y: current(t, y))(x)

    tolerance = 1e-6 if x0.dtype == jnp.float64 else 1e-4
    spread = jnp.max(jnp.std(x0, axis=0)) if x0.shape[0] > 1 else jnp.ones((), x0.dtype)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(velocity),
        diffrax.Tsit5(),
        problem.t0.astype(x0.dtype),
        problem.t1.astype(x0.dtype),
        None,
        x0,
        saveat=diffrax.SaveAt(ts=ts),
        stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance * spread),
        max_steps=MOST_STEPS,
        throw=False,  # what is missing is infinite, and said by whoever calls
    )
    assert solution.ys is not None
    return jnp.moveaxis(solution.ys, 0, 1)


@eqx.filter_jit
def _energies(solution: AbstractFieldSolution) -> Times:
    hamiltonian = solution.problem.hamiltonian

    def energy(t: Time, x: Vector) -> Scalar:
        fields = (solution.osmotic(t, x), solution.current(t, x))
        return sum(map(hamiltonian.kinetic_energy, fields), hamiltonian.potential(t, x))

    at_times = jax.vmap(jax.vmap(energy, in_axes=(0, 0)), in_axes=(None, 0))(solution.ts, solution.position)
    return solution.weights @ at_times
