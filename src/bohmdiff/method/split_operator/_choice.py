"""A grid and a number of steps to begin with, where the user gives none."""

import math
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.fft import next_fast_len

from ..._check import is_concrete
from ..._types import Vector
from ...hamiltonian import depends_on_time
from ...problem import Problem
from .._classical import extent, particles
from ._fourier import FourierGrid
from ._observe import force_beside
from ._propagator import kick_times

FIRST_STEPS = 64
MOST_STEPS = 2**16
# The force of a drive is known at that many times, and a chosen step misses no more than this share of the
# momentum's standard deviation.
_DRIVE_TIMES = 2**17
_MISSED_MOMENTUM = 1e-3

# The box holds classical particles, and some standard deviations of ρ0 more.
_MARGIN = 4.0
_FASTER = 1.8
# The kinetic energy that a chosen step may have, times its length, in units of ħ.
_LARGEST_PHASE = 2.0
_MOST_POINTS = 2**22
_WIDEST = 4.0


class Choice(NamedTuple):
    """A box, the number of points along each coordinate, and a number of steps."""

    lower: np.ndarray
    upper: np.ndarray
    points: np.ndarray
    steps: int

    @property
    def grid(self) -> FourierGrid:
        return FourierGrid(*(tuple(array.tolist()) for array in (self.points, self.lower, self.upper)))


def first_steps(problem: Problem, order: int) -> int:
    """The first number of steps, which follows a drive."""
    hamiltonian, d = problem.hamiltonian, problem.dimension
    if not is_concrete(problem) or not depends_on_time(hamiltonian, d, problem.dtype):
        return FIRST_STEPS
    points, _ = particles(problem)
    mean, width = jnp.mean(points, axis=0), jnp.std(points, axis=0)
    force = _forces(problem, mean, width)
    if not is_concrete(force) or not np.all(np.isfinite(force)):
        return FIRST_STEPS
    unit = np.asarray(0.5 * hamiltonian.hbar / width)
    span, force = float(problem.t1 - problem.t0), np.asarray(force)
    integral = np.concatenate([np.zeros_like(force[:1]), np.cumsum(0.5 * (force[1:] + force[:-1]), axis=0)])
    fractions, weights = kick_times(order)
    steps = FIRST_STEPS
    while steps < MOST_STEPS // 2:
        stride = _DRIVE_TIMES // steps
        own = sum(
            weight * force[int(stride * fraction) :: stride][:steps]
            for fraction, weight in zip(fractions, weights, strict=True)
        )
        missed = np.cumsum(own / steps - np.diff(integral[::stride], axis=0) / _DRIVE_TIMES, axis=0)
        if not np.max(np.abs(missed) * span / unit, initial=0) > _MISSED_MOMENTUM:
            break
        steps *= 2
    return steps


@eqx.filter_jit
def _forces(problem: Problem, mean: Vector, width: Vector) -> Float[Array, "T 2 d"]:
    ts = jnp.linspace(problem.t0, problem.t1, _DRIVE_TIMES + 1, dtype=mean.dtype)
    return force_beside(problem.hamiltonian, ts, mean, width)


def first_choice(problem: Problem, steps: int) -> Choice:
    """A grid that holds classical particles which begin like ρ0, far out, with the momenta of ψ0."""
    hbar, masses = problem.hamiltonian.hbar, problem.hamiltonian.masses(problem.dimension)
    points, _ = particles(problem)
    ends = extent(problem)
    if not is_concrete(ends):
        raise ValueError(
            "SplitOperator chooses its grid from concrete numbers, which it cannot under jit, grad or vmap. "
            "Pass points, lower and upper, or take the `method` of a solution that was found outside of the "
            "transformation, which has the chosen ones."
        )
    low, high, fastest = (np.asarray(end, float) for end in ends)
    if not np.all(np.isfinite([low, high, fastest])):
        raise ValueError(
            "SplitOperator cannot choose a box: classical particles that start like the initial state run away. "
            "Pass points, lower and upper."
        )
    margin = _MARGIN * np.asarray(jnp.std(points, axis=0), float)
    low, high = low - margin, high + margin
    # The largest momentum of the grid is πħ over the spacing.
    count = _FASTER * fastest * (high - low) / (np.pi * float(hbar))
    energy = float(np.max(fastest**2 / (2 * np.asarray(masses, float))))
    span = float(problem.t1 - problem.t0)
    steps = max(steps, min(math.ceil(span * energy / float(hbar) / _LARGEST_PHASE), MOST_STEPS // 4))
    return Choice(low, high, rounded(count), steps)


def enlarged(
    first: Choice, choice: Choice, wider: np.ndarray, denser: np.ndarray, free_box: bool, free_points: bool
) -> Choice | None:
    """A box that is `wider` by such factors with as large a spacing, and a spacing that is smaller by the factors
    `denser`, as far as they may be chosen; `None` where nothing may.

    The box grows to a few times the `first` one, since ψ can run away too.
    """
    grows = free_box & (choice.upper - choice.lower < _WIDEST * (first.upper - first.lower))
    growth = np.where(grows, wider, 1.0)
    middle, half = 0.5 * (choice.lower + choice.upper), 0.5 * growth * (choice.upper - choice.lower)
    factor = growth * denser if free_points else np.ones_like(growth)
    points = np.where(factor > 1, rounded(choice.points * factor), choice.points)
    if np.all(growth == 1) and np.all(factor == 1):
        return None
    require_points(points)
    steps = choice.steps * np.max(denser) if free_points else choice.steps
    return Choice(middle - half, middle + half, points, min(math.ceil(steps), MOST_STEPS))


def require_points(points: np.ndarray) -> None:
    if np.prod(points.astype(float)) > _MOST_POINTS:
        raise ValueError(
            f"The grid that SplitOperator would choose has {' x '.join(map(str, points.tolist()))} points, more "
            f"than {_MOST_POINTS}. Pass points, lower and upper, or use a method that follows particles."
        )


def rounded(count: np.ndarray) -> np.ndarray:
    """Even numbers of points that are fast to transform."""
    halves = np.maximum(np.ceil(count / 2), 16).astype(int)
    return np.array([2 * int(next_fast_len(int(half)) or half) for half in halves])
