"""Propagation of the coefficients to given times, with the norm of what leaves the basis."""

from itertools import pairwise
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from ..._check import is_concrete
from ...hamiltonian import Hamiltonian, PotentialTerm, depends_on_time
from ._chebyshev import PHASE, Bounds, advanced, expanded, spectrum_bounds, widest
from ._index import Quanta, listed
from ._operator import (
    Frame,
    Nodes,
    Operator,
    Structure,
    added,
    kinetic_part,
    nodes_of,
    on_device,
    potential_part,
    structure_of,
    values_at,
)

# What leaves the basis is looked at, at so many times and at the ends of all expansions.
_LOOKS = 25
# Functions that are added to the basis to see what leaves it.
RAISED = 6
# So many steps evaluate the potential together.
_TOGETHER = 32
# The bounds of a Hamiltonian that changes are found at so many times.
_BOUND_TIMES = 9
_SAFETY = 1.1
# The commutator-free scheme of order 4: two exponentials a step, of H at the two points of Gauss.
_GAUSS = np.array([0.5 - 3**0.5 / 6, 0.5 + 3**0.5 / 6])
_SHARES = np.array([(3 + 2 * 3**0.5) / 12, (3 - 2 * 3**0.5) / 12])


class Basis(eqx.Module):
    """A basis and the Hamiltonian in it: the part that does not change, and the terms that do. In NumPy, where
    all values are known, or in JAX."""

    quanta: Quanta = eqx.field(static=True)
    frame: Frame
    hamiltonian: Hamiltonian
    changing: tuple[PotentialTerm, ...]
    constant: Operator
    nodes: Nodes
    on_host: bool = eqx.field(static=True)

    def __init__(
        self,
        quanta: Quanta,
        frame: Frame,
        hamiltonian: Hamiltonian,
        terms: tuple[PotentialTerm, ...],
        *,
        on_host: bool,
        finer: bool = False,
    ):
        self.quanta, self.frame, self.hamiltonian = quanta, frame, hamiltonian
        self.on_host = on_host
        structure, xp = structure_of(terms, quanta), self.xp
        if not on_host:
            structure = on_device(structure)
        kinetic = kinetic_part(structure, hamiltonian, frame, xp)
        self.nodes = nodes_of(structure, frame, xp, max(len(one.coordinates) for one in terms), finer)
        d, dtype = quanta.dimension, frame.scale.dtype
        # A grid of all coordinates takes all terms or none.
        together = structure.together is not None
        moves = [
            depends_on_time(eqx.tree_at(lambda h: h.potential, hamiltonian, term), d, dtype)
            for term in terms
        ]
        self.changing = tuple(
            term for term, one in zip(terms, moves, strict=True) if one or (together and any(moves))
        )
        kept = tuple(term for term in terms if not any(term is one for one in self.changing))
        self.constant = kinetic
        if kept:
            values = values_at(structure, kept, frame, self.nodes, jnp.zeros(1, dtype))
            potential = potential_part(
                structure, kept, frame, self.nodes, tuple(xp.asarray(v)[0] for v in values)
            )
            self.constant = added(kinetic, potential)

    @property
    def xp(self) -> Any:
        """NumPy or JAX."""
        return np if self.on_host else jnp

    @property
    def structure(self) -> Structure:
        return self.constant.structure

    @property
    def size(self) -> int:
        return len(listed(self.quanta))

    def values(self, times: Any) -> tuple[Any, ...]:
        """The terms that change, on the nodes, at some times."""
        times = jnp.asarray(times, self.frame.scale.dtype)
        found = values_at(self.structure, self.changing, self.frame, self.nodes, times)
        return tuple(np.asarray(one) for one in found) if self.on_host else found

    def operator(self, values: tuple[Any, ...], shares: Any) -> Operator:
        """Σ_j shares_j H(t_j), with the values of the changing terms at these times."""
        xp = self.xp
        shares = xp.asarray(shares, self.frame.scale.dtype)
        together = tuple(xp.tensordot(shares, one, axes=1) for one in values)
        potential = potential_part(self.structure, self.changing, self.frame, self.nodes, together)
        return added(self.constant, potential, xp.sum(shares))

    def operator_at(self, t: Any) -> Operator:
        if not self.changing:
            return self.constant
        return self.operator(self.values(jnp.asarray(t)[None]), self.xp.ones(1))

    def bounds(self, t0: Any, t1: Any) -> Bounds:
        """An interval that holds the spectrum at all times between two."""
        c = self.xp.zeros((2, self.size), self.frame.scale.dtype)
        if not self.changing:
            return spectrum_bounds(self.constant, c)
        if self.on_host:
            times = np.linspace(float(t0), float(t1), _BOUND_TIMES)
            return widest([spectrum_bounds(self.operator_at(t), c) for t in times])
        times = jnp.linspace(t0, t1, _BOUND_TIMES, dtype=c.dtype)
        all_bounds = jax.lax.map(lambda t: spectrum_bounds(self.operator_at(t), c), times)
        low = jnp.min(all_bounds.middle - all_bounds.radius)
        high = jnp.max(all_bounds.middle + all_bounds.radius)
        return Bounds(0.5 * (low + high), 0.5 * (high - low))

    def step(
        self, bounds: Bounds, c: Any, values: tuple[Any, ...], dt: Any, parts: int | None = None
    ) -> Any:
        """One step of the commutator-free scheme of order 4 (Blanes and Moan 2006), with the values of the
        changing terms at its two `stages`."""
        # Each exponential has half of the energy; one of the shares is negative, which widens the spectrum a
        # little.
        half = Bounds(0.5 * bounds.middle, _SAFETY * 0.5 * bounds.radius)
        for shares in (_SHARES, _SHARES[::-1]):
            c = advanced(self.operator(values, shares), half, c, dt, self.hamiltonian.hbar, parts)
        return c


