"""What a solution knows about its own validity."""

from collections.abc import Iterator, Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._check import is_concrete
from .._types import Scalar, Times
from ..hamiltonian import depends_on_time
from ..problem import Problem

_LARGEST_DRIFT = 0.1


class Figure(eqx.Module):
    """One figure that tells whether a solution can be trusted, and its limit.

    ```python
    figure = solution.diagnostics["energy drift"]
    figure.value, figure.limit, figure.holds
    ```

    **Arguments:**

    - `value`: the figure, a scalar of shape `()`; larger is worse.
    - `limit`: the largest value that is acceptable.
    - `meaning`: one sentence about what is wrong if the figure exceeds its limit.
    - `remedy`: one sentence about what to do then.
    - `time`: when the figure was largest, a scalar, or `None`.
    - `since`: when the figure first exceeded its limit, a scalar, infinite if never, or `None`.

    **Units:** stated in `meaning` where there are any.

    **Raises:** nothing.
    """

    value: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    limit: float = eqx.field(static=True)
    meaning: str = eqx.field(static=True)
    remedy: str = eqx.field(static=True)
    time: Float[Array, ""] | None = None
    since: Float[Array, ""] | None = None

    @property
    def holds(self) -> Bool[Array, ""]:
        """Whether the figure is within its limit; false for NaN."""
        return jnp.asarray(self.value) <= self.limit

    @property
    def exceeded_since(self) -> Float[Array, ""]:
        """Since when the limit is exceeded: infinity if it never is, and minus infinity if no time is known."""
        since = jnp.asarray(-jnp.inf) if self.since is None else self.since
        return jnp.where(self.holds, jnp.inf, since)

    def __str__(self) -> str:
        if not is_concrete((self.value, self.time)):
            return f"traced (limit {self.limit:.1e})"
        when = "" if self.time is None else f" at t = {float(self.time):.5g}"
        return f"{float(self.value):.1e}{when} (limit {self.limit:.1e})"


class Diagnostics(eqx.Module):
    """The figures by which a solution judges itself.

    ```python
    print(solution.diagnostics)
    solution.diagnostics.holds, list(solution.diagnostics)
    ```

    A mapping from names to [`Figure`][bohmdiff.Figure]s. [`solve`][bohmdiff.solve] warns once where a figure
    exceeds its limit; under a transformation of JAX the figures are arrays and nothing is warned.

    **Arguments:**

    - `figures`: a dictionary of figures by name.
    - `ts`, `t1`: the saved times of the solution, shape `(K,)`, and the end of the problem, for `valid_until`.

    **Units:** those of each figure; `valid_until` is a time.

    **Raises:** `KeyError` for a name that is not there.
    """

    figures: dict[str, Figure] = eqx.field(default_factory=dict, converter=lambda f: _as_figures(f))
    ts: Times | None = None
    t1: Scalar | None = None

    @property
    def valid_until(self) -> Float[Array, ""]:
        """Until when the solution can be trusted: `t1` if all figures hold; otherwise the last saved time before
        one exceeds its limit, or minus infinity if there is none. NaN where the times are not known."""
        if self.ts is None or self.t1 is None:
            return jnp.asarray(jnp.nan)
        starts = [figure.exceeded_since for figure in self.figures.values()]
        first = jnp.min(jnp.stack([jnp.asarray(jnp.inf), *starts]))
        before = jnp.max(jnp.where(self.ts < first, self.ts, -jnp.inf))
        return jnp.where(jnp.isinf(first) & (first > 0), self.t1, before)

    @property
    def holds(self) -> Bool[Array, ""]:
        """Whether all figures are within their limits."""
        return jnp.all(jnp.stack([jnp.asarray(True), *(figure.holds for figure in self.figures.values())]))

    def __getitem__(self, name: str) -> Figure:
        return self.figures[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.figures)

    def __len__(self) -> int:
        return len(self.figures)

    def __contains__(self, name: object) -> bool:
        return name in self.figures

    def failed(self) -> dict[str, Figure]:
        """The figures that exceed their limits; those whose values are traced are left out."""
        concrete = {name: figure for name, figure in self.figures.items() if is_concrete(figure.value)}
        return {name: figure for name, figure in concrete.items() if not bool(figure.holds)}

    def __str__(self) -> str:
        if not self.figures:
            return "no diagnostics"
        width = max(map(len, self.figures))
        rows = []
        for name, figure in self.figures.items():
            concrete = is_concrete(figure.value)
            mark = "" if not concrete else "  ok" if bool(figure.holds) else "  EXCEEDED"
            rows.append(f"{name:<{width}}  {figure}{mark}")
        return "\n".join(rows)


def over_time(values: Times, ts: Times, *, limit: float, meaning: str, remedy: str) -> Figure:
    """The figure of the largest of the values at some times."""
    value, time, since = _largest(values, ts, limit)
    return Figure(value, limit, meaning, remedy, time, since)


@jax.jit
def _largest(values: Times, ts: Times, limit: Scalar | float) -> tuple[Scalar, Scalar, Scalar]:
    """The largest value, when it is reached, and when the limit is exceeded first."""
    finite = jnp.where(jnp.isnan(values), jnp.inf, values)
    index = jnp.argmax(finite)
    since = jnp.min(jnp.where(finite > limit, ts, jnp.inf))
    return values[index], ts[index], since


def energy_figure(problem: Problem, ts: Times, energy: Times, kinetic: Times) -> dict[str, Figure]:
    """The change of the mean energy since the first of the times, relative to the largest kinetic energy; nothing
    where the potential depends on time."""
    if depends_on_time(problem.hamiltonian, problem.dimension, problem.dtype):
        return {}
    return {
        "energy drift": over_time(
            _drift(energy, kinetic),
            ts,
            limit=_LARGEST_DRIFT,
            meaning="The mean energy is not conserved, relative to the kinetic energy.",
            remedy="Pass more steps or more particles, or compare with another method.",
        )
    }


@jax.jit
def _drift(energy: Times, kinetic: Times) -> Times:
    return jnp.abs(energy - energy[0]) / jnp.max(jnp.abs(kinetic))


def _as_figures(figures: Mapping[str, Figure]) -> dict[str, Figure]:
    if not isinstance(figures, Mapping) or not all(isinstance(one, Figure) for one in figures.values()):
        raise ValueError(f"figures must be a dictionary of Figure by name, but {figures!r} was given.")
    return dict(figures)
