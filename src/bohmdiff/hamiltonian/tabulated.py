"""A potential that is known at the points of a grid."""

from collections.abc import Sequence
from math import factorial
from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray
from jaxtyping import Array, Float
from scipy.interpolate import BSpline, make_interp_spline

from .._check import as_float, as_real_array, is_concrete, is_integer, on_host
from .._precision import in_full_precision
from .._types import Numbers, Scalar, Time, Vector
from .potential import AbstractPotential

_DEGREE = 3
_FEWEST_POINTS = _DEGREE + 1
_MOST_AXES = 4
# Up to here comparing with every point of an axis is faster than a binary search, which is a loop.
_SHORT_AXIS = 256


class TabulatedPotential(AbstractPotential):
    r"""Energies on a grid, joined by a cubic spline that is twice continuously differentiable.

    ```python
    x, y = np.linspace(-5.0, 5.0, 41), np.linspace(-4.0, 4.0, 33)
    table = 0.5 * x[:, None] ** 2 + 0.5 * y**2 + 0.1 * x[:, None] * y**2
    potential = bd.TabulatedPotential([x, y], table)
    ```

    The spline is a tensor product of one-dimensional splines with not-a-knot ends. It passes through every
    point of the table and reproduces cubic polynomials; elsewhere its error falls with the fourth power of the
    spacing. Its third derivatives are finite but jump at the points.

    **Arguments:**

    - `axes`: the points along each coordinate: a sequence of one to four increasing arrays of shape `(n,)` with
        at least four points, equally spaced or not. One array is enough for `d = 1`. They cannot be traced.
    - `values`: the energies, shape `(n1, ..., nd)`. They may be traced: to differentiate a result with respect
        to them, construct the potential inside the function that `jax.grad` differentiates.
    - `outside`: the potential beyond the first and the last point of an axis.
        `"nan"`: energy and force are NaN, so that a calculation fails where a particle or a grid leaves the
        table.
        `"linear"`: along each coordinate the energy continues with the value and the slope at the edge. The
        force is continuous, its derivative is not.
        `"clip"`: the energy at the edge continues, with no force along that coordinate. The force jumps at the
        edge unless the table is flat there.

    With the default no result depends on energies that are not in the table. Choose `"linear"` if a few
    particles in the tails leave a table whose edges rise, and `"clip"` if the table ends on a plateau.

    The potential has the fields

    - `axes`, as above, and `coefficients`: of the products of B-splines, in the shape of the table. The latter
        are the parameters: any coefficients make a twice continuously differentiable potential.

    **Units:** `axes` in length, `values` in energy. Multiply a table in other units by those of
    [`bd.units`](units.md): `bd.TabulatedPotential(r * bd.units.angstrom, energies * bd.units.eV)`.

    **Raises:** `ValueError` for more than four axes, fewer than four points, points that do not increase,
    shapes that do not fit, numbers that are not finite, or traced axes.
    """

    axes: tuple[Float[Array, " _"], ...]
    coefficients: Float[Array, "..."]
    outside: Literal["nan", "linear", "clip"] = eqx.field(static=True)
    # For each interval of an axis, the polynomials of its four B-splines in powers of the distance from its
    # start; and one more at either end, linear or constant: (n + 1, powers, B-splines).
    _pieces: tuple[Float[Array, "_ 4 4"], ...]

    @in_full_precision
    def __init__(
        self,
        axes: Numbers | Sequence[Numbers],
        values: Numbers,
        *,
        outside: Literal["nan", "linear", "clip"] = "nan",
    ):
        if not isinstance(outside, str) or outside not in ("nan", "linear", "clip"):
            raise ValueError(f"outside must be 'nan', 'linear' or 'clip', but {outside!r} was given.")
        values = as_real_array(values, "values")
        points = _points(axes, values.dtype)
        shape = tuple(axis.size for axis in points)
        if values.shape != shape:
            raise ValueError(
                f"values must have one axis per coordinate, of shape {shape} for these axes, but shape "
                f"{values.shape} was given."
            )
        self.axes = tuple(jnp.asarray(axis, values.dtype) for axis in points)
        self.coefficients = _coefficients(points, values)
        self.outside = outside
        self._pieces = tuple(jnp.asarray(_pieces(axis, outside), values.dtype) for axis in points)

    def __call__(self, t: Time, x: Vector) -> Scalar:
        if x.shape != (len(self.axes),):
            raise ValueError(
                f"The table has {len(self.axes)} coordinates, so x must have shape ({len(self.axes)},), but "
                f"shape {x.shape} was given."
            )
        starts, weights = zip(*map(_weights, self.axes, self._pieces, x), strict=True)
        local = jax.lax.dynamic_slice(self.coefficients, starts, (_DEGREE + 1,) * x.size)
        # Sums of products: a GPU would round the factors of `dot` in single precision.
        for weight in reversed(weights):
            local = jnp.sum(local * weight, axis=-1)
        if self.outside == "nan":
            inside = jnp.array(
                [(y >= axis[0]) & (y <= axis[-1]) for axis, y in zip(self.axes, x, strict=True)]
            )
            # A factor makes the derivatives NaN too. Those of `jnp.where` would be zero: no force at all.
            local = local * jnp.where(jnp.all(inside), 1.0, jnp.nan)
        return local

    @property
    def values(self) -> Float[Array, "..."]:
        """The energies at the points of the grid, of shape `(n1, ..., nd)`."""
        values = self.coefficients
        for k, axis in enumerate(self.axes):
            starts, weights = jax.vmap(lambda y, k=k: _weights(self.axes[k], self._pieces[k], y))(axis)
            terms = starts[:, None] + np.arange(_DEGREE + 1)
            near = jnp.take(values, terms, axis=k)
            shape = [1] * near.ndim
            shape[k : k + 2] = weights.shape
            values = jnp.sum(near * weights.reshape(shape), axis=k + 1)
        return values

    @staticmethod
    def from_text(
        path: str | Path,
        *,
        outside: Literal["nan", "linear", "clip"] = "nan",
        length: float = 1.0,
        energy: float = 1.0,
        delimiter: str | None = None,
    ) -> "TabulatedPotential":
        """The table in a text file, with a row `x1 ... xd V` for each point of a complete grid, in any order.

        ```python
        r = np.linspace(0.8, 4.0, 20)
        np.savetxt(
            "curve.txt",
            np.stack([r, 5.0 * (1 - np.exp(1.4 - r)) ** 2], axis=1),
            header="angstrom, eV",
        )
        potential = bd.TabulatedPotential.from_text(
            "curve.txt",
            outside="clip",
            length=bd.units.angstrom,
            energy=bd.units.eV,
        )
        ```

        **Arguments:**

        - `path`: of the file. What follows a `#` is a comment.
        - `outside`: as for the class.
        - `length`, `energy`: the units of the file. Its numbers are multiplied by them.
        - `delimiter`: between the numbers of a row, such as `","`; spaces if not given.

        **Raises:** `ValueError` if the file is no table of numbers, or its rows are no complete grid.
        """
        try:
            rows = np.loadtxt(path, delimiter=delimiter, ndmin=2)
        except ValueError as error:
            raise ValueError(
                f"{path} must have rows x1 ... xd V of numbers, with comments after a #: {error}"
            ) from error
        axes, values = _grid(rows, str(path))
        length, energy = as_float(length, "length"), as_float(energy, "energy")
        return TabulatedPotential([axis * length for axis in axes], values * energy, outside=outside)

    @staticmethod
    def from_xarray(
        data: xarray.DataArray, *, outside: Literal["nan", "linear", "clip"] = "nan"
    ) -> "TabulatedPotential":
        """The table in an `xarray.DataArray` whose dimensions are the coordinates, in their order.

        ```python
        x, y = np.linspace(-3.0, 3.0, 25), np.linspace(-2.0, 2.0, 17)
        table = xarray.DataArray(
            0.5 * x[:, None] ** 2 + y**2, coords={"x": x, "y": y}
        )
        potential = bd.TabulatedPotential.from_xarray(table)
        ```

        **Arguments:**

        - `data`: with a coordinate for each dimension. Numbers are taken as they are: attributes that name
            units are not read.
        - `outside`: as for the class.

        **Raises:** `ValueError` if it is no `DataArray`, or a dimension has no coordinate.
        """
        if not isinstance(data, xarray.DataArray):
            raise ValueError(f"data must be an xarray.DataArray, but {type(data).__name__} was given.")
        missing = [str(name) for name in data.dims if name not in data.indexes]
        if missing:
            raise ValueError(
                f"Each dimension of data must have a coordinate, but {', '.join(missing)} has none. Add it with "
                "assign_coords."
            )
        data = data.sortby(list(data.dims))
        return TabulatedPotential([data[name].values for name in data.dims], data.values, outside=outside)


