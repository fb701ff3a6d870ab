"""Figures that tell whether a given score can be that of a density."""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from ..._types import Points, Scalar, Time, Times, Vector, Weights
from ...flow import Trajectory
from ...problem import Problem
from ...score import AbstractScore, asymmetry
from ...solution import Figure, over_time

# How many saved times are looked at, and how many particles for a Jacobian, at most.
_TIMES, _PARTICLES = 9, 256
_INITIAL, _PARTIAL, _SAMPLING, _SHORTFALL, _ASYMMETRY = 0.2, 0.3, 8.0, 1e-3, 0.02
# The density of the score is compared with that of the flow on particles that start within so many standard
# deviations, or within the root of the dimension if that is more. A score may be wrong in its mean and its width,
# where the error of the moments is about as large as the difference.
_RADIUS, _MISMATCH = 2.5, 0.03
_LINE = 16  # nodes


class _Judged(NamedTuple):
    """The figures at one time."""

    partial: Scalar
    shortfall: Scalar
    asymmetry: Scalar
    mismatch: Scalar


def score_figures(
    problem: Problem, score: AbstractScore, x0: Points, weights: Weights, flow: Trajectory
) -> dict[str, Figure]:
    """The figures of a score and of the flow that it drives, at some of the saved times."""
    number, d = x0.shape
    times = np.unique(np.linspace(0, flow.ts.size - 1, _TIMES).round().astype(int))
    initial, ts, judged = _judge(problem, score, x0, weights, flow, jnp.asarray(times))
    figures = {
        "initial score": Figure(
            initial,
            limit=_INITIAL,
            meaning="At t0, the score differs from that of the initial state by this share.",
            remedy="Check its sign, its factors, and where it has its centre, or train it longer.",
            time=problem.t0,
        ),
        "energy below the potential": over_time(
            judged.shortfall,
            ts,
            limit=_SHORTFALL,
            meaning="The mean energy is below the least potential energy of the particles, by this share of "
            "their energies. No wave function has such an energy.",
            remedy="Check the score.",
        ),
        "density mismatch": over_time(
            judged.mismatch,
            ts,
            limit=_MISMATCH,
            meaning="The ln ρ of the score differs from the ln ρ that the flow of the particles produces; this "
            "is the root-mean-square difference. For an exact score there is none.",
            remedy="Trust earlier times only, check the score, train it longer, or let SequentialScoreMatching "
            "find it.",
        ),
    }
    if number > d:  # fewer have no width along some direction
        figures["integration by parts"] = over_time(
            judged.partial,
            ts,
            limit=_PARTIAL + math.sqrt(_SAMPLING / number),
            meaning="Over the particles, the mean of the score times the distance from their mean differs from "
            "-1 by this, along some direction. It is -1 for any density that can be normalised and its score.",
            remedy="Check its sign and its factors, train it longer, or let SequentialScoreMatching find it.",
        )
    if d > 1:
        figures["asymmetry"] = over_time(
            judged.asymmetry,
            ts,
            limit=_ASYMMETRY,
            meaning="The score is not a gradient: its Jacobian differs from its transpose by this share of its "
            "size.",
            remedy="Write the score as GradientScore(scalar), which is a gradient by construction.",
        )
    return figures


@eqx.filter_jit
def _judge(
    problem: Problem,
    score: AbstractScore,
    x0: Points,
    weights: Weights,
    flow: Trajectory,
    times: Int[Array, " T"],
) -> tuple[Scalar, Times, _Judged]:
    some = np.arange(0, x0.shape[0], -(-x0.shape[0] // _PARTICLES))
    mean, std = _moments(x0, weights)
    square = jnp.sum(((x0[some] - mean[None]) / std[None]) ** 2, axis=1)
    bulk = jnp.where(square < max(_RADIUS**2, x0.shape[1]), weights[some], 0)
    bulk = bulk / jnp.where(jnp.sum(bulk) > 0, jnp.sum(bulk), 1)

    def at(here: tuple[Scalar, Points, Weights, Weights]) -> _Judged:
        t, x, energy, log_density = here
        return _Judged(
            _partial(score, t, x, weights),
            _shortfall(problem, t, x, energy, weights),
            _asymmetry(score, t, x[some], weights[some]),
            _mismatch(score, t, weights @ x, x[some], log_density[some], bulk),
        )

    assert flow.log_density is not None  # it is there with the deformation
    ts, carried = flow.ts[times], (flow.position, flow.energy, flow.log_density)
    arrays = (jnp.moveaxis(array[:, times], 1, 0) for array in carried)
    return _initial_error(problem, score, x0, weights), ts, jax.lax.map(at, (ts, *arrays))


def _initial_error(problem: Problem, score: AbstractScore, x0: Points, weights: Weights) -> Scalar:
    """The root-mean-square error at t0, in units of the score of the initial state."""
    _, std = _moments(x0, weights)
    right = std[None] * jax.vmap(problem.initial.score)(x0)
    error = std[None] * jax.vmap(lambda x: score(problem.t0, x))(x0) - right
    size = weights @ jnp.sum(right**2, axis=1)
    return jnp.sqrt(weights @ jnp.sum(error**2, axis=1) / jnp.where(size > 0, size, 1))


def _partial(score: AbstractScore, t: Time, x: Points, weights: Weights) -> Scalar:
    r"""The largest deviation from $E_\rho[s\,(x - \bar x)^\top] = -1$, in units of the widths. The antisymmetric
    part, which is that of a rotation, is left to the asymmetry."""
    mean, std = _moments(x, weights)
    s = std[None] * jax.vmap(lambda y: score(t, y))(x)
    matrix = s.T @ (weights[:, None] * (x - mean[None]) / std[None])
    return jnp.max(jnp.abs(1 + jnp.linalg.eigvalsh(0.5 * (matrix + matrix.T))))


def _shortfall(problem: Problem, t: Time, x: Points, energy: Weights, weights: Weights) -> Scalar:
    potential = jax.vmap(lambda y: problem.hamiltonian.potential(t, y))(x)
    least = jnp.min(potential)
    rounding = jnp.finfo(x.dtype).eps / _SHORTFALL * jnp.max(jnp.abs(potential))
    size = weights @ (jnp.abs(energy - potential) + potential - least) + rounding
    return (least - weights @ energy) / jnp.where(size > 0, size, 1)


def _asymmetry(score: AbstractScore, t: Time, x: Points, weights: Weights) -> Scalar:
    return weights @ jax.vmap(lambda y: asymmetry(score, t, y))(x) / jnp.sum(weights)


def _mismatch(
    score: AbstractScore, t: Time, centre: Vector, x: Points, log_density: Weights, weights: Weights
) -> Scalar:
    r"""The standard deviation over particles of $\int s\cdot dl$ from the centre, less $\ln\rho$ of the flow."""
    nodes, sizes = (jnp.asarray(array, x.dtype) for array in np.polynomial.legendre.leggauss(_LINE))

    def along(end: Vector) -> Scalar:
        line = centre + 0.5 * (1 + nodes[:, None]) * (end - centre)[None]
        return 0.5 * sizes @ (jax.vmap(lambda y: score(t, y))(line) @ (end - centre))

    excess = jax.vmap(along)(x) - log_density
    # One of a lost particle that does not count is no number.
    excess = jnp.where(weights > 0, excess, 0)
    return jnp.sqrt((excess - weights @ excess) ** 2 @ weights)


def _moments(x: Points, weights: Weights) -> tuple[Vector, Vector]:
    mean = weights @ x
    std = jnp.sqrt(weights @ (x - mean[None]) ** 2)
    return mean, jnp.where(std > 0, std, 1)
