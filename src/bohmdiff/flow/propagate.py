"""Bohmian trajectories under a given score."""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._check import (
    as_flag,
    as_positive_integer,
    as_real_array,
    cast_floats,
    check_output,
    describe,
    is_concrete,
    require,
    warn,
)
from .._closure import settled
from .._devices import Devices
from .._errors import ParticlesLostError
from .._precision import in_full_precision
from .._types import Numbers, Paths, Points, Times, Vector
from ..problem import Problem, as_problem, saved_times
from ..score import AbstractScore, Score, as_score
from ..solver import EqualSteps, room_for
from ..wavepacket import SobolPoints
from ._chunks import in_chunks
from ._steps import (
    DEFAULT_TOLERANCE,
    as_steps,
    as_tolerance,
    comparison_times,
    needs_a_number,
    with_steps,
)
from .quantum import effective_force
from .state import HalfState
from .terms import bohmian_terms, initial_halves

_FIRST_STEPS = 64
# So many particles tell how many steps are enough, and so many points of the initial density have its widths.
_COMPARED, _POINTS = 256, 256


class Trajectory(eqx.Module):
    r"""The result of [`propagate`][bohmdiff.propagate]: `M` particles at `K` times.

    ```python
    flow = bd.propagate(
        problem, score, x0, ts=[0.0, 1.0], solver=bd.BlanesMoan4(), steps=32
    )
    mean_energy = weights @ flow.energy  # shape (2,)
    ```

    - `ts`: the saved times, shape `(K,)`.
    - `position`, `velocity`: shape `(M, K, d)`.
    - `phase`: S(t, x(t)), which is $S_0(x_0)$ plus the action along the path, shape `(M, K)`.
    - `energy`: $\sum_i \tfrac12 m_i v_i^2 + V + Q$ of each particle, shape `(M, K)`.
    - `deformation`: $F = \partial x(t)/\partial x(t_0)$, shape `(M, K, d, d)`.
    - `deformation_rate`: $G = \dot F$, shape `(M, K, d, d)`.
    - `log_density`: $\ln\rho_0(x_0) - \ln|\det F|$ of the flow's own density, shape `(M, K)`.

    The last three are `None` without tangents.

    **Units:** those of the problem; `phase` in units of action like $\hbar$, `log_density` of 1 / lengthᵈ.
    """

    ts: Times
    position: Paths
    velocity: Paths
    phase: Float[Array, "M K"]
    energy: Float[Array, "M K"]
    deformation: Float[Array, "M K d d"] | None
    deformation_rate: Float[Array, "M K d d"] | None
    log_density: Float[Array, "M K"] | None