def _weights(axis: Array, pieces: Array, x: Scalar) -> tuple[Array, Array]:
    """The first of the four B-splines that are not zero at `x`, and the values of the four."""
    n = axis.size
    method = "compare_all" if n <= _SHORT_AXIS else "scan"
    # The last point belongs to the interval before it.
    inside = jnp.searchsorted(axis[:-1], x, side="right", method=method)
    piece = inside + (x > axis[-1])
    u = x - axis[jnp.maximum(piece - 1, 0)]
    c0, c1, c2, c3 = pieces[piece]
    # The first two intervals have the same B-splines, and so have the last two: not-a-knot.
    return jnp.clip(piece - 2, 0, n - _FEWEST_POINTS), c0 + u * (c1 + u * (c2 + u * c3))


def _points(axes: Any, dtype: Any) -> list[np.ndarray]:
    """The points along each axis, in double precision, checked in that of the table."""
    if not is_concrete(axes):
        raise ValueError(
            "axes must be concrete because SciPy makes the spline, but they are traced. values may be traced."
        )
    try:
        given = [on_host(axis, "an axis") for axis in axes]
        for k, axis in enumerate(given):
            if not is_integer(axis.dtype) and not jnp.issubdtype(axis.dtype, jnp.floating):
                raise TypeError(f"axis {k} has dtype {axis.dtype}")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"axes must be a sequence of arrays, one per coordinate, but {axes!r:.200} was given ({error})."
        ) from None
    given = [axis.astype(float) for axis in given]
    if given and all(axis.ndim == 0 for axis in given):
        given = [np.stack(given)]
    if not 1 <= len(given) <= _MOST_AXES:
        raise ValueError(f"axes must be one to {_MOST_AXES} arrays, but {len(given)} were given.")
    for k, axis in enumerate(given):
        if axis.ndim != 1 or axis.size < _FEWEST_POINTS:
            raise ValueError(
                f"Each axis must have shape (n,) with at least {_FEWEST_POINTS} points, but axis {k} has shape "
                f"{axis.shape}."
            )
        if not np.all(np.isfinite(axis)):
            raise ValueError(f"The points of an axis must be finite, but those of axis {k} are not.")
        steps: np.ndarray = np.diff(axis.astype(dtype))
        if not np.all(steps > 0):
            first = int(np.argmin(steps > 0))
            raise ValueError(
                f"The points of an axis must increase, but on axis {k} {axis[first]:.10g} is followed by "
                f"{axis[first + 1]:.10g}."
            )
    return given


