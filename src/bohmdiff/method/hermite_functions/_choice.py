"""A frame and a first degree, where the user gives none."""

import jax
import jax.numpy as jnp
import numpy as np

from ..._check import is_concrete
from ...problem import Problem
from .._classical import extent
from ._operator import Frame

_LEAST_DEGREE = 6.0
# Functions beyond those of the classical action: the tails of ψ.
_BEYOND = 4


def frame_for(problem: Problem) -> tuple[Frame, float]:
    """The frame in which the region of phase space that classical particles reach is a disc, and the degree whose
    functions fill it."""
    low, high, fastest = extent(problem)
    hbar = problem.hamiltonian.hbar
    half = 0.5 * (high - low)
    scale = jnp.sqrt(hbar * half / fastest)
    frame = Frame(0.5 * (low + high), scale)
    frame = jax.lax.stop_gradient(frame)
    if not is_concrete(frame):
        return frame, _LEAST_DEGREE
    if not np.all(np.isfinite(np.asarray(frame.scale)) & np.isfinite(np.asarray(frame.centre))):
        raise ValueError(
            "HermiteFunctions cannot choose a frame: classical particles that start like the initial state run "
            "away. Pass centre and scale."
        )
    quanta = np.asarray(half * fastest / (2 * hbar), float)
    return frame, float(max(_LEAST_DEGREE, np.ceil(np.max(quanta)) + _BEYOND))