@in_full_precision
def propagate(
    problem: Problem,
    score: Score,
    x0: Numbers,
    *,
    ts: Numbers | None = None,
    solver: diffrax.AbstractSolver,
    steps: int | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
    tangents: bool = True,
) -> Trajectory:
    r"""Moves particles by $m\dot v = -\nabla(V + Q)$, with the quantum potential of a given score.

    If the score is that of the density into which this flow transports $\rho_0$, the flow solves the
    Schrödinger equation; [`fisher_divergence`][bohmdiff.fisher_divergence] measures the deviation.

    ```python
    x0, _ = problem.initial.particles(bd.SobolPoints(1024), key)
    flow = bd.propagate(problem, solution.score, x0, solver=bd.BlanesMoan4())
    flow.position[:, -1]
    ```

    **Arguments:**

    - `problem`: the Hamiltonian, initial state and span of time.
    - `score`: a score, a function `s(t, x) -> (d,)` for one particle, or a solution.
    - `x0`: initial positions, shape `(M, d)`. Their dtype is the precision of the run.
    - `ts`: increasing times in `[t0, t1]` to save at, shape `(K,)`; 101 equally spaced ones if not
        given. They need not be ends of steps: the solver's dense output is used.
    - `solver`: e.g. [`BlanesMoan4`][bohmdiff.BlanesMoan4].
    - `steps`: the number of equal steps from `t0` to `t1`. If not given, the first of 64, 128, ... with which
        the paths would change by no more than the tolerance with half as many. A given number is kept and,
        outside of transformations such as `jax.jit`, compared with a quarter as many, or with twice as many
        where that says nothing. At most 256 of the particles are moved for such comparisons.
    - `tolerance`: the largest root-mean-square error of the paths due to the steps, in units of the standard
        deviation of the density. It bounds the error of any mean and standard deviation. The unit is that
        of the initial state; with more than `2 d` particles, it grows and shrinks as they spread.
    - `tangents`: whether to carry F and G along, for the density on each particle.

    If JAX sees several devices, each of them moves its share of the particles, and the result is on the
    first. Under `jax.jit` and `jax.grad` the particles are not divided. Particles that are already divided
    stay on their devices.

    **Units:** those of the problem: `x0` in lengths, `ts` in times.

    **Returns:** a [`Trajectory`][bohmdiff.Trajectory]. Gradients with respect to anything in `problem`,
    `score` or `x0` go through Diffrax's `RecursiveCheckpointAdjoint`.

    **Raises:** `ValueError` for bad input, before the run, and for `steps=None` under a transformation;
    [`ParticlesLostError`][bohmdiff.ParticlesLostError] if a particle becomes infinite or NaN. Under `jax.jit` the
    positions are NaN then. Warns if the steps cause a larger error than the tolerance.
    """
    problem, field, x0 = check_ensemble(problem, score, x0)
    check_solver(solver)
    given, tolerance = as_steps(steps), as_tolerance(tolerance)
    times, tangents = saved_times(problem, ts), as_flag(tangents, "tangents")
    if not is_concrete((problem, field, x0, times)):
        if given is None:
            needs_a_number("propagate", _FIRST_STEPS, (problem, field, x0, times))
        assert given is not None
        return follow(problem, field, x0, times, solver, given, tangents=tangents)
    some = _on_one_device(x0[:: -(-x0.shape[0] // _COMPARED)])
    together = some.shape == x0.shape
    everywhere, (saved, compared) = merged(times, comparison_times(problem))
    points, _ = problem.initial.particles(SobolPoints(_POINTS), jax.random.key(0))
    widths = jnp.std(points, axis=0)

    def run(steps: int) -> tuple[Trajectory, _Paths]:
        flow = follow(problem, field, some, everywhere, solver, steps, tangents=tangents and together)
        return flow, _Paths(flow.position[:, compared], widths)

    flow, steps, error = with_steps(
        run,
        given,
        tolerance,
        refuse=lambda paths: needs_a_number("propagate", _FIRST_STEPS, paths),
        first=_FIRST_STEPS,
        order=solver.order(None) or 1,
    )
    if error is not None and error > tolerance:
        warn(
            f"The paths may be wrong: the length of the {steps} time steps causes an error of {error:.1e} "
            f"standard deviations, and {tolerance:.1e} is allowed. Pass more steps, or a larger tolerance."
        )
    return (
        at_times(flow, saved)
        if together
        else follow(problem, field, x0, times, solver, steps, tangents=tangents)
    )


class _Paths(NamedTuple):
    """Paths by which two runs are compared, and the standard deviations of the initial state."""

    position: Paths
    widths: Vector

    def change(self, other: "_Paths") -> float:
        """The root-mean-square change over the particles, in standard deviations of the density."""
        position = np.asarray(other.position)
        changes = np.sqrt(np.mean((position - np.asarray(self.position)) ** 2, axis=0))
        # How much the density has spread since the start is what its particles tell, if they are enough.
        spread = np.std(position, axis=0)
        known = (position.shape[0] > 2 * position.shape[2]) & (spread[0] > 0)
        growth = np.where(known, spread / np.where(known, spread[0], 1), 1)
        return float(np.max(changes / (growth * np.asarray(self.widths))))


def _on_one_device(x: Points) -> Points:
    return x if not is_concrete(x) or len(x.sharding.device_set) == 1 else Devices.visible().gather(x)


def merged(ts: Times, more: Float[Array, " L"]) -> tuple[Float[Array, " N"], tuple[Any, Any]]:
    """Two sets of times as one that increases, and where each of them is in it."""
    # By NumPy, since each operation of JAX would be compiled.
    xp = np if is_concrete((ts, more)) else jnp
    both = xp.sort(xp.concatenate([xp.asarray(ts), xp.asarray(more)]))
    return jnp.asarray(both), (
        xp.searchsorted(both, xp.asarray(ts)),
        xp.searchsorted(both, xp.asarray(more)),
    )


def at_times(flow: Trajectory, index: Any) -> Trajectory:
    """The trajectory at some of its times."""
    return jax.tree.map(lambda leaf: leaf[index] if leaf.ndim == 1 else leaf[:, index], flow)


def follow(
    problem: Problem,
    score: AbstractScore,
    x0: Points,
    ts: Times,
    solver: diffrax.AbstractSolver,
    steps: int,
    *,
    tangents: bool,
) -> Trajectory:
    """The flow of particles that `check_ensemble` has seen, at times that do not decrease. Raises if particles
    are lost."""
    count = jnp.asarray(steps)
    room = room_for(steps) if is_concrete((problem, score, x0, ts)) else steps
    number, devices = x0.shape[0], Devices.for_particles(x0, (problem, score, ts))
    if devices is not None:
        x0, _ = devices.divide(x0, jnp.ones(number))
        problem, score, ts, count = devices.copy((problem, score, ts, count))
    trajectory = _propagate(problem, score, x0, ts, solver, count, room, tangents, devices)
    if devices is not None:
        trajectory, ts = devices.gather((trajectory, ts))
        trajectory = jax.tree.map(lambda leaf: leaf[:number] if leaf.ndim > 1 else leaf, trajectory)
    return eqx.tree_at(
        lambda flow: flow.position, trajectory, require_finite_paths(trajectory.position, ts)
    )


def integrate(
    problem: Problem,
    terms: PyTree[diffrax.AbstractTerm],
    y0: PyTree,
    saveat: diffrax.SaveAt,
    solver: diffrax.AbstractSolver,
    steps: int | Int[Array, ""],
    *,
    room: int | None = None,
    checkpoints: int | None = None,
    progress: bool = False,
) -> diffrax.Solution:
    """`diffeqsolve` over the span of a problem in equal steps, with recursive checkpoints. Diffrax chooses
    their number if `checkpoints` is not given. `steps` may be traced if there is `room` for the most."""
    if room is None:
        assert isinstance(steps, int)
        room = steps
    controller = EqualSteps(problem.t0, problem.t1, jnp.asarray(steps))
    return diffrax.diffeqsolve(
        terms,
        solver,
        problem.t0,
        problem.t1,
        None,
        y0,
        saveat=saveat,
        stepsize_controller=controller,
        adjoint=diffrax.RecursiveCheckpointAdjoint(checkpoints),
        max_steps=room,
        throw=False,  # the caller, who knows what was integrated, reports failures
        progress_meter=diffrax.TqdmProgressMeter() if progress else diffrax.NoProgressMeter(),
    )


@eqx.filter_jit
def _propagate(
    problem: Problem,
    score: AbstractScore,
    x0: Points,
    ts: Times,
    solver: diffrax.AbstractSolver,
    steps: Int[Array, ""],
    room: int,
    tangents: bool,
    devices: Devices | None,
) -> Trajectory:
    """All particles, in chunks; each device moves its own share."""

    def move(given: tuple[Problem, AbstractScore, Times, Int[Array, ""]], x0: Points) -> dict[str, Any]:
        problem, score, ts, steps = given
        return in_chunks(
            lambda x: _move(problem, score, x, ts, solver, steps, room, tangents),
            lambda x: _force(problem, score, problem.t0, x),
            x0,
        )

    given = (problem, score, ts, steps)
    moved = move(given, x0) if devices is None else devices.apart(move, given, x0)
    return Trajectory(ts=ts, **moved)


def _force(problem: Problem, score: AbstractScore, t: Any, x: Points) -> tuple[Array, ...]:
    return jax.vmap(lambda y: effective_force(problem.hamiltonian, score, t, y))(x)


def _move(
    problem: Problem,
    score: AbstractScore,
    x0: Points,
    ts: Times,
    solver: diffrax.AbstractSolver,
    steps: Int[Array, ""],
    room: int,
    tangents: bool,
) -> dict[str, Any]:
    """All fields of a trajectory except its times."""

    def save(t: Any, y: tuple[HalfState, HalfState], args: Any):
        position, velocity = y
        potential, _ = _force(problem, score, t, position.motion)
        energy = jax.vmap(problem.hamiltonian.kinetic_energy)(velocity.motion) + potential
        return position, velocity, energy

    solution = integrate(
        problem,
        bohmian_terms(problem, score),
        initial_halves(problem, x0, tangents=tangents),
        diffrax.SaveAt(ts=ts, fn=save),
        solver,
        steps,
        room=room,
    )
    position, velocity, energy = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), solution.ys)
    log_density = None
    if tangents:
        _, log_determinant = jnp.linalg.slogdet(position.tangent)
        log_density = jax.vmap(problem.initial.log_density)(x0)[:, None] - log_determinant
    return dict(
        position=position.motion,
        velocity=velocity.motion,
        phase=position.action + velocity.action,
        energy=energy,
        deformation=position.tangent,
        deformation_rate=velocity.tangent,
        log_density=log_density,
    )


def check_ensemble(problem: Problem, score: Score, x0: Numbers) -> tuple[Problem, AbstractScore, Points]:
    """Checks particles, and that potential and score have the right shape and are finite there.

    Returns all three, in the precision of the particles."""
    d = as_problem(problem).dimension
    x0 = as_positions(x0, d)
    problem, field = cast_floats((problem, as_score(score)), x0.dtype)
    field = settled(field, (problem.t0, x0[0]))
    # As a function of t and x alone, so that an error is that of the function as the user wrote it.
    check_output(lambda t, x: field(t, x), (problem.t0, x0[0]), (d,), "score")
    given = eqx.filter_eval_shape(field, problem.t0, x0[0]).dtype
    if given != x0.dtype:
        raise ValueError(
            f"score(t, x) must have the precision of x, {x0.dtype}, but it returned {given}. Remove the cast, or "
            "return the result as .astype(x.dtype)."
        )
    x0 = require_finite(problem, problem.hamiltonian.potential, x0, "potential")
    return problem, field, require_finite(problem, field, x0, "score")


def as_positions(x0: Numbers, dimension: int) -> Points:
    """`x0` as positions of particles, at least one."""
    x0 = as_real_array(x0, "x0")
    if x0.ndim != 2 or x0.shape[1] != dimension or x0.shape[0] == 0:
        raise ValueError(
            f"x0 must have shape (M, {dimension}), one row per particle, but shape {x0.shape} was given."
        )
    return x0


def require_finite(problem: Problem, function: Callable[..., Any], x0: Points, name: str) -> Points:
    """Returns the points `x0`, or raises unless `function(t0, x)` is finite at each of them."""
    values = eqx.filter_jit(_at_each)(function, problem.t0, x0)
    finite = jnp.all(jnp.isfinite(values.reshape(x0.shape[0], -1)), axis=1)
    where = ""
    if is_concrete(finite) and not bool(jnp.all(finite)):
        first = jnp.argmin(finite)
        where = f": {int(jnp.sum(~finite))} of them, the first at x = {describe(x0[first])}"
    return require(
        x0,
        jnp.all(finite),
        f"{name}(t, x) must be finite at the initial points, but at t = {describe(problem.t0)} it is "
        f"not{where}. Change the {name}, or choose initial points inside its domain.",
    )


def _at_each(function: Callable[..., Any], t: Any, x: Points) -> Array:
    return jax.vmap(function, in_axes=(None, 0))(t, x)


def check_integration(solver: Any, steps: Any) -> int:
    """Checks a solver and its number of steps."""
    check_solver(solver)
    return as_positive_integer(steps, "steps", "Pass the number of equal steps from t0 to t1.")


def check_solver(solver: Any) -> None:
    """Checks that a solver is one of Diffrax."""
    if not isinstance(solver, diffrax.AbstractSolver):
        raise ValueError(f"solver must be a solver such as BlanesMoan4(), but {solver!r} was given.")


def require_finite_paths(position: Paths, ts: Times) -> Paths:
    """Returns the paths, or raises and says how many particles were lost, and when."""
    finite = jnp.all(jnp.isfinite(position), axis=2)
    detail = ""
    if is_concrete(finite) and not bool(jnp.all(finite)):
        lost = int(jnp.sum(~jnp.all(finite, axis=1)))
        # All were finite at t0; interpolation carries a NaN at the end of the first step back to its start.
        when = ts[max(int(jnp.argmin(jnp.all(finite, axis=0))), min(1, ts.shape[0] - 1))]
        detail = f" ({lost} of {finite.shape[0]}, the first by t = {describe(when)})"
    return require(
        position,
        jnp.all(finite),
        f"Particles became non-finite{detail}. The score drives them out of the region where it is "
        "defined, or the steps are too long: take more steps, or initial points that lie less far out.",
        ParticlesLostError,
    )
