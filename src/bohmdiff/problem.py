"""A problem: a Hamiltonian, an initial state and a span of time."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike

from ._check import OTHER_UNITS, as_real_array, check_output, describe, is_concrete, require
from ._closure import name_of, settled
from ._precision import in_full_precision
from ._types import Numbers, Scalar, Times
from .hamiltonian import Hamiltonian, warn_of_no_force
from .wavepacket import AbstractInitialState

_DEFAULT_SAVED_TIMES = 101
_MANY_STEPS = 1000  # of time


class Problem(eqx.Module):
    r"""The initial-value problem $i\hbar\,\partial_t\psi = H\psi$, $\psi(t_0) = \psi_0$ on $[t_0, t_1]$.

    ```python
    problem = bd.Problem(hamiltonian, initial, t1=jnp.pi)
    ```

    **Arguments:**

    - `hamiltonian`: a [`Hamiltonian`][bohmdiff.Hamiltonian].
    - `initial`: the initial state: a [`GaussianWavePacket`][bohmdiff.GaussianWavePacket], a
        [`GaussianMixture`][bohmdiff.GaussianMixture] or a [`LogDensity`][bohmdiff.LogDensity].
    - `t1`, `t0`: end and start, `t1 > t0`.

    **Units:** `t0` and `t1` in units of time; any consistent set of units.

    **Raises:** `ValueError` if `t1 <= t0`, if the masses do not fit the dimension of the initial state, if the
    potential does not return a real scalar for one particle, or if the units make ħ² too small or too large for
    the precision. Warns of a potential, or a term of one, that depends on `t` but not on `x`, as `V(x, t)` does.
    """

    hamiltonian: Hamiltonian
    initial: AbstractInitialState
    t0: Scalar
    t1: Scalar

    @in_full_precision
    def __init__(
        self,
        hamiltonian: Hamiltonian,
        initial: AbstractInitialState,
        t1: Numbers,
        t0: Numbers = 0.0,
    ):
        if not isinstance(hamiltonian, Hamiltonian):
            raise ValueError(
                f"hamiltonian must be a Hamiltonian, but {type(hamiltonian).__name__} was given. Wrap a "
                "potential: Hamiltonian(potential, mass, hbar)."
            )
        if not isinstance(initial, AbstractInitialState):
            raise ValueError(
                f"initial must be an initial state such as GaussianWavePacket, but "
                f"{type(initial).__name__} was given."
            )
        d, mass = initial.dimension, hamiltonian.mass
        if mass.shape not in ((), (d,)):
            raise ValueError(
                f"The initial state has {d} coordinates, so mass must be a scalar or have shape ({d},), "
                f"but the Hamiltonian's mass has shape {mass.shape}."
            )
        t0, t1 = as_real_array(t0, "t0"), as_real_array(t1, "t1")
        if t0.ndim or t1.ndim:
            raise ValueError(f"t0 and t1 must be scalars, but shapes {t0.shape}, {t1.shape} were given.")
        point = (t0.astype(initial.dtype), jnp.zeros(d, initial.dtype))
        potential = settled(hamiltonian.potential, point)
        # As a function of t and x only, so that an error message refers to the function that the user wrote.
        check_output(lambda t, x: potential(t, x), point, (), "potential")
        warn_of_no_force(potential, d, initial.dtype)
        self.hamiltonian = eqx.tree_at(lambda h: h.potential, hamiltonian, potential)
        self.initial, self.t0 = initial, t0
        self.t1 = require(
            t1,
            t1 > t0,
            f"t1 must be later than t0, but t0 = {describe(t0)} and t1 = {describe(t1)} were given. To go back "
            "in time, solve forward with the phase of the initial state reversed (momentum, chirp and phase "
            "times -1) and with the potential V(t0 - t, x) for t from 0 to t0 - t1.",
        )
        _require_in_range(self)

    @property
    def dimension(self) -> int:
        """The number of coordinates, `d`."""
        return self.initial.dimension

    @property
    def dtype(self) -> DTypeLike:
        """The dtype in which the problem is solved: that of the initial state."""
        return self.initial.dtype

    def __repr__(self) -> str:
        parts = (
            f"{name_of(self.hamiltonian.potential)}, {type(self.initial).__name__}, d = {self.dimension}"
        )
        if not is_concrete((self.t0, self.t1)):
            return f"Problem({parts}, traced)"
        dtype = np.dtype(self.dtype).name
        return f"Problem({parts}, t from {float(self.t0):.6g} to {float(self.t1):.6g}, {dtype})"


def _require_in_range(problem: Problem) -> None:
    """Raises where a product that every method forms is zero or infinite in the precision of the problem."""
    hamiltonian, span = problem.hamiltonian, problem.t1 - problem.t0
    if not is_concrete((hamiltonian.mass, hamiltonian.hbar, span)):
        return
    mass, hbar, step = (
        np.asarray(value, float) for value in (hamiltonian.mass, hamiltonian.hbar, span / _MANY_STEPS)
    )
    products = {"m": mass, "ħ": hbar, "ħ²": hbar**2, "ħ²/m": hbar**2 / mass, "ħ dt": hbar * step}
    limits, dtype = jnp.finfo(problem.dtype), np.dtype(problem.dtype).name
    for name, value in products.items():
        bad = (value < float(limits.tiny)) | (value > float(limits.max))
        if np.any(bad):
            raise ValueError(
                f"{name} = {np.extract(bad, value)[0]:.3g} in the units of the problem, but {dtype} holds only "
                f"numbers between {float(limits.tiny):.1e} and {float(limits.max):.1e}. {OTHER_UNITS}"
            )


def as_problem(problem: Any) -> Problem:
    """`problem`, checked to be a `Problem`."""
    if not isinstance(problem, Problem):
        raise ValueError(f"problem must be a Problem, but {type(problem).__name__} was given.")
    return problem


def saved_times(problem: Problem, ts: Numbers | None) -> Times:
    """The times at which a solution is saved, checked and cast to the dtype of the problem."""
    if ts is None:
        return jnp.linspace(problem.t0, problem.t1, _DEFAULT_SAVED_TIMES, dtype=problem.dtype)
    ts = as_real_array(ts, "ts")
    if ts.ndim != 1 or ts.size == 0:
        raise ValueError(f"ts must have shape (K,) with K >= 1, but shape {ts.shape} was given.")
    given = ts.astype(problem.dtype)
    # Times computed in another precision may differ from t0 or t1 by its rounding error.
    slack = 4 * np.finfo(problem.dtype).eps * jnp.maximum(jnp.abs(problem.t0), jnp.abs(problem.t1))
    inside = jnp.all((given >= problem.t0 - slack) & (given <= problem.t1 + slack))
    span = f"[{describe(problem.t0)}, {describe(problem.t1)}]"
    given = require(given, inside, f"ts must lie in [t0, t1] = {span}, but {describe(ts)} was given.")
    given = require(
        given,
        jnp.all(jnp.diff(given) > 0),
        f"ts must increase strictly, but {describe(ts)} was given.",
    )
    return jnp.clip(given, problem.t0, problem.t1)
