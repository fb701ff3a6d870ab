"""Records of ψ at a saved time, and figures that show whether it can be trusted."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, DTypeLike, Float

from ..._types import Scalar, Times
from ...hamiltonian import Hamiltonian
from ...solution import Figure, over_time
from ._fourier import FourierGrid
from ._propagator import Propagator, kick_times
from ._start import EDGE_PROBABILITY, norm_tolerance
from .absorber import reflection

# In units of the largest mean kinetic energy.
_ENERGY_DRIFT = 1e-3
# A large potential leaves rounding errors of this many of its last digits in the energy.
_ROUNDING = 10
_NORM_DRIFT = 1e-6
# A time-dependent potential is looked at this many times in each step, and its force must miss no more than this.
_PROBES = 64
_MISSED_MOMENTUM = 1e-2
# The mean potential on shifted grids may differ by this share of the largest mean kinetic energy. Small grids are
# shifted more often, since that costs little, and large ones at fewer times.
_MISSED_POTENTIAL = 5e-3
_SHIFTED_POINTS = 2**15
_SHIFTS = 2, 64
LARGE_GRID = 2**16
_REFLECTED = 1e-3
_FEWER_TIMES = 8


class Moments(eqx.Module):
    """The records at one saved time, or at all of them."""

    norm: Float[Array, "*K"]
    mean: Float[Array, "*K d"]
    covariance: Float[Array, "*K d d"]
    kinetic: Float[Array, "*K"]
    potential: Float[Array, "*K"]

    @property
    def energy(self) -> Float[Array, "*K"]:
        return self.kinetic + self.potential


class Edges(eqx.Module):
    """The probability at the edges of the box and of the momenta, for each coordinate.

    `lost` and `reflected` are the rates at which an absorber takes probability, and at which it should have taken
    more; `None` without one.
    """

    box: Float[Array, "*K d"]
    momentum: Float[Array, "*K d"]
    lost: Float[Array, "*K"] | None = None
    reflected: Float[Array, "*K"] | None = None


@eqx.filter_jit
def observe(propagator: Propagator, psi: Complex[Array, "..."], t: Scalar) -> tuple[Moments, Edges]:
    """Moments and edges at one time."""
    grid, d = propagator.grid, propagator.grid.dimension
    density = (psi.real**2 + psi.imag**2) * grid.cell
    norm = whole = jnp.sum(density)
    if propagator.absorption is not None:
        norm = jnp.where(whole > 0, whole, 1)  # all of ψ may be gone
    amplitudes = grid.to_momentum(psi)
    spectrum = (amplitudes.real**2 + amplitudes.imag**2) * grid.cell
    potential = jnp.sum(density * propagator.potential_at(t)) / norm

    def along(array: Array, *axes: int) -> Array:
        return jnp.sum(array, tuple(j for j in range(d) if j not in axes))

    kinetic = jnp.zeros_like(norm)
    centred, means, box, momentum = [], [], [], []
    for i, n in enumerate(grid.sizes):
        x, k = jnp.asarray(grid.axis(i), norm.dtype), jnp.asarray(grid.wavenumbers(i), norm.dtype)
        along_x, along_k = along(density, i), along(spectrum, i)
        means.append(jnp.sum(along_x * x) / norm)
        centred.append(x - means[-1])
        kinetic += jnp.sum(along_k * k**2) * propagator.hbar**2 / (2 * propagator.masses[i]) / norm
        box.append(along_x[0] + along_x[-1])
        momentum.append(jnp.sum(along_k[(n - 1) // 2 : n // 2 + 2]))

    def covariance(i: int, j: int) -> Scalar:
        if i == j:
            return jnp.sum(along(density, i) * centred[i] ** 2) / norm
        pair = along(density, *sorted((i, j)))
        return centred[min(i, j)] @ pair @ centred[max(i, j)] / norm

    matrix = {(i, j): covariance(i, j) for i in range(d) for j in range(i + 1)}
    rows = [jnp.stack([matrix[max(i, j), min(i, j)] for j in range(d)]) for i in range(d)]
    moments = Moments(whole, jnp.stack(means), jnp.stack(rows), kinetic, potential)
    return moments, Edges(jnp.stack(box), jnp.stack(momentum), *_absorbed(propagator, psi, density))


def _absorbed(
    propagator: Propagator, psi: Complex[Array, "..."], density: Float[Array, "..."]
) -> tuple[Scalar, Scalar] | tuple[()]:
    """The rates of what an absorber takes and reflects, the latter by the local momentum."""
    if propagator.absorption is None:
        return ()
    assert propagator.absorber is not None
    grid, hbar, widths = propagator.grid, propagator.hbar, propagator.absorber.widths(propagator.grid)
    lost = reflected = jnp.zeros((), density.dtype)
    for i, absorption in enumerate(propagator.absorption):
        if absorption is None:
            continue
        k = grid.spread(jnp.asarray(grid.wavenumbers(i), density.dtype), i)
        slope = jnp.fft.ifft(1j * k * jnp.fft.fft(psi, axis=i), axis=i)
        current = jnp.abs((jnp.conj(psi) * slope).imag) * grid.cell
        wavenumber = current / jnp.where(density > 0, density, 1)
        rate = 2 / hbar * grid.spread(absorption, i) * density
        lost += jnp.sum(rate)
        reflected += jnp.sum(rate * reflection(wavenumber * widths[i]))
    return jax.lax.stop_gradient((lost, reflected))


@eqx.filter_jit
def diagnostics(
    grid: FourierGrid,
    moments: Moments,
    edges: Edges,
    times: Times,
    *,
    norm: Scalar,
    too_fast: Scalar,
    conserved: bool,
    absorbed: Scalar | None,
) -> dict[str, Figure]:
    """The figures, from the records at t0 and all saved times, and from ψ0 before any check."""
    dtype = times.dtype
    finite = jnp.isfinite(moments.norm) & jnp.isfinite(moments.energy)
    figures = {
        "initial norm": Figure(
            value=jnp.abs(norm - 1),
            limit=norm_tolerance(dtype),
            meaning="The norm of the initial state on the grid differs from 1 by this: it does not fit into the "
            "box, or the points are too far apart for it.",
            remedy="Widen lower and upper, or use more points.",
        ),
        "initial momentum": Figure(
            value=too_fast,
            limit=EDGE_PROBABILITY,
            meaning="This probability of the initial state has a momentum beyond the largest of the grid, "
            "ħπ / spacing.",
            remedy="Use more points.",
        ),
        "not finite": Figure(
            value=jnp.sum(~finite).astype(dtype),
            limit=0.0,
            meaning="At this number of times ψ or the potential is not finite.",
            remedy="The potential must be finite at every point of the box at all times.",
            time=times[jnp.argmin(finite)],
        ),
    }
    if absorbed is None:
        figures["norm drift"] = over_time(
            jnp.abs(moments.norm - moments.norm[0]),
            times,
            limit=max(_NORM_DRIFT, 1e4 * float(jnp.finfo(dtype).eps)),
            meaning="Rounding errors change the norm of ψ.",
            remedy="Use double precision, or fewer steps.",
        )
    else:
        figures |= _absorber_figures(moments, edges, times, absorbed)
    if conserved:
        digits = _ROUNDING * jnp.finfo(dtype).eps / _ENERGY_DRIFT
        unit = jnp.max(moments.kinetic) + digits * jnp.max(jnp.abs(moments.potential))
        figures["energy drift"] = over_time(
            jnp.abs(moments.energy - moments.energy[0]) / unit,
            times,
            limit=_ENERGY_DRIFT,
            meaning="The mean energy should be conserved, but it changes by this share of the largest mean "
            "kinetic energy.",
            remedy="Use more steps.",
        )
    for i in range(grid.dimension):
        figures |= _at_the_edges(grid, edges, times, i)
    return figures


def _absorber_figures(moments: Moments, edges: Edges, times: Times, absorbed: Scalar) -> dict[str, Figure]:
    assert edges.lost is not None
    assert edges.reflected is not None
    # What is lost between two times is known; which share of it was slow, at the times.
    ends = edges.lost[1:] + edges.lost[:-1], edges.reflected[1:] + edges.reflected[:-1]
    share = ends[1] / jnp.where(ends[0] > 0, ends[0], 1)
    reflected = jnp.cumsum(share * jnp.maximum(moments.norm[:-1] - moments.norm[1:], 0))
    return {
        "initial absorption": Figure(
            value=absorbed,
            limit=EDGE_PROBABILITY,
            meaning="This probability of the initial state lies in the layers of the absorber.",
            remedy="Widen lower and upper, or use a narrower absorber.",
        ),
        "absorber": over_time(
            jnp.concatenate([jnp.zeros_like(reflected[:1]), reflected]),
            times,
            limit=_REFLECTED,
            meaning="The absorber reflects about this probability: waves that are about as long as its layers "
            "are wide, or longer.",
            remedy="Use a wider absorber, in a wider box.",
        ),
    }


class Shifts(eqx.Module):
    """Grids that lie between the points of a grid: whether V has anything there.

    - `offsets`: by how much each grid is shifted.
    - `potentials`: V on each, unless it depends on time.
    - `every`: which of the times of comparison are looked at.
    """

    offsets: Float[Array, "S d"]
    potentials: Float[Array, "S ..."] | None
    every: int = eqx.field(static=True)

    def __init__(self, propagator: Propagator, hamiltonian: Hamiltonian):
        grid, dtype = propagator.grid, propagator.masses.dtype
        number = int(np.clip(_SHIFTED_POINTS // grid.size, *_SHIFTS))
        # Equal steps along one axis, and a lattice of Fibonacci's kind along the others.
        generator = np.array([1, *(0.5 ** (1 / i) % 1 for i in range(1, grid.dimension))])
        fractions = ((np.arange(number) + 0.5)[:, None] * np.append([1 / number], generator[1:])) % 1
        self.offsets = jnp.asarray(fractions * np.array(grid.spacing), dtype)
        self.potentials = None
        if propagator.hamiltonian is None:
            self.potentials = _shifted_potentials(grid, hamiltonian, self.offsets)
        self.every = 1 if grid.size <= LARGE_GRID else _FEWER_TIMES

    @eqx.filter_jit
    def missed(
        self, propagator: Propagator, psi: Complex[Array, "..."], t: Scalar, moments: Moments
    ) -> Scalar:
        """By how much the mean potential between the points differs from that at the points."""
        grid = propagator.grid
        waves = [jnp.asarray(grid.wavenumbers(i), t.dtype) for i in range(grid.dimension)]

        def mean(shift: tuple[Float[Array, " d"], Float[Array, "..."] | None]) -> Scalar:
            offset, potential = shift
            moved = psi
            for i, k in enumerate(waves):
                angle = k * offset[i]
                phase = jax.lax.complex(jnp.cos(angle), jnp.sin(angle)).reshape(
                    *(1,) * (len(waves) - 1), -1
                )
                moved = jnp.moveaxis(jnp.fft.ifft(jnp.fft.fft(jnp.moveaxis(moved, i, -1)) * phase), -1, i)
            if potential is None:
                assert propagator.hamiltonian is not None
                potential = _shifted_potential(grid, propagator.hamiltonian, t, offset)
            return jnp.sum((moved.real**2 + moved.imag**2) * potential) * grid.cell

        means = jax.lax.map(mean, (self.offsets, self.potentials))
        return jnp.abs(jnp.mean(means) / moments.norm - moments.potential)


def _shifted_potential(
    grid: FourierGrid, hamiltonian: Hamiltonian, t: Scalar, offset: Float[Array, " d"]
) -> Float[Array, "..."]:
    # The box is a period: what leaves it on one side is not looked at on the other.
    upper = jnp.asarray(grid.upper, t.dtype)

    def at(x: Float[Array, " d"]) -> Scalar:
        y = jnp.where(x + offset < upper, x + offset, x)
        return jnp.asarray(hamiltonian.potential(t, y), x.dtype)

    return grid.map(at, t.dtype)


@eqx.filter_jit
def _shifted_potentials(
    grid: FourierGrid, hamiltonian: Hamiltonian, offsets: Float[Array, "S d"]
) -> Float[Array, "S ..."]:
    now = jnp.zeros((), offsets.dtype)
    return jax.lax.map(lambda offset: _shifted_potential(grid, hamiltonian, now, offset), offsets)


def between_points_figure(
    missed: Times, times: Times, moments: Moments, dtype: DTypeLike
) -> dict[str, Figure]:
    """The figure for a potential that changes between the points of the grid."""
    rounding = _ROUNDING * jnp.finfo(dtype).eps / _MISSED_POTENTIAL
    unit = jnp.max(moments.kinetic) + rounding * jnp.max(jnp.abs(moments.potential))
    return {
        "potential between points": over_time(
            missed / unit,
            times,
            limit=_MISSED_POTENTIAL,
            meaning="The potential changes between the points of the grid: its mean there differs by this share "
            "of the largest mean kinetic energy.",
            remedy="Use more points.",
        )
    }


def force_beside(
    hamiltonian: Hamiltonian, ts: Times, mean: Float[Array, " d"], width: Float[Array, " d"]
) -> Float[Array, "T 2 d"]:
    """∇V at some times, on both sides of a packet, where the force of a trap that breathes does not vanish."""
    gradient = jax.vmap(jax.grad(hamiltonian.potential, argnums=1), in_axes=(None, 0))
    beside = jnp.stack([mean - width, mean + width])
    return jax.lax.map(lambda t: gradient(t, beside), ts, batch_size=1024)


def drive_figure(
    hamiltonian: Hamiltonian, order: int, edges: np.ndarray, mean: Float[Array, "N d"], at_start: Moments
) -> dict[str, Figure]:
    """The figure for a potential that changes between the kicks of a step.

    `edges` are the times of the N steps, shape `(N + 1,)`, and `mean` is a place near the packet for each.
    """
    ts = jnp.asarray(edges, mean.dtype)
    width = jnp.sqrt(jnp.diag(at_start.covariance))
    missed = _missed_momentum(hamiltonian, order, ts, mean, width)
    return {
        "drive": over_time(
            jnp.max(missed / (0.5 * hamiltonian.hbar / width)[None, None], axis=(1, 2)),
            ts[1:],
            limit=_MISSED_MOMENTUM,
            meaning="The potential changes within a step: its mean force, taken at the kicks alone, misses this "
            "momentum, in units of ħ / (2 std).",
            remedy="Use more steps.",
        )
    }


@eqx.filter_jit
def _missed_momentum(
    hamiltonian: Hamiltonian,
    order: int,
    edges: Times,
    mean: Float[Array, "N d"],
    width: Float[Array, " d"],
) -> Float[Array, "N 2 d"]:
    fractions, weights = kick_times(order)
    probes = (np.arange(_PROBES) + 0.5) / _PROBES

    def of_step(step: tuple[Scalar, Scalar, Float[Array, " d"]]) -> Float[Array, "2 d"]:
        start, length, x = step
        at_kicks, at_probes = (
            force_beside(hamiltonian, start + length * jnp.asarray(share, x.dtype), x, width)
            for share in (fractions, probes)
        )
        own = jnp.tensordot(jnp.asarray(weights, x.dtype), at_kicks, axes=1)
        return length * (own - jnp.mean(at_probes, axis=0))

    steps = edges[:-1], jnp.diff(edges), mean
    return jnp.abs(jnp.cumsum(jax.lax.map(of_step, steps, batch_size=256), axis=0))


def _at_the_edges(grid: FourierGrid, edges: Edges, times: Times, i: int) -> dict[str, Any]:
    which = "" if grid.dimension == 1 else f" of x[{i}]"
    lower, upper, largest = grid.lower[i], grid.upper[i], np.pi / grid.spacing[i]
    return {
        f"box edge{which}": over_time(
            edges.box[:, i],
            times,
            limit=EDGE_PROBABILITY,
            meaning=f"The density reaches the edge of the box: this probability lies at the outermost points of "
            f"coordinate {i}, next to {lower:g} and {upper:g}. It comes back in on the other side.",
            remedy="Widen lower and upper.",
        ),
        f"momentum edge{which}": over_time(
            edges.momentum[:, i],
            times,
            limit=EDGE_PROBABILITY,
            meaning="The momentum reaches the edge of the grid: this probability lies at the largest wavenumbers "
            f"of coordinate {i}, next to {largest:.4g}.",
            remedy="Use more points.",
        ),
    }