def stages(t: Any, dt: Any) -> Any:
    """When a step needs the Hamiltonian, shape `(..., 2)`."""
    xp: Any = np if isinstance(t, np.ndarray | float) else jnp
    return xp.asarray(t)[..., None] + _GAUSS * xp.asarray(dt)[..., None]


def places(quanta: Quanta, larger: Quanta) -> Int[np.ndarray, " N"]:
    """Where the functions of one index set are in a larger one."""
    keys = []
    for numbers in (listed(quanta), listed(larger)):
        key = np.zeros(len(numbers), np.int64)
        for i, most in enumerate(larger.most):
            key = key * (most + 1) + numbers[:, i]
        keys.append(key)
    return np.searchsorted(keys[1], keys[0]).astype(np.int32)


class Records(NamedTuple):
    """Coefficients at given times, and a bound of the error of ψ there."""

    coefficients: Any
    error_bound: Any


def outside(larger: Operator, within: Any, c: Any) -> Any:
    """‖(1 − P) H c‖, by H in a larger basis."""
    image = np.zeros((2, len(listed(larger.structure.quanta))), c.dtype)
    image[:, within] = c
    image = larger(image)
    image[:, within] = 0
    return float(np.linalg.norm(image))


def run(
    basis: Basis,
    larger: Basis,
    bounds: Bounds,
    c: Any,
    t0: float,
    times: Any,
    steps: int | None,
    span: float,
) -> Records:
    """Propagates, on the host, to increasing times; `steps` are for the whole span, where H changes."""
    within, hbar = places(basis.quanta, larger.quanta), float(basis.hamiltonian.hbar)
    norm = float(np.sum(c.astype(float) ** 2))
    lost = np.sqrt(abs(1 - norm))
    found = np.empty((len(times), *c.shape), c.dtype)
    # Blocks of one expansion each; what leaves is seen at their ends and at some of the times.
    count = max(int(np.ceil(float(bounds.radius) * (times[-1] - t0) / hbar / PHASE)), 1)
    ends = np.linspace(t0, times[-1], count + 1)
    looks = np.union1d(ends, times[np.linspace(0, len(times) - 1, min(_LOOKS, len(times))).astype(int)])
    leaving = {t0: outside(larger.operator_at(t0), within, c) / hbar}
    k = int(np.searchsorted(times, t0, side="right"))
    found[:k] = c
    for start, end in pairwise(ends):
        last = len(times) if end == ends[-1] else int(np.searchsorted(times, end, side="right"))
        wanted = np.append(times[k:last], end)
        if basis.changing:
            assert steps is not None
            values = _Steps(basis, bounds, steps / span).through(c, start, wanted)
        else:
            values = expanded(basis.constant, bounds, c, wanted - start, hbar)
        for t, value in zip(wanted, values, strict=True):
            if t in looks:
                leaving[t] = outside(larger.operator_at(t), within, value) / hbar
        found[k:last], c, k = values[:-1], values[-1], last
    seen, rates = np.array(list(leaving)), np.array(list(leaving.values()))
    integral = np.concatenate([[0.0], np.cumsum(np.diff(seen) * 0.5 * (rates[1:] + rates[:-1]))])
    return Records(found, lost + np.interp(times, seen, integral))


