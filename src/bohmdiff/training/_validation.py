"""The energy figures that every validation has."""

from collections.abc import Callable

import jax.numpy as jnp

from .._errors import ParticlesLostError
from .._types import Times
from ..problem import Problem

_ENERGY_TIMES = 9


def energy_figures(problem: Problem, energies_at: Callable[[Times], Times]) -> dict[str, float]:
    """The mean energy, averaged over times, and how far it drifts; NaN where particles were lost, of which the
    training warns."""
    ts = jnp.linspace(problem.t0, problem.t1, _ENERGY_TIMES, dtype=problem.dtype)
    try:
        energy = energies_at(ts)
        mean, drift = jnp.mean(energy), jnp.max(jnp.abs(energy - energy[0]))
    except ParticlesLostError:
        mean = drift = jnp.nan
    return {"energy": float(mean), "energy_drift": float(drift)}
