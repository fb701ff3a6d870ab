"""ψ in a basis of Hermite functions."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, PyTree
from scipy.stats import qmc

from ..._check import is_concrete
from ..._precision import in_full_precision
from ..._types import Key, Paths, Points, Scalar, Time, Times, Vector
from ...problem import Problem
from ...solution import Diagnostics, InitialWaveFunction, Solution, wave_function_of
from ...solution import WaveFunction as Psi
from ._chebyshev import Bounds
from ._evaluate import Moments, on_nodes, placed, psi_and_gradient
from ._index import Quanta
from ._operator import Coefficients, Frame, terms_of
from ._run import Basis, between
from .state import HermiteState

# Observables are integrated on a product of Gauss–Hermite points up to so many coordinates, and by points that
# are drawn from the density beyond.
_MOST_ON_NODES = 4
_MORE_NODES = 8
_SETS, _POINTS = 8, 512
# Regions on a line and in the plane are summed on fine grids.
_LINE, _PLANE = 2**14, 512
# ψ between two times is a polynomial of this degree of time, through as many points; the phase of a wave changes
# by this much between two of them.
_ORDER = 9
_PHASE = 0.7
_MOST_STEPS = 2**16


class HermiteSolution(Solution):
    r"""ψ as a sum of products of Hermite functions: what [`HermiteFunctions`][bohmdiff.HermiteFunctions] returns.

    ```python
    solution = bd.solve(problem, bd.HermiteFunctions(tolerance=1e-4))
    solution.error_bound[-1], solution.wave_function(1.0, x)
    solution.trajectories(x0[:5])
    ```

    ψ, score, velocity and density are closed forms at any place; at times between the saved ones ψ is propagated
    from the one before. Where $|\psi|$ is smaller than its error, near nodes and far out, score and velocity are
    noise.

    - `coefficients`: at the saved times, real and imaginary parts, shape `(K, 2, N)`.
    - `error_bound`: a bound of $\|\psi - \psi_\text{exact}\|$ at the saved times due to the finite basis, shape
        `(K,)`.

    `trajectories` integrate the velocity with adaptive steps of order 8 and a tolerance of 1e-10 of the width,
    1e-5 in single precision. `sample` draws one coordinate after the other from tabulated distributions, exact to
    about 1e-5. `probability` is a sum on a fine grid in one and two dimensions; beyond, it comes from 8 sets of
    512 scrambled Sobol points that are distributed like the density. `expectation` is a sum over Gauss–Hermite
    points in up to four coordinates, and over the Sobol points beyond.
    """

    problem: Problem
    method: Any
    ts: Times
    diagnostics: Diagnostics
    quanta: Quanta = eqx.field(static=True)
    frame: Frame
    coefficients: Float[Array, "K 2 N"]
    start: Coefficients
    bounds: tuple[Scalar, Scalar]
    moments: Moments
    energies: Times
    error_bound: Times

    def mean(self) -> Float[Array, "K d"]:
        return self.moments.mean

    def covariance(self) -> Float[Array, "K d d"]:
        return self.moments.covariance

    def energy(self) -> Times:
        return self.energies

    def norm(self) -> Times:
        r"""$\int|\psi|^2$ at the saved times, shape `(K,)`."""
        return self.moments.norm

    @in_full_precision
    def coefficients_at(self, t: Time) -> Coefficients:
        """The coefficients at a time of the span, real and imaginary parts, shape `(2, N)`."""
        t = jnp.asarray(t, self.ts.dtype)
        if is_concrete((self.ts, t)):
            with jax.ensure_compile_time_eval():
                saved = np.flatnonzero(np.asarray(self.ts) == float(t))
            if saved.size:
                return self.coefficients[int(saved[0])]
        return _coefficients_at(self, t)

    @in_full_precision
    def state(self, t: Time) -> HermiteState:
        """ψ at a time of the span, as the initial state of another problem."""
        c = self._evaluated(lambda t, x: self.coefficients_at(t), t, jnp.zeros(self.quanta.dimension))
        unknown = jnp.full((), jnp.nan, self.ts.dtype)
        hbar = self.problem.hamiltonian.hbar
        return HermiteState(self.quanta, self.frame, c, hbar, unknown, unknown, False)

    def wave_function_at(self, t: Scalar, x: Vector) -> Complex[Array, ""]:
        psi, _ = self._at(t, x)
        return jax.lax.complex(psi[0], psi[1])

    def log_density_at(self, t: Scalar, x: Vector) -> Scalar:
        psi, _ = self._at(t, x)
        return jnp.log(jnp.maximum(jnp.sum(psi**2), jnp.finfo(self.ts.dtype).tiny))

    def score_at(self, t: Scalar, x: Vector) -> Vector:
        return 2 * log_gradient(*self._at(t, x))[0]

    def velocity_at(self, t: Scalar, x: Vector) -> Vector:
        hamiltonian = self.problem.hamiltonian
        return hamiltonian.hbar / hamiltonian.masses(x.size) * log_gradient(*self._at(t, x))[1]

    def move(self, x0: Points) -> Paths:
        return _moved(self, x0, _dense_count(self))

    def average(self, f: Callable[[Scalar, Vector], PyTree]) -> PyTree:
        if self.quanta.dimension > _MOST_ON_NODES:
            return _average_over_points(self, self._points(), f)
        return _average_on_nodes(self, f)

    def measure(self, inside: Callable[[Vector], Bool[Array, ""]]) -> tuple[Times, Times]:
        d = self.quanta.dimension
        if d <= 2:
            return _summed(self, inside, _LINE if d == 1 else _PLANE)
        hits = jax.vmap(jax.vmap(inside))(self._points()).astype(self.ts.dtype)
        shares = jnp.mean(hits.reshape(self.ts.size, _SETS, _POINTS), axis=2)
        return jnp.mean(shares, axis=1), jnp.std(shares, axis=1) / (_SETS - 1) ** 0.5

    def draw(self, key: Key, n: int) -> Float[Array, "n K d"]:
        keys = jax.random.split(key, self.ts.size)
        uniform = jax.vmap(lambda k: jax.random.uniform(k, (n, self.quanta.dimension), self.ts.dtype))(keys)
        return jnp.moveaxis(_placed(self, uniform), 0, 1)

    def project(self, psi: Psi | Solution) -> Complex[Array, " K"]:
        if isinstance(psi, InitialWaveFunction) and psi.problem is self.problem:
            return _with_start(self)
        if isinstance(psi, HermiteSolution) and psi.quanta == self.quanta:
            frames = (self.frame, psi.frame)
            if is_concrete(frames) and _same_frame(*frames):
                return _dots(self, psi)
        return _projected(self, wave_function_of(psi))

    def _at(self, t: Scalar, x: Vector) -> tuple[Array, Array]:
        psi, gradient = psi_and_gradient(self.quanta, self.frame, self.coefficients_at(t), x[None])
        return psi[:, 0], gradient[:, :, 0]

    def _points(self) -> Float[Array, "K P d"]:
        """Scrambled Sobol points that are distributed like the density, in independent sets."""
        sets = [
            qmc.Sobol(self.quanta.dimension, rng=np.random.default_rng(n)).random(_POINTS)
            for n in range(_SETS)
        ]
        uniform = jnp.asarray(np.concatenate(sets), self.ts.dtype)
        return _placed(self, jnp.broadcast_to(uniform, (self.ts.size, *uniform.shape)))


def log_gradient(psi: Array, gradient: Array) -> tuple[Array, Array]:
    """Real and imaginary part of ∇ψ/ψ from ψ, shape `(2, ...)`, and its gradient, `(d, 2, ...)`; zero where
    |ψ|² is below the smallest normal number."""
    density = psi[0] ** 2 + psi[1] ** 2
    nothing = density < jnp.finfo(density.dtype).tiny
    safe = jnp.where(nothing, 1, density)
    real = gradient[:, 0] * psi[0] + gradient[:, 1] * psi[1]
    imaginary = gradient[:, 1] * psi[0] - gradient[:, 0] * psi[1]
    return jnp.where(nothing, 0, real / safe), jnp.where(nothing, 0, imaginary / safe)


def basis_of(solution: HermiteSolution) -> Basis:
    hamiltonian = solution.problem.hamiltonian
    terms = terms_of(hamiltonian, solution.quanta.dimension)
    return Basis(solution.quanta, solution.frame, hamiltonian, terms, on_host=False)


@eqx.filter_jit
def _coefficients_at(solution: HermiteSolution, t: Scalar) -> Coefficients:
    times = jnp.concatenate([solution.problem.t0.astype(t.dtype)[None], solution.ts])
    index = jnp.clip(jnp.searchsorted(times, t, side="right") - 1, 0, solution.ts.size)
    kept = jnp.where(index == 0, solution.start, solution.coefficients[jnp.maximum(index - 1, 0)])
    return _between(solution, kept, times[index], t)


def _between(solution: HermiteSolution, c: Coefficients, start: Scalar, end: Scalar) -> Coefficients:
    """From one time to another, none where they are the same."""
    problem, steps = solution.problem, solution.method.steps
    longest = None if steps is None else (problem.t1 - problem.t0) / steps

    def moved() -> Coefficients:
        return between(basis_of(solution), Bounds(*solution.bounds), c, start, end, longest)

    return jax.lax.cond(end > start, moved, lambda: c)


def _dense_count(solution: HermiteSolution) -> int:
    """How many equal intervals of the span resolve ψ in time."""
    if not is_concrete(solution):
        raise ValueError(
            "The trajectories of a HermiteSolution need concrete values, which they do not have under jit, grad "
            "or vmap. Call trajectories outside of the transformation, or pass points to velocity within it."
        )
    spread = float(_energy_spread(solution))
    hbar = float(solution.problem.hamiltonian.hbar)
    span = float(solution.problem.t1 - solution.problem.t0)
    return int(max(np.ceil(6 * spread * span / hbar / _PHASE), 2 * _ORDER))


@eqx.filter_jit
def _energy_spread(solution: HermiteSolution) -> Scalar:
    basis, problem = basis_of(solution), solution.problem

    def spread(here: tuple[Scalar, Coefficients]) -> Scalar:
        t, c = here
        image = basis.operator_at(t)(c)
        mean = jnp.sum(c * image)
        return jnp.sqrt(jnp.maximum(jnp.sum(image**2) - mean**2, 0))

    first = (problem.t0.astype(solution.ts.dtype), solution.start)
    last = (solution.ts[-1], solution.coefficients[-1])
    return jnp.maximum(spread(first), spread(last))


@eqx.filter_jit
def _moved(solution: HermiteSolution, x0: Points, count: int) -> Paths:
    """Paths along the velocity of ψ, which is interpolated in time between equally spaced ones."""
    problem, dtype = solution.problem, x0.dtype
    t0, span = problem.t0.astype(dtype), (problem.t1 - problem.t0).astype(dtype)
    h = span / count
    frame, quanta = solution.frame, solution.quanta
    # Without the phase of the mean energy ψ changes more slowly.
    turn = solution.energies[0] / problem.hamiltonian.hbar

    def node(now: Coefficients, n: Scalar) -> tuple[Coefficients, Coefficients]:
        later = _between(solution, now, t0 + n * h, t0 + (n + 1) * h)
        return later, later

    _, values = jax.lax.scan(node, solution.start, jnp.arange(count, dtype=dtype))
    values = jnp.concatenate([solution.start[None], values])
    angle = turn * h * jnp.arange(count + 1, dtype=dtype)
    cosine, sine = jnp.cos(angle)[:, None], jnp.sin(angle)[:, None]
    values = jnp.stack(
        [cosine * values[:, 0] - sine * values[:, 1], cosine * values[:, 1] + sine * values[:, 0]], axis=1
    )
    j = np.arange(_ORDER + 1)
    signs = np.array([np.prod([1.0 / (a - b) for b in j if b != a]) for a in j])

    def psi_at(t: Scalar) -> Coefficients:
        place = (t - t0) / h
        first = jnp.clip(jnp.floor(place).astype(int) - _ORDER // 2, 0, count - _ORDER)
        near = jax.lax.dynamic_slice_in_dim(values, first, _ORDER + 1)
        away = place - first - jnp.asarray(j, dtype)
        exact = away == 0
        weights = jnp.asarray(signs, dtype) / jnp.where(exact, 1, away)
        weights = jnp.where(jnp.any(exact), exact.astype(dtype), weights / jnp.sum(weights))
        return jnp.tensordot(weights, near, axes=1)

    scale = (problem.hamiltonian.hbar / problem.hamiltonian.masses(quanta.dimension)).astype(dtype)

    def velocity(t: Any, x: Points, args: Any) -> Points:
        psi, gradient = psi_and_gradient(quanta, frame, psi_at(t), x)
        return (scale[:, None] * log_gradient(psi, gradient)[1]).T

    tolerance = 1e-10 if dtype == jnp.float64 else 1e-5
    width = jnp.sqrt(jnp.max(jnp.diagonal(solution.moments.covariance[0])))
    solved = diffrax.diffeqsolve(
        diffrax.ODETerm(velocity),
        diffrax.Dopri8(),
        t0,
        solution.ts[-1],
        None,
        x0,
        saveat=diffrax.SaveAt(ts=solution.ts),
        stepsize_controller=diffrax.PIDController(
            rtol=tolerance, atol=tolerance * width, norm=lambda y: jnp.max(jnp.abs(y))
        ),
        max_steps=_MOST_STEPS,
        throw=False,  # missing values are infinite, and the caller reports them
    )
    assert solved.ys is not None
    return jnp.moveaxis(solved.ys, 0, 1)


@eqx.filter_jit
def _average_on_nodes(solution: HermiteSolution, f: Callable[[Scalar, Vector], PyTree]) -> PyTree:
    def at(here: tuple[Scalar, Coefficients]) -> PyTree:
        t, c = here
        points, weights, psi = on_nodes(solution.quanta, solution.frame, c, _MORE_NODES)
        density = weights * jnp.sum(psi**2, axis=0)
        density = density / jnp.sum(density)
        values = jax.vmap(lambda x: f(t, x))(points)
        return jax.tree.map(lambda v: jnp.tensordot(density, jnp.asarray(v), axes=1), values)

    return jax.lax.map(at, (solution.ts, solution.coefficients))


@eqx.filter_jit
def _average_over_points(
    solution: HermiteSolution, points: Float[Array, "K P d"], f: Callable[[Scalar, Vector], PyTree]
) -> PyTree:
    def at(here: tuple[Scalar, Points]) -> PyTree:
        t, x = here
        return jax.tree.map(lambda v: jnp.mean(jnp.asarray(v), axis=0), jax.vmap(lambda y: f(t, y))(x))

    return jax.lax.map(at, (solution.ts, points))


@eqx.filter_jit
def _placed(solution: HermiteSolution, uniform: Float[Array, "K M d"]) -> Float[Array, "K M d"]:
    def at(here: tuple[Coefficients, Float[Array, "M d"]]) -> Points:
        return placed(solution.quanta, solution.frame, *here)

    return jax.lax.map(at, (solution.coefficients, uniform))


@eqx.filter_jit
def _summed(
    solution: HermiteSolution, inside: Callable[[Vector], Bool[Array, ""]], size: int
) -> tuple[Times, Times]:
    """The share of a region on a fine grid that holds all functions, and of half of its points as a check."""
    quanta, frame, dtype = solution.quanta, solution.frame, solution.ts.dtype
    axes = []
    for i, most in enumerate(quanta.most):
        edge = (2 * most + 1) ** 0.5 + 3.0
        middle = (np.arange(size) + 0.5) * 2 * edge / size - edge
        axes.append(frame.centre[i] + frame.scale[i] * jnp.asarray(middle, dtype))
    points = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, quanta.dimension)
    hits = jax.vmap(inside)(points).astype(dtype)

    def at(c: Coefficients) -> tuple[Scalar, Scalar]:
        psi, _ = psi_and_gradient(quanta, frame, c, points)
        density = jnp.sum(psi**2, axis=0)
        density = density / jnp.sum(density)
        share = jnp.sum(density * hits)
        # A cell that the border cuts counts as a whole: half a cell is the error.
        cut = hits.reshape((size,) * quanta.dimension)
        border = jnp.zeros_like(cut)
        for axis in range(quanta.dimension):
            changed = jnp.abs(jnp.diff(cut, axis=axis, append=jnp.take(cut, jnp.array([-1]), axis=axis)))
            border = jnp.maximum(border, changed)
        return share, 0.5 * jnp.sum(density * border.ravel()) / size ** (quanta.dimension - 1) ** 0.5

    return jax.lax.map(at, solution.coefficients)


def _same_frame(one: Frame, other: Frame) -> Bool[Array, ""]:
    return jnp.all(one.centre == other.centre) & jnp.all(one.scale == other.scale)


@eqx.filter_jit
def _with_start(solution: HermiteSolution) -> Complex[Array, " K"]:
    ours, start = solution.coefficients, solution.start
    imaginary = ours[:, 0] * start[1] - ours[:, 1] * start[0]
    return jax.lax.complex(jnp.sum(ours * start, axis=(1, 2)), jnp.sum(imaginary, axis=1))


@eqx.filter_jit
def _dots(one: HermiteSolution, other: HermiteSolution) -> Complex[Array, " K"]:
    def at(here: tuple[Scalar, Coefficients]) -> Complex[Array, ""]:
        t, ours = here
        theirs = _coefficients_at(other, t)
        imaginary = jnp.sum(ours[0] * theirs[1] - ours[1] * theirs[0])
        return jax.lax.complex(jnp.sum(ours * theirs), imaginary)

    return jax.lax.map(at, (one.ts, one.coefficients))


@eqx.filter_jit
def _projected(solution: HermiteSolution, psi: Psi) -> Complex[Array, " K"]:
    d = solution.quanta.dimension
    if d > _MOST_ON_NODES:
        raise solution.unavailable(
            f"overlap with another wave function in {d} coordinates",
            "Solve both by HermiteFunctions of one degree, centre and scale.",
        )

    def at(here: tuple[Scalar, Coefficients]) -> Complex[Array, ""]:
        t, c = here
        points, weights, ours = on_nodes(solution.quanta, solution.frame, c, _MORE_NODES)
        theirs = jax.vmap(lambda x: psi(t, x))(points)
        return jnp.sum(weights * jax.lax.complex(ours[0], -ours[1]) * theirs)

    return jax.lax.map(at, (solution.ts, solution.coefficients))
