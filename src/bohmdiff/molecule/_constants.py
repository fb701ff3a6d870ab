"""Force constants as symmetric tensors."""

from collections.abc import Mapping
from itertools import permutations
from typing import Any

import numpy as np

from .._check import as_float, as_real_array, is_concrete


def constants_of(given: Any, d: int, order: int, name: str) -> Any:
    """Force constants of some order as the user gives them: a symmetric array of shape `(d, ...)`."""
    if given is None:
        return np.zeros((d,) * order)
    if isinstance(given, Mapping):
        numbers = {where: as_float(value, f"{name}[{where!r}]") for where, value in given.items()}
        return symmetric(numbers, d, order, name)
    array = as_real_array(given, name)
    if array.shape != (d,) * order:
        raise ValueError(
            f"{name} must have shape {(d,) * order} for {d} frequencies, but shape {array.shape} was given."
        )
    if not is_concrete(array):
        return array
    values = np.asarray(array)
    mirrored = max(np.max(np.abs(values - np.swapaxes(values, k, k + 1))) for k in range(order - 1))
    if mirrored > 1e-5 * np.max(np.abs(values)):
        raise ValueError(
            f"{name} must be symmetric in all its indices, but it changes by up to {mirrored:.3g} when two are "
            "exchanged. Give each constant once, by its indices: {(0, 0, 1): 250.0}."
        )
    return array


def symmetric(constants: Any, d: int, order: int, name: str) -> np.ndarray:
    """The symmetric tensor that has these constants, a mapping from tuples of `order` indices to numbers."""
    tensor = np.zeros((d,) * order)
    given: dict[tuple[int, ...], float] = {}
    for where, value in constants.items():
        indices = tuple(where) if isinstance(where, tuple | list) else (where,)
        whole = all(isinstance(k, int | np.integer) and not isinstance(k, bool) for k in indices)
        if len(indices) != order or not whole or not all(0 <= k < d for k in indices):
            raise ValueError(
                f"The indices of {name} must be {order} whole numbers from 0 to {d - 1}, but {where!r} was given."
            )
        key = tuple(sorted(int(k) for k in indices))
        if key in given and given[key] != value:
            raise ValueError(
                f"{name} has two different values for the indices {key}: {given[key]} and {value}."
            )
        given[key] = value
        for permuted in set(permutations(key)):
            tensor[permuted] = value
    return tensor
