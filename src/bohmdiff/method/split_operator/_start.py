"""ψ and V on the grid at the start, and checks that the grid can hold them."""

import math
import os

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, DTypeLike, Float

from ..._types import Scalar
from ...problem import Problem
from ...wavepacket import AbstractInitialState
from ._fourier import FourierGrid
from ._propagator import Propagator

# Tolerances of the initial norm, and of the probability at the edges of the box and of the momenta.
NORM_TOLERANCE = 1e-6
EDGE_PROBABILITY = 1e-6


class Start(eqx.Module):
    """ψ0 on the grid, its density, the probability that is too fast for the grid, that in the layers of an
    absorber, and V and Σ (∂_i V)²/m_i."""

    psi: Complex[Array, "..."]
    density: Float[Array, "..."]
    norm: Scalar
    too_fast: Scalar
    absorbed: Scalar | None
    potential: Float[Array, "..."]
    correction: Float[Array, "..."] | None

    def __init__(self, problem: Problem, propagator: Propagator):
        grid, t0 = propagator.grid, problem.t0.astype(problem.dtype)
        self.density, self.psi, self.too_fast = _initial(problem.initial, problem.hamiltonian.hbar, grid)
        self.norm = jnp.sum(self.density) * grid.cell
        self.absorbed = _absorbed(propagator, self.density)
        self.potential = propagator.potential_at(t0)
        self.correction = propagator.correction_at(t0) if propagator.order == 4 else None

    def require_sound(self, problem: Problem, grid: FourierGrid) -> None:
        """Raises a `ValueError` where the grid cannot hold ψ or V."""
        _require_finite(grid, self.density, "The density of the initial state is", "")
        norm, tolerance = float(self.norm), norm_tolerance(problem.dtype)
        if not abs(norm - 1) <= tolerance:
            raise ValueError(
                f"The norm of the initial state on the grid is {norm:.9g}, not 1 to {tolerance:.0e}: it does not "
                "fit into the box, or the points are too far apart for it. Widen lower and upper, or use more "
                "points."
            )
        if float(self.too_fast) > EDGE_PROBABILITY:
            largest = [float(problem.hamiltonian.hbar) * np.pi / h for h in grid.spacing]
            raise ValueError(
                f"A probability of {float(self.too_fast):.3g} of the initial state has a momentum beyond the "
                f"largest of the grid, ħπ / spacing = {largest}. Use more points."
            )
        if self.absorbed is not None and float(self.absorbed) > EDGE_PROBABILITY:
            raise ValueError(
                f"A probability of {float(self.absorbed):.3g} of the initial state lies in the layers of "
                "the absorber. Widen lower and upper, or use a narrower absorber."
            )
        _require_finite(grid, self.potential, "The potential is", "")
        if self.correction is not None:
            hint = " Or use order=2, which does not need it."
            _require_finite(grid, self.correction, "The gradient of the potential is", hint)

    def sound(self, dtype: DTypeLike) -> Bool[Array, ""]:
        """The same check as a value that may be traced."""
        finite = jnp.all(jnp.isfinite(self.potential))
        if self.correction is not None:
            finite &= jnp.all(jnp.isfinite(self.correction))
        held = jnp.abs(self.norm - 1) <= norm_tolerance(dtype)
        if self.absorbed is not None:
            held &= self.absorbed <= EDGE_PROBABILITY
        return finite & held & (self.too_fast <= EDGE_PROBABILITY)


def norm_tolerance(dtype: DTypeLike) -> float:
    return max(NORM_TOLERANCE, 100 * float(jnp.finfo(dtype).eps))


def _absorbed(propagator: Propagator, density: Float[Array, "..."]) -> Scalar | None:
    """The probability in the layers of an absorber."""
    if propagator.absorption is None:
        return None
    grid, inside = propagator.grid, jnp.zeros((), bool)
    for i, along in enumerate(propagator.absorption):
        if along is not None:
            inside = inside | grid.spread(along > 0, i)
    return jax.lax.stop_gradient(jnp.sum(jnp.where(inside, density, 0))) * grid.cell


@eqx.filter_jit
def _initial(
    initial: AbstractInitialState, hbar: Scalar, grid: FourierGrid
) -> tuple[Float[Array, "..."], Complex[Array, "..."], Scalar]:
    """ρ0, ψ0, and the probability where the momentum ∇S0 is beyond the largest of the grid.

    The grid aliases such a momentum, which the norm does not show.
    """
    dtype = hbar.dtype
    largest = hbar * jnp.asarray([np.pi / h for h in grid.spacing], dtype)

    def at(x):
        log_density, phase = initial.log_density(x), initial.phase(x) / hbar
        amplitude, density = jnp.exp(0.5 * log_density), jnp.exp(log_density)
        too_fast = jnp.any(jnp.abs(jax.grad(initial.phase)(x)) > largest)
        psi = jax.lax.complex(amplitude * jnp.cos(phase), amplitude * jnp.sin(phase))
        return density, psi, jnp.where(too_fast, density, 0)

    density, psi, too_fast = grid.map(at, dtype)
    return density, psi, jax.lax.stop_gradient(jnp.sum(too_fast)) * grid.cell


def _require_finite(grid: FourierGrid, values: Float[Array, "..."], what: str, hint: str) -> None:
    wrong = int(jnp.argmax(~jnp.isfinite(values)))
    value = float(values.ravel()[wrong])
    if math.isfinite(value):
        return
    where = [float(grid.axis(i)[j]) for i, j in enumerate(np.unravel_index(wrong, grid.sizes))]
    raise ValueError(
        f"{what} {value} at x = {where}, a point of the grid, but must be finite there. Choose another box or a "
        f"large finite value.{hint}"
    )


def check_memory(
    grid: FourierGrid, order: int, snapshots: int, dtype: DTypeLike, memory: float | None
) -> None:
    """Raises a `ValueError` if the grid does not fit into the memory, as far as that is known."""
    real = jnp.dtype(dtype).itemsize
    # ψ, three copies while it is transformed, and the phases of the kicks; V and its correction.
    arrays = 2 * (4 + (2 if order == 2 else 3) + snapshots) + (order // 2)
    needed = arrays * real * grid.size
    available = available_memory() if memory is None else memory
    if needed > available:
        raise ValueError(
            f"A grid of {' x '.join(map(str, grid.sizes))} = {grid.size} points needs about {needed:.3g} bytes, "
            f"but {available:.3g} are available. Use fewer points, single precision or a smaller "
            "snapshot_memory, or set memory= if more may be used."
        )


def available_memory() -> float:
    """Bytes available on the first local device, or infinity if unknown."""
    statistics = jax.local_devices()[0].memory_stats()
    if statistics and "bytes_limit" in statistics:
        return float(statistics["bytes_limit"] - statistics.get("bytes_in_use", 0))
    try:
        with open("/proc/meminfo") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return 1024 * float(line.split()[1])
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError, AttributeError):
        return math.inf
