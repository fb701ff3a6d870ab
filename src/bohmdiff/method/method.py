"""The interface of a method, and `solve`."""

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Float

from .._check import as_flag, as_key, cast_floats, warn
from .._precision import in_full_precision
from .._types import Key, Numbers, Times, Vector
from ..hamiltonian import Hamiltonian
from ..problem import Problem, as_problem, saved_times
from ..solution import Solution
from ..wavepacket import AbstractInitialState, AbstractStateWithNodes


class AbstractMethod(eqx.Module):
    """A way to solve a [`Problem`][bohmdiff.Problem]: an Equinox module that holds its options.

    To write one, subclass this and return a subclass of [`Solution`][bohmdiff.Solution]:

    ```python
    class Frozen(bd.AbstractMethod):
        def run(self, problem, ts, *, key, progress): ...
    ```
    """

    # Whether ψ may have nodes: particles and scores cannot pass them.
    allows_nodes: ClassVar[bool] = False

    @abstractmethod
    def run(self, problem: Problem, ts: Times, *, key: Key | None, progress: bool) -> Solution:
        """Solves `problem` and saves at `ts`, which increase and lie in `[t0, t1]`.

        All floating-point arrays of `problem` and `ts` arrive in the precision `problem.dtype`.
        """


class StationaryStates(eqx.Module):
    """The lowest stationary states of a Hamiltonian, a sequence of initial states.

    ```python
    states = bd.eigenstates(
        hamiltonian, bd.HermiteFunctions(), count=4, dimension=2
    )
    states.energy, states[0].mean(), len(states)
    ```

    - `energy`: shape `(n,)`, increasing.
    - `energy_error`: a bound of the error of each, shape `(n,)`.
    - `tolerance`: what the method was asked for, in units of energy.
    - `states`: the states.
    """

    energy: Float[Array, " n"]
    energy_error: Float[Array, " n"]
    tolerance: float = eqx.field(static=True)
    states: tuple[AbstractInitialState, ...]

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, index: int) -> AbstractInitialState:
        return self.states[index]

    def __iter__(self) -> Iterator[AbstractInitialState]:
        return iter(self.states)


class AbstractStationaryMethod(AbstractMethod):
    """A method that also finds stationary states, for [`eigenstates`][bohmdiff.eigenstates].

    ```python
    isinstance(bd.HermiteFunctions(), bd.AbstractStationaryMethod)
    ```
    """

    @abstractmethod
    def stationary(
        self, hamiltonian: Hamiltonian, near: Vector, count: int, *, key: Key | None, progress: bool
    ) -> StationaryStates:
        """The lowest states, from a search that starts at `near`, shape `(d,)`."""


@in_full_precision
def solve(
    problem: Problem,
    method: AbstractMethod,
    *,
    key: Key | None = None,
    ts: Numbers | None = None,
    progress: bool | None = None,
) -> Solution:
    """Solves a problem by a method.

    ```python
    solution = bd.solve(
        problem, bd.SequentialScoreMatching(degree=4), key=jax.random.key(0)
    )
    solution.std()[-1]
    ```

    **Arguments:**

    - `problem`: the problem to solve.
    - `method`: the method, e.g. [`SequentialScoreMatching`][bohmdiff.SequentialScoreMatching].
    - `key`: for methods and designs of points that make random choices; the same key gives the
        same result.
    - `ts`: increasing times in `[t0, t1]` at which the solution is saved, shape `(K,)`;
        101 equally spaced ones if not given.
    - `progress`: whether to show progress; not if `None`.

    **Units:** those of the problem; `ts` in times.

    **Returns:** a [`Solution`][bohmdiff.Solution].

    **Raises:** `ValueError` for bad input, before any long work starts.
    """
    problem = as_problem(problem)
    if not isinstance(method, AbstractMethod):
        hint = f" Pass an instance: {method.__name__}(...)." if isinstance(method, type) else ""
        raise ValueError(f"method must be a method such as SplitOperator, but {method!r} was given.{hint}")
    if key is not None:
        key = as_key(key)
    initial = problem.initial
    if isinstance(initial, AbstractStateWithNodes) and not (initial.nodeless or method.allows_nodes):
        name = type(initial).__name__
        raise ValueError(
            f"{type(method).__name__} needs an initial state without nodes, but this {name} may have some. Use "
            "HermiteFunctions, or SplitOperator in up to four coordinates."
        )
    problem = cast_floats(problem, problem.dtype)
    shown = progress is not None and as_flag(progress, "progress")
    solution = method.run(problem, saved_times(problem, ts), key=key, progress=shown)
    _warn_of_failed_figures(solution)
    return solution


def _warn_of_failed_figures(solution: Solution) -> None:
    """One warning for all figures with concrete values that exceed their limits."""
    failed = solution.diagnostics.failed()
    if failed:
        said = " ".join(
            f"{name} is {figure}: {figure.meaning} {figure.remedy}" for name, figure in failed.items()
        )
        until = float(solution.diagnostics.valid_until)
        trusted = f" Times up to {until:.5g} can be trusted." if math.isfinite(until) else ""
        warn(f"The solution by {type(solution.method).__name__} may be wrong. {said}{trusted}")
