"""The contract of solutions: what every method returns."""

import contextlib
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray
from jaxtyping import Array, ArrayLike, Bool, Complex, Float, PyTree

from .._check import as_key, as_positive_integer, as_real_array, describe, is_concrete, reason
from .._errors import UnavailableError
from .._precision import in_full_precision
from .._types import Key, Numbers, Paths, Points, Scalar, Time, Times, Vector
from ..flow import as_positions, require_finite_paths
from ..problem import Problem
from ..score import AbstractGradientScore, AbstractScore, AbstractScoreSource
from ..units import ATOMIC, Units, as_units
from ._export import attributes, moments_dataset
from .diagnostics import Diagnostics

_TINY_PART = 1e-6  # of the span: times that are closer are the same

WaveFunction = Callable[[Scalar, Vector], Complex[Array, ""]]


class InitialWaveFunction(eqx.Module):
    """ψ of the initial state of a problem, at any time."""

    problem: Problem

    def __call__(self, t: Scalar, x: Vector) -> Complex[Array, ""]:
        initial, hbar = self.problem.initial, self.problem.hamiltonian.hbar
        return jnp.exp(jax.lax.complex(0.5 * initial.log_density(x), initial.phase(x) / hbar))


class Solution(AbstractScoreSource):
    r"""The time-dependent solution of a [`Problem`][bohmdiff.Problem] by one method.

    ```python
    solution.mean(), solution.std(), solution.energy()
    solution.probability(lambda x: x[0] > 0)
    solution.expectation(lambda x: x**4)[-1]
    jax.vmap(lambda x: solution.log_density(1.0, x))(x0)
    ```

    Every method returns one, with the same methods. A quantity that a method cannot give raises an
    [`UnavailableError`][bohmdiff.UnavailableError] that names a method that can.

    A solution is a value: a pytree of arrays and static options. It can be passed through `jax.jit` and
    `jax.vmap`, and two solutions of the same problem by the same method are traced once.

    - `problem`, `method`: what was solved, and how.
    - `ts`: the saved times, shape `(K,)`.
    - `diagnostics`: the [`Diagnostics`][bohmdiff.Diagnostics] of this solution.

    To write a solution of your own, subclass this, or
    [`AbstractParticleSolution`][bohmdiff.AbstractParticleSolution] if it has particles, and write the abstract
    methods. They get times and places that are already checked.
    """

    problem: eqx.AbstractVar[Problem]
    method: eqx.AbstractVar[eqx.Module]
    ts: eqx.AbstractVar[Times]
    diagnostics: eqx.AbstractVar[Diagnostics]

    # What a solution implements.

    @abstractmethod
    def mean(self) -> Float[Array, "K d"]:
        r"""$E_\rho\, x_i$ at the saved times, shape `(K, d)`."""

    @abstractmethod
    def covariance(self) -> Float[Array, "K d d"]:
        r"""The covariance matrix of the position at the saved times, shape `(K, d, d)`."""

    @abstractmethod
    def energy(self) -> Times:
        r"""$\langle H \rangle$ at the saved times, shape `(K,)`."""

    @abstractmethod
    def score_at(self, t: Scalar, x: Vector) -> Vector:
        r"""$\nabla\ln\rho(t, x)$, for `score`."""

    @abstractmethod
    def velocity_at(self, t: Scalar, x: Vector) -> Vector:
        r"""$\nabla S(t, x) / m$, for `velocity`."""

    @abstractmethod
    def log_density_at(self, t: Scalar, x: Vector) -> Scalar:
        r"""$\ln\rho(t, x)$, for `log_density`."""

    @abstractmethod
    def wave_function_at(self, t: Scalar, x: Vector) -> Complex[Array, ""]:
        r"""$\psi(t, x)$, for `wave_function`; or `raise self.unavailable(...)`."""

    @abstractmethod
    def move(self, x0: Points) -> Paths:
        """The paths at the saved times of particles that start at `x0`, for `trajectories`; NaN or infinite for
        those that are lost."""

    @abstractmethod
    def average(self, f: Callable[[Scalar, Vector], PyTree]) -> PyTree:
        r"""$E_\rho f(t, x)$ at the saved times, for `expectation`: one axis of length K in front."""

    @abstractmethod
    def measure(self, inside: Callable[[Vector], Bool[Array, ""]]) -> tuple[Times, Times]:
        """The probability of a region at the saved times and its standard error, for `probability`."""

    @abstractmethod
    def draw(self, key: Key, n: int) -> Float[Array, "n K d"]:
        """`n` draws from the density at each saved time, for `sample`."""

    @abstractmethod
    def project(self, psi: "WaveFunction | Solution") -> Complex[Array, " K"]:
        r"""$\int \psi_\text{own}^*(t, x)\, \psi(t, x)\, dx$ at the saved times, with a function or with the wave
        function of another solution, for `autocorrelation` and `overlap`; or `raise self.unavailable(...)`."""

    # What follows from it.

    @in_full_precision
    def std(self) -> Float[Array, "K d"]:
        """Standard deviation of each coordinate at the saved times, shape `(K, d)`."""
        return jnp.sqrt(jnp.diagonal(self.covariance(), axis1=1, axis2=2))

    @in_full_precision
    def expectation(self, f: Callable[..., PyTree], *, with_time: bool = False) -> PyTree:
        r"""The mean of a function over the density, $E_\rho f$, at the saved times.

        ```python
        solution.expectation(lambda x: x**4)  # shape (K, d)
        swing = lambda t, x: jnp.cos(t) * x[0]
        solution.expectation(swing, with_time=True)  # shape (K,)
        ```

        **Arguments:**

        - `f`: a smooth function `f(x)` of one position, shape `(d,)`; an array or a pytree of arrays. For a
            function that jumps, use `probability`.
        - `with_time`: whether it is `f(t, x)`.

        **Returns:** what `f` returns, with an axis of length K in front.

        **Raises:** `ValueError` if `f` cannot be evaluated at one position.
        """
        g = f if with_time else lambda t, x: f(x)
        check_observable(self, g, "f(t, x)" if with_time else "f(x)")
        return self.average(g)

    @in_full_precision
    def probability(
        self, inside: Callable[[Vector], Bool[ArrayLike, ""]], *, with_error: bool = False
    ) -> Times | tuple[Times, Times]:
        """The probability of a region at the saved times, shape `(K,)`.

        ```python
        solution.probability(lambda x: x[0] > 0)
        p, error = solution.probability(lambda x: x @ x < 1, with_error=True)
        ```

        Quadrature particles cannot integrate a step. The probability is therefore found from the density, or from
        8,192 scrambled Sobol points that the flow moves, in eight independent sets whose scatter gives the error.

        **Arguments:**

        - `inside`: a function of one position, shape `(d,)`, that returns whether it lies in the region.
        - `with_error`: whether to return the standard error as well, shape `(K,)`. It does not include what is
            wrong with the solution itself.

        **Raises:** `ValueError` if `inside` does not return one truth value;
        [`ParticlesLostError`][bohmdiff.ParticlesLostError] if a moved point is lost.
        """
        if not callable(inside):
            raise ValueError(f"inside must be a function of one position, but {inside!r} was given.")
        out = check_observable(self, lambda t, x: inside(x), "inside(x)")
        if getattr(out, "shape", None) != () or not jnp.issubdtype(out.dtype, jnp.bool_):
            raise ValueError(
                f"inside(x) must return True or False for one position x of shape ({self.problem.dimension},), "
                f"such as x[0] > 0, but it returned {out}."
            )
        p, error = self.measure(lambda x: jnp.asarray(inside(x)))
        return (p, error) if with_error else p

    @in_full_precision
    def score(self, t: Time, x: Numbers) -> Vector:
        r"""$\nabla\ln\rho(t, x)$ at one point, shape `(d,)`.

        `t` must lie in `[t0, t1]`: a `ValueError` where its value is known, NaN where it is traced.
        """
        return self._evaluated(self.score_at, t, x)

    def as_score(self) -> AbstractScore:
        """The score as a module: `fitted`, if the solution declares one as an `AbstractFitted`."""
        return self.fitted if isinstance(self, AbstractFitted) else SolutionScore(self)

    @in_full_precision
    def velocity(self, t: Time, x: Numbers) -> Vector:
        r"""The Bohmian velocity $v_i = \partial_i S / m_i$ at one point, shape `(d,)`; times as for `score`."""
        return self._evaluated(self.velocity_at, t, x)

    @in_full_precision
    def log_density(self, t: Time, x: Numbers) -> Scalar:
        r"""$\ln\rho(t, x)$ at one point; times as for `score`."""
        return self._evaluated(self.log_density_at, t, x)

    @in_full_precision
    def wave_function(self, t: Time, x: Numbers) -> Complex[Array, ""]:
        r"""$\psi(t, x)$ at one point; times as for `score`."""
        return self._evaluated(self.wave_function_at, t, x)

    @in_full_precision
    def trajectories(self, x0: Numbers) -> Paths:
        """The Bohmian paths of particles at the saved times, shape `(M, K, d)`.

        ```python
        solution.trajectories([[1.0, 0.0], [1.5, 0.0]])
        ```

        **Arguments:**

        - `x0`: where they start at `t0`, shape `(M, d)`.

        **Raises:** `ValueError` for a wrong shape; [`ParticlesLostError`][bohmdiff.ParticlesLostError] if a path
        becomes infinite or NaN. Under `jax.jit` all positions are NaN then.
        """
        x0 = as_positions(x0, self.problem.dimension).astype(self.ts.dtype)
        return require_finite_paths(self.move(x0), self.ts)

    @in_full_precision
    def sample(self, key: Key, n: int) -> Float[Array, "n K d"]:
        """`n` draws from the density at each saved time, shape `(n, K, d)`.

        ```python
        solution.sample(jax.random.key(0), 100)[:, -1]
        ```

        **Raises:** `ValueError` if `n` is not an integer of at least 1.
        """
        n = as_positive_integer(n, "n", "Pass the number of draws at each time.")
        return self.draw(as_key(key), n)

    @in_full_precision
    def overlap(self, other: "Solution") -> Complex[Array, " K"]:
        r"""$\langle\psi|\psi_\text{other}\rangle$ at the saved times of this solution, shape `(K,)`.

        ```python
        finer = bd.solve(problem, bd.SplitOperator(54, -5.5, 7.5))
        abs(exact.overlap(finer)) ** 2  # the fidelity
        ```

        One of the two needs its wave function everywhere; of the other it is enough to know ψ on its particles.
        Then the overlap is a mean over these particles, as accurate as their density and phase.

        **Arguments:**

        - `other`: a solution of the same number of coordinates, whose span contains the saved times.

        **Raises:** `ValueError` if `other` is no such solution;
        [`UnavailableError`][bohmdiff.UnavailableError] if none of them has a wave function.
        """
        other = as_solution(other, "other")
        if other.problem.dimension != self.problem.dimension:
            raise ValueError(
                f"other must have {self.problem.dimension} coordinates as this solution has, but it has "
                f"{other.problem.dimension}."
            )
        try:
            return self.project(other)
        except UnavailableError:
            known = is_concrete((self.ts, other.ts, other.problem.t0, other.problem.t1))
            if not (known and same_times(self, other)):
                raise
            return jnp.conj(other.project(self))

    @in_full_precision
    def autocorrelation(self) -> Complex[Array, " K"]:
        r"""$\langle\psi(t_0)|\psi(t)\rangle$ at the saved times, shape `(K,)`.

        Its Fourier transform is the spectrum of the initial state. It needs ψ on the particles at least, and
        is then as accurate as their density and phase.

        **Raises:** [`UnavailableError`][bohmdiff.UnavailableError] if the solution has no wave function.
        """
        return jnp.conj(self.project(InitialWaveFunction(self.problem)))

    @in_full_precision
    def to_xarray(
        self, *, units: Units = ATOMIC, observables: dict[str, Any] | None = None
    ) -> xarray.Dataset:
        """Moments, energy and other observables as labelled data, with the problem's parameters as attributes.

        ```python
        solution.to_xarray()["std"].sel(coordinate=0).plot()
        solution.to_xarray(
            observables={"quartic": lambda x: jnp.sum(x**4)}
        ).to_netcdf("solution.nc")
        ```

        **Arguments:**

        - `units`: of means, widths, energies and times, [`Units`][bohmdiff.Units]; atomic units if not given.
            Observables and attributes stay in the units of the problem.
        - `observables`: functions `f(x)` by name, whose expectation values are added.

        **Returns:** an `xarray.Dataset` with `mean` and `std` over `(time, coordinate)`, `energy` over
        `(time,)` and each observable over `(time, ...)`; complex ones as two variables, `name_real` and
        `name_imag`. Its attributes are text, numbers and lists of numbers:

        - `bohmdiff_version`, `dtype`, `dimension`;
        - `method` and `potential`, as text with all options; of a potential that is a function, its name;
        - `mass`, `hbar`, `t0`, `t1`;
        - `initial`, the type of the initial state, and each of its parameters, such as `initial_mean` and
            `initial_covariance`; matrices are written row by row, and lists of one as a number.

        **Raises:** `ValueError` if `units` are not `Units` or do not fit the problem, or an observable cannot be
        evaluated.
        """
        dataset = moments_dataset(
            np.asarray(self.mean()),
            np.asarray(self.std()),
            np.asarray(self.energy()),
            np.asarray(self.ts),
            {name: np.asarray(self.expectation(f)) for name, f in (observables or {}).items()},
            as_units(units, self.problem.hamiltonian.hbar),
        )
        return dataset.assign_attrs(attributes(self.problem, self.method))

    @in_full_precision
    def save(self, path: str | Path) -> None:
        """Writes the whole solution to a NetCDF file, from which [`load`][bohmdiff.load] restores it.

        ```python
        solution.save("solution.nc")
        again = bd.load("solution.nc")
        ```

        Functions of your own, such as a potential that is a plain function, are not written, only their values at
        fixed places: pass them to [`load`][bohmdiff.load] again.

        **Raises:** `ValueError` if the file cannot be written, or the solution is traced.
        """
        from ._file import save

        save(self, path)

    def unavailable(self, what: str, instead: str) -> UnavailableError:
        """The error for a quantity that cannot be given: `raise self.unavailable("wave_function", "Use ...")`."""
        return UnavailableError(f"A solution by {type(self.method).__name__} has no {what}. {instead}")

    @in_full_precision
    def __repr__(self) -> str:
        title = f"{type(self).__name__} by {type(self.method).__name__}"
        if not is_concrete(self):
            return f"{title} (traced)"
        times, moments = np.asarray(self.ts, float), (self.mean()[-1], self.std()[-1])
        mean, std = (_short(values) for values in moments)
        failed = self.diagnostics.failed()
        says = ", ".join(f"{name} {figure}" for name, figure in failed.items())
        until = float(self.diagnostics.valid_until)
        if failed and np.isfinite(until):
            says += f"; trusted until t = {until:.5g}"
        return "\n".join(
            [
                title,
                f"  problem: {self.problem}",
                f"  saved: {times.size} times in [{times[0]:.5g}, {times[-1]:.5g}]",
                f"  at t = {times[-1]:.5g}: mean {mean}, std {std}, energy {float(self.energy()[-1]):.6g}",
                f"  diagnostics: {says if says else f'{len(self.diagnostics)} within their limits'}",
            ]
        )

    def _evaluated(self, function: Callable[[Scalar, Vector], Array], t: Time, x: Numbers) -> Array:
        t, x, inside = self._placed(t, x)
        value = function(t, x)
        return value if inside is None else jnp.where(inside, value, jnp.nan)

    def _placed(self, t: Time, x: Numbers) -> tuple[Scalar, Vector, Bool[Array, ""] | None]:
        """A time and one point, checked, and whether the time lies in the span where that is not known yet."""
        d, dtype, start, end = self.problem.dimension, self.ts.dtype, self.problem.t0, self.problem.t1
        for name, value in (("t", t), ("x", x)):
            if is_concrete(value):
                as_real_array(value, name)
        if np.shape(t) != () or np.shape(x) != (d,):
            raise ValueError(
                f"t must be a number and x one point of shape ({d},), but shapes {np.shape(t)} and "
                f"{np.shape(x)} were given. For many points, use jax.vmap."
            )
        x = jnp.asarray(x, dtype)
        # A time that is known stays known inside of jit.
        known = is_concrete((t, start, end))
        with jax.ensure_compile_time_eval() if known else contextlib.nullcontext():
            t = jnp.asarray(t, dtype)
            # Times that were computed elsewhere may miss the ends of the span by rounding.
            slack = 8 * float(jnp.finfo(dtype).eps) * jnp.maximum(jnp.abs(start), jnp.abs(end))
            inside = (t >= start - slack) & (t <= end + slack)
            # Not jnp.clip, which halves derivatives in t at the ends.
            within = jnp.where(t < start, start, jnp.where(t > end, end, t)).astype(dtype)
        if not is_concrete(inside):
            return within, x, inside
        if not bool(inside):
            raise ValueError(
                f"t must lie in [t0, t1] = [{describe(start)}, {describe(end)}], but {describe(t)} was given."
            )
        return within, x, None