class _Steps:
    """Equal steps between times, at least `rate` of them per unit of time; V is evaluated for many at once."""

    def __init__(self, basis: Basis, bounds: Bounds, rate: float):
        self.basis, self.bounds, self.rate = basis, bounds, rate

    def through(self, c: Any, start: float, ends: Any) -> list[Any]:
        """The coefficients at each of the ends."""
        edges = np.append(start, ends)
        counts = np.ceil(np.diff(edges) * self.rate * (1 - 1e-9)).astype(int)
        lengths = np.repeat(np.diff(edges) / np.maximum(counts, 1), counts)
        starts = np.concatenate(
            [
                np.linspace(a, b, n, endpoint=False)
                for a, b, n in zip(edges, edges[1:], counts, strict=False)
            ]
        )
        values, found, done = iter(()), [], 0
        for count in counts:
            for n in range(done, done + count):
                if n % _TOGETHER == 0:
                    # As many at a time as before, since another number compiles the potential again.
                    chosen = np.minimum(np.arange(n, n + _TOGETHER), len(starts) - 1)
                    times = stages(starts[chosen], lengths[chosen])
                    table = self.basis.values(times.ravel())
                    values = iter(range(_TOGETHER))
                k = 2 * next(values)
                c = self.basis.step(
                    self.bounds, c, tuple(one[k : k + 2] for one in table), float(lengths[n])
                )
            done += count
            found.append(c)
        return found


def run_traced(
    basis: Basis, larger: Basis, bounds: Bounds, c: Any, t0: Any, t1: Any, ts: Any, steps: int
) -> tuple[Any, Any, Any]:
    """Propagates, in JAX, to the saved times by numbers of steps that are no values: also the bound of the error,
    and the largest phase of an expansion in units of what it can have."""
    within, hbar = jnp.asarray(places(basis.quanta, larger.quanta)), basis.hamiltonian.hbar
    lost = jnp.sqrt(jnp.abs(1 - jnp.sum(jax.lax.stop_gradient(c) ** 2)))
    t0 = jnp.asarray(t0, c.dtype)
    lengths = jnp.diff(jnp.concatenate([t0[None], ts]))
    count = steps
    if is_concrete((lengths, t1)):
        longest = float(jnp.max(lengths)) * steps / float(t1 - t0)
        count = max(int(np.ceil(longest * (1 - 1e-6))), 1)
    phase = jnp.max(lengths) / count * bounds.radius / hbar / PHASE

    def leaving(t: Any, c: Any) -> Any:
        # Of no use as a gradient, which a norm of zero does not have.
        c = jax.lax.stop_gradient(c)
        image = jnp.zeros((2, larger.size), c.dtype).at[:, within].set(c)
        image = larger.operator_at(t)(image).at[:, within].set(0)
        return jax.lax.stop_gradient(jnp.linalg.norm(image) / hbar)

    def through(now: Any, start: Any, length: Any) -> Any:
        if not basis.changing:
            return advanced(basis.constant, bounds, now, length, hbar, count)
        dt = length / count

        def step(now: Any, n: Any) -> tuple[Any, None]:
            return basis.step(bounds, now, basis.values(stages(start + n * dt, dt)), dt, 1), None

        return jax.lax.scan(jax.checkpoint(step), now, jnp.arange(count))[0]

    def interval(state: tuple, length: Any) -> tuple[tuple, tuple]:
        now, start, integral, rate = state
        now = through(now, start, length)
        later = leaving(start + length, now)
        integral = integral + 0.5 * length * (rate + later)
        return (now, start + length, integral, later), (now, integral)

    _, (found, error_bound) = jax.lax.scan(interval, (c, t0, lost, leaving(t0, c)), lengths)
    return found, error_bound, jax.lax.stop_gradient(phase)


def between(basis: Basis, bounds: Bounds, c: Any, start: Any, end: Any, longest: Any) -> Any:
    """From one time to another in JAX, by steps no longer than `longest` where H changes."""
    if not basis.changing:
        return advanced(basis.constant, bounds, c, end - start, basis.hamiltonian.hbar)
    count = jnp.maximum(jnp.ceil((end - start) / longest), 1).astype(int)
    dt = (end - start) / count

    def step(n: Any, now: Any) -> Any:
        return basis.step(bounds, now, basis.values(stages(start + n * dt, dt)), dt)

    return jax.lax.fori_loop(jnp.asarray(0), count, step, c)
