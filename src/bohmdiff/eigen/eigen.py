"""The second door: stationary states."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._check import as_flag, as_key, as_positive_integer, as_real_array, warn
from .._precision import in_full_precision
from .._types import Key, Numbers
from ..hamiltonian import Hamiltonian, depends_on_time
from ..method import AbstractMethod, AbstractStationaryMethod, StationaryStates
from ..wavepacket import AbstractInitialState


@in_full_precision
def eigenstates(
    hamiltonian: Hamiltonian,
    method: AbstractMethod,
    *,
    count: int,
    dimension: int | None = None,
    near: Numbers | None = None,
    key: Key | None = None,
    progress: bool | None = None,
) -> StationaryStates:
    r"""The lowest eigenstates of a Hamiltonian.

    ```python
    states = bd.eigenstates(
        bd.Hamiltonian(bd.HenonHeiles(0.111803)),
        bd.HermiteFunctions(degree=24),
        count=10,
        dimension=2,
    )
    states.energy, states[1].wave_function(x)
    ```

    **Arguments:**

    - `hamiltonian`: a [`Hamiltonian`][bohmdiff.Hamiltonian] that does not depend on time.
    - `method`: one that finds stationary states: [`HermiteFunctions`][bohmdiff.HermiteFunctions].
    - `count`: how many, the lowest ones.
    - `dimension`: the number of coordinates, where neither the masses nor `near` tell it.
    - `near`: where the search for a minimum of the potential starts, shape `(d,)`; the origin if not given.
    - `key`: for methods that draw at random.
    - `progress`: whether to show progress; not if `None`.

    **Units:** `near` in lengths; energies in those of the potential.

    **Returns:** [`StationaryStates`][bohmdiff.StationaryStates], which warn once where an energy may be wrong.

    **Raises:** `ValueError` for bad input, a potential that depends on time, or a method that finds none.
    """
    if not isinstance(hamiltonian, Hamiltonian):
        raise ValueError(f"hamiltonian must be a Hamiltonian, but {type(hamiltonian).__name__} was given.")
    if not isinstance(method, AbstractStationaryMethod):
        raise ValueError(
            f"method must find stationary states, as HermiteFunctions does, but {method!r} was given."
        )
    count = as_positive_integer(count, "count", "Pass the number of states.")
    shown = progress is not None and as_flag(progress, "progress")
    key = None if key is None else as_key(key)
    start = _near(hamiltonian, dimension, near)
    if depends_on_time(hamiltonian, start.size, start.dtype):
        raise ValueError("A potential that depends on time has no stationary states.")
    states = method.stationary(hamiltonian, start, count, key=key, progress=shown)
    errors = np.asarray(states.energy_error, float)
    wrong = np.flatnonzero(~(errors <= states.tolerance))
    if wrong.size:
        worst = int(np.argmax(np.where(np.isfinite(errors), errors, np.inf)))
        warn(
            f"The energies of {wrong.size} of {count} states by {type(method).__name__} may be wrong by more "
            f"than {states.tolerance:.1e}: that of state {worst} by up to {errors[worst]:.1e}. Pass a larger "
            "degree."
        )
    return states


@in_full_precision
def ground_state(
    hamiltonian: Hamiltonian,
    method: AbstractMethod,
    *,
    dimension: int | None = None,
    near: Numbers | None = None,
    key: Key | None = None,
    progress: bool | None = None,
) -> AbstractInitialState:
    """The ground state of a Hamiltonian.

    ```python
    ground = bd.ground_state(
        bd.Hamiltonian(bd.DoubleWell()), bd.HermiteFunctions(), dimension=1
    )
    ground.energy, ground.energy_error
    ```

    **Arguments:**

    - `hamiltonian`, `method`, `dimension`, `near` of shape `(d,)`, `key`, `progress`: as for
        [`eigenstates`][bohmdiff.eigenstates].

    **Units:** `near` in lengths.

    **Returns:** an initial state, with `energy` and `energy_error`.

    **Raises:** as [`eigenstates`][bohmdiff.eigenstates].
    """
    states = eigenstates(
        hamiltonian, method, count=1, dimension=dimension, near=near, key=key, progress=progress
    )
    return states[0]


def _near(hamiltonian: Hamiltonian, dimension: Any, near: Any) -> Array:
    d = (
        None
        if dimension is None
        else as_positive_integer(dimension, "dimension", "Pass the number of coordinates.")
    )
    start = None if near is None else as_real_array(near, "near")
    if start is not None and start.ndim != 1:
        raise ValueError(f"near must have shape (d,), but shape {start.shape} was given.")
    known = {
        "dimension": d,
        "near": None if start is None else start.size,
        "mass": hamiltonian.mass.size if hamiltonian.mass.ndim else None,
    }
    sizes = {size for size in known.values() if size is not None}
    if not sizes:
        raise ValueError("Neither the masses nor near tell the number of coordinates. Pass dimension=.")
    if len(sizes) > 1:
        given = ", ".join(f"{name} {size}" for name, size in known.items() if size is not None)
        raise ValueError(f"The numbers of coordinates differ: {given}.")
    return jnp.zeros(sizes.pop(), hamiltonian.hbar.dtype) if start is None else start
