"""Figures that tell whether a given score can be that of a density."""

import math
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..._errors import UnavailableError
from ..._types import Points, Scalar, Time, Times, Vector, Weights
from ...flow import Trajectory
from ...problem import Problem
from ...score import AbstractScore, asymmetry, has_log_density, scalar_of
from ...solution import Figure, over_time

# How many times are looked at, and how many particles for a Jacobian and for the density, at most.
_TIMES, _PARTICLES = 17, 256
_INITIAL, _PARTIAL, _SAMPLING, _SHORTFALL, _ASYMMETRY = 0.2, 0.3, 8.0, 1e-3, 0.02
# Densities are compared in the bulk, which leaves out particles that start in the thinnest such part. Exact
# scores differ by 2e-3 at most. In more dimensions polynomial scores of degree 4 have errors of high order, which
# hardly change a moment, as large as 0.16.
_MISMATCH, _MISMATCH_PER_COORDINATE, _THIN = 0.035, 0.14, 0.02
# The farthest part of the probability, how many of its particles are looked at, and the share of a variance that
# may be theirs where their density is not that of the score.
_FAR_OUT, _FAR_PARTICLES, _SHARE = 1e-3, 64, 0.05
# For the scalar of a score that does not have one.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)


class _Judged(NamedTuple):
    """The figures at one time."""

    partial: Scalar
    shortfall: Scalar
    asymmetry: Scalar
    mismatch: Scalar
    runaways: Scalar


def score_figures(
    problem: Problem, score: AbstractScore, x0: Points, weights: Weights, flow: Trajectory
) -> dict[str, Figure]:
    """The figures of a score and of the flow that it drives, at some of the times of the flow."""
    number, d = x0.shape
    times = np.unique(np.linspace(0, flow.ts.size - 1, _TIMES).round().astype(int))
    initial, ts, judged = _judge(problem, score, x0, weights, flow, jnp.asarray(times))
    figures = {
        "runaways": over_time(
            judged.runaways,
            ts,
            limit=_SHARE,
            meaning="This share of a variance comes from particles among the farthest thousandth of the "
            "probability whose density is not that of the score: they have run away, where the score is "
            "inaccurate, and the moments cannot be trusted.",
            remedy="Use particles that reach less far out: GivenScore(score, particles=SobolPoints(8192)), with "
            "solution.fitted as the score after training, or "
            "StandardizedPoints(TruncatedPoints(SobolPoints(8192))), which leave that thousandth out and keep "
            "the covariance.",
        ),
        "density mismatch": over_time(
            judged.mismatch,
            ts,
            limit=_MISMATCH if d == 1 else _MISMATCH_PER_COORDINATE * math.sqrt(d),
            meaning="The ln ρ whose gradient the score is differs from the ln ρ that the flow of the particles "
            "produces; this is the root-mean-square difference.",
            remedy="Trust earlier times only, or train the score longer.",
        ),
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
    assert flow.log_density is not None
    bulk = _bulk(flow.log_density[some, 0], weights[some])
    scalar = _scalar(problem, score)

    def at(here: tuple[Scalar, Points, Weights, Weights]) -> _Judged:
        t, x, energy, log_density = here
        mean = weights @ x
        centre, mismatch = _mean_and_std(scalar(t, x[some], mean) - log_density[some], bulk)
        far, shares = _farthest(x, weights)
        off = jnp.abs(scalar(t, x[far], mean) - log_density[far] - centre)
        return _Judged(
            _partial(score, t, x, weights),
            _shortfall(problem, t, x, energy, weights),
            _asymmetry(score, t, x[some], weights[some]),
            mismatch,
            # Where the score has no density at all, its particles count in full.
            jnp.max(jnp.where(off < 1, off, 1) @ shares),
        )

    ts = flow.ts[times]
    saved = (flow.position, flow.energy, flow.log_density)
    arrays = (jnp.moveaxis(array[:, times], 1, 0) for array in saved)
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


def _moments(x: Points, weights: Weights) -> tuple[Vector, Vector]:
    mean = weights @ x
    std = jnp.sqrt(weights @ (x - mean[None]) ** 2)
    return mean, jnp.where(std > 0, std, 1)


def _bulk(log_density: Weights, weights: Weights) -> Weights:
    """Weights that leave out where the density is thinnest; their sum is one."""
    order = jnp.argsort(log_density)
    thicker = jnp.cumsum(weights[order]) > _THIN * jnp.sum(weights)
    kept = jnp.where(jnp.zeros(order.shape, bool).at[order].set(thicker), weights, 0)
    return kept / jnp.sum(kept)


def _mean_and_std(values: Weights, weights: Weights) -> tuple[Scalar, Scalar]:
    # What has no weight may be infinite.
    values = jnp.where(weights > 0, values, 0)
    mean = weights @ values
    return mean, jnp.sqrt(weights @ (values - mean) ** 2)


def _scalar(problem: Problem, score: AbstractScore) -> Callable[[Time, Points, Vector], Weights]:
    """The scalar whose gradient a score is, up to a function of time, at points about a centre."""
    at_start = (problem.t0, jnp.zeros(problem.dimension, problem.dtype))
    if has_log_density(score):
        scalar = scalar_of(score)
        with suppress(UnavailableError):
            eqx.filter_eval_shape(scalar, *at_start)
            return lambda t, x, centre: jax.vmap(lambda y: scalar(t, y))(x)

    def integral(t: Time, x: Vector, centre: Vector) -> Scalar:
        """Of the score along the straight line from the centre."""
        line = x - centre
        nodes = jnp.asarray(0.5 + 0.5 * _NODES, x.dtype)
        along = jax.vmap(lambda u: score(t, centre + u * line) @ line)(nodes)
        return 0.5 * jnp.asarray(_WEIGHTS, x.dtype) @ along

    return lambda t, x, centre: jax.vmap(lambda y: integral(t, y, centre))(x)


def _farthest(x: Points, weights: Weights) -> tuple[Int[Array, " F"], Float[Array, "F d"]]:
    """Which of the farthest particles, those that together have a thousandth of the weight, contribute most to a
    variance, and their shares in that of each coordinate."""
    mean, std = _moments(x, weights)
    square = ((x - mean[None]) / std[None]) ** 2
    order = jnp.argsort(-jnp.max(square, axis=1))
    far = (
        jnp.zeros(order.shape, bool)
        .at[order]
        .set(jnp.cumsum(weights[order]) <= _FAR_OUT * jnp.sum(weights))
    )
    shares = jnp.where(far[:, None], weights[:, None] * square, 0)
    _, most = jax.lax.top_k(jnp.max(shares, axis=1), min(_FAR_PARTICLES, x.shape[0]))
    return most, shares[most]
