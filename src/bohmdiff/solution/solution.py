"""What every method returns."""

from abc import abstractmethod
from typing import Any, NoReturn

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import xarray
from jaxtyping import Array, Complex, Float

from .._check import as_real_array, describe, is_concrete, require
from .._types import Key, Scalar, Time, Times, Vector
from ..problem import Problem
from ..units import ATOMIC, Units
from ._export import attributes, moments_dataset


class Solution(eqx.Module):
    """The time-dependent wave function of a [`Problem`][bohmdiff.Problem], as one method sees it.

    ```python
    solution.mean(), solution.std(), solution.energy()
    solution.sample(key, 100)[:, -1]
    jax.vmap(lambda x: solution.log_density(1.0, x))(x0)
    ```

    Every method returns one with the same contents; what a method cannot give raises an
    [`UnavailableError`][bohmdiff.UnavailableError] that names the method and what can.
    """

    problem: eqx.AbstractVar[Problem]
    method: eqx.AbstractVar[eqx.Module]
    ts: eqx.AbstractVar[Times]

    @abstractmethod
    def mean(self) -> Float[Array, "K d"]:
        r"""$E_\rho\, x_i$ at the saved times, shape `(K, d)`."""

    @abstractmethod
    def std(self) -> Float[Array, "K d"]:
        r"""Standard deviation of each coordinate at the saved times, shape `(K, d)`."""

    @abstractmethod
    def energy(self) -> Times:
        r"""$\langle H \rangle$ at the saved times, shape `(K,)`."""

    @abstractmethod
    def sample(self, key: Key, n: int) -> Float[Array, "n K d"]:
        r"""`n` draws from the density at every saved time, shape `(n, K, d)`."""

    @abstractmethod
    def score(self, t: Time, x: Vector) -> Vector:
        r"""$\nabla\ln\rho(t, x)$ at one point, shape `(d,)`."""

    @abstractmethod
    def log_density(self, t: Time, x: Vector) -> Scalar:
        r"""$\ln\rho(t, x)$ at one point."""

    @abstractmethod
    def wave_function(self, t: Time, x: Vector) -> Complex[Array, ""]:
        r"""$\psi(t, x)$ at one point."""

    def to_xarray(self, *, units: Units = ATOMIC) -> xarray.Dataset:
        """Moments and energy as labelled data, with the problem's parameters as attributes.

        ```python
        solution.to_xarray()["std"].sel(coordinate=0).plot()
        solution.to_xarray().to_netcdf("solution.nc")  # xarray.open_dataset reads it
        ```

        **Arguments:**

        - `units`: what the problem is written in, [`Units`][bohmdiff.plot.Units]; atomic units if not given.

        **Returns:** an `xarray.Dataset` with `mean` and `std` over `(time, coordinate)` and `energy` over
        `(time,)`, each with `units` and a `long_name`. Its attributes are text, numbers and lists of numbers:

        - `bohmdiff_version`, `dtype`, `dimension`;
        - `method` and `potential`, as text with all options; of a potential that is a function, its name;
        - `mass`, `hbar`, `t0`, `t1`;
        - `initial`, the type of the initial state, and each of its parameters, such as `initial_mean` and
            `initial_covariance`; matrices are written row by row, and lists of one as a number.

        **Raises:** `ValueError` if `units` are not `Units`.
        """
        dataset = moments_dataset(
            np.asarray(self.mean()),
            np.asarray(self.std()),
            np.asarray(self.energy()),
            np.asarray(self.ts),
            units,
        )
        return dataset.assign_attrs(attributes(self.problem, self.method))

    def _unavailable(self, what: str, instead: str) -> NoReturn:
        raise UnavailableError(f"A solution by {type(self.method).__name__} has no {what}. {instead}")


def place(problem: Problem, t: Time, x: Vector) -> tuple[Time, Vector]:
    """A time and one point, checked: their values only where they are known."""
    if is_concrete((t, x)):
        as_real_array(t, "t")
        x = as_real_array(x, "x")
    d = problem.dimension
    if jnp.shape(t) != () or jnp.shape(x) != (d,):
        raise ValueError(
            f"t must be a number and x one point of shape ({d},), but shapes {jnp.shape(t)} and "
            f"{jnp.shape(x)} were given. For many points, use jax.vmap."
        )
    return t, x


def within_span(problem: Problem, t: Time) -> Time:
    """A time between the start and the end; one that is traced is taken on trust, inside loops."""
    start, end = problem.t0, problem.t1
    if is_concrete((t, start, end)):
        slack = 1e-6 * (end - start)
        require(
            t,
            (t >= start - slack) & (t <= end + slack),
            f"t must lie in [t0, t1] = [{describe(start)}, {describe(end)}], but {describe(t)} was given.",
        )
    return t


def as_solution(solution: Any, name: str) -> Solution:
    """`solution`, if it is one."""
    if not isinstance(solution, Solution):
        raise ValueError(
            f"{name} must be a solution, as solve returns, but {type(solution).__name__} was given."
        )
    return solution