def same_times(one: Solution, other: Solution) -> bool:
    """Whether both are saved at the same times, up to rounding and a tiny part of the span."""
    if one.ts.shape != other.ts.shape:
        return False
    first, second = np.asarray(one.ts, float), np.asarray(other.ts, float)
    rounding = 8 * max(float(np.finfo(ts.dtype).eps) for ts in (one.ts, other.ts))
    span = float(other.problem.t1 - other.problem.t0)
    slack = rounding * np.max(np.abs(second)) + _TINY_PART * span
    return bool(np.all(np.abs(first - second) <= slack))


class AbstractFitted(eqx.Module):
    """A solution that has its score as a module of its own, which is cheaper than `solution.score`."""

    fitted: eqx.AbstractVar[AbstractScore]


class SolutionScore(AbstractGradientScore):
    """The score of a solution, as a module; NaN outside of its span."""

    solution: Solution

    def __call__(self, t: Time, x: Vector) -> Vector:
        return self.solution.score(t, x)

    def log_density(self, t: Time, x: Vector) -> Scalar:
        return self.solution.log_density(t, x)


def check_observable(solution: Solution, f: Callable[[Scalar, Vector], PyTree], name: str) -> Any:
    """The shapes that `f` returns for one position."""
    d, dtype = solution.problem.dimension, solution.ts.dtype
    place = (jax.ShapeDtypeStruct((), dtype), jax.ShapeDtypeStruct((d,), dtype))
    try:
        out = eqx.filter_eval_shape(lambda t, x: jax.tree.map(jnp.asarray, f(t, x)), *place)
    except Exception as error:
        raise ValueError(
            f"{name} could not be evaluated with x of shape ({d},): {reason(error)}"
        ) from error
    if not jax.tree.leaves(out):
        raise ValueError(f"{name} must return an array or a pytree of arrays, but it returned {out!r}.")
    return out


def _short(values: Array) -> str:
    text = np.array2string(np.asarray(values), precision=4, separator=", ", threshold=8, edgeitems=3)
    return text.replace("\n", "")


def as_solution(solution: Any, name: str) -> Solution:
    """`solution`, if it is one."""
    if not isinstance(solution, Solution):
        raise ValueError(
            f"{name} must be a solution, as solve returns, but {type(solution).__name__} was given."
        )
    return solution


def wave_function_of(psi: WaveFunction | Solution) -> WaveFunction:
    """A function of time and place, also of a solution."""
    return psi.wave_function if isinstance(psi, Solution) else psi