def _coefficients(points: list[np.ndarray], values: Array) -> Array:
    """Those of the B-splines that pass through the values, along one axis after the other."""
    if is_concrete(values):
        array = np.asarray(values, float)
        for k, axis in enumerate(points):
            array = make_interp_spline(axis, array, _DEGREE, axis=k).c
            # SciPy puts the axis of the spline first.
            array = np.moveaxis(array, 0, k)
        return jnp.asarray(array, values.dtype)
    array = values
    for k, axis in enumerate(points):
        matrix = make_interp_spline(axis, np.eye(axis.size), _DEGREE).c
        product = jnp.tensordot(jnp.asarray(matrix, values.dtype), array, (1, k), precision="highest")
        array = jnp.moveaxis(product, 0, k)
    return array


def _pieces(axis: np.ndarray, outside: str) -> np.ndarray:
    """The polynomials of the four B-splines on each interval: `(n + 1, 4, 4)`, powers first."""
    n = axis.size
    knots = np.concatenate([axis[[0] * 4], axis[2:-2], axis[[-1] * 4]])
    # On each interval four consecutive B-splines are not zero, so that sums of every fourth hold all of them.
    colours = np.arange(n) % (_DEGREE + 1)
    spline = BSpline(knots, np.eye(_DEGREE + 1)[colours], _DEGREE)
    taylor = np.stack([spline(axis, m) / factorial(m) for m in range(_DEGREE + 1)], axis=1)
    beyond = taylor[[0, -1]]
    beyond[:, 2 if outside == "linear" else 1 :] = 0
    pieces = np.concatenate([beyond[:1], taylor[:-1], beyond[1:]])
    starts = np.clip(np.arange(n + 1) - 2, 0, n - _FEWEST_POINTS)
    order = (starts[:, None] + np.arange(_DEGREE + 1)) % (_DEGREE + 1)
    return np.take_along_axis(pieces, order[:, None, :], axis=2)


def _grid(rows: np.ndarray, name: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Rows `x1 ... xd V` in any order, as axes and a table."""
    d = rows.shape[1] - 1
    if d < 1:
        raise ValueError(f"{name} must have columns x1 ... xd V, but has {d + 1}.")
    if not np.all(np.isfinite(rows)):
        line = int(np.argmin(np.all(np.isfinite(rows), axis=1)))
        raise ValueError(f"{name} must have finite numbers, but row {line + 1} is {rows[line].tolist()}.")
    axes, places = zip(*(np.unique(column, return_inverse=True) for column in rows[:, :d].T), strict=True)
    shape = tuple(axis.size for axis in axes)
    flat = np.ravel_multi_index(places, shape)
    times = np.bincount(flat, minlength=int(np.prod(shape)))
    if np.any(times != 1):
        worst = np.unravel_index(int(np.argmax(times != 1)), shape)
        place = ", ".join(f"{axis[i]:.10g}" for axis, i in zip(axes, worst, strict=True))
        raise ValueError(
            f"The rows of {name} must be a complete grid, {' × '.join(map(str, shape))} points once each, but "
            f"({place}) is there {times[np.ravel_multi_index(worst, shape)]} times."
        )
    values = np.empty(flat.size)
    values[flat] = rows[:, d]
    return list(axes), values.reshape(shape)
