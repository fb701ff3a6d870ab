"""The law for methods."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import UnavailableError
from .._types import Key
from ..hamiltonian import Hamiltonian
from ..method import AbstractMethod, solve
from ..problem import Problem
from ..solution import Solution
from .driven_gaussian import DrivenGaussian
from .law import fail

_LAW = "check_method"
_TIMES = (0.0, 0.35, 0.7, 1.0)
_NUMBERS = {"mean": "position", "std": "width", "energy": "energy"}


def check_method(
    method: AbstractMethod | Callable[[Problem], AbstractMethod],
    dimension: int = 1,
    *,
    tolerance: float = 1e-3,
    density_tolerance: float | None = None,
    cases: Sequence[DrivenGaussian] | None = None,
    key: Key | None = None,
) -> None:
    r"""Raises unless a method solves problems with known solutions and fulfils the contract of methods.

    - Moments and energies match those of Gaussians in closed form, and so do scores and densities, if its
      solutions have them; the squared modulus of a wave function is the density.
    - If nothing depends on time, the mean energy is conserved.
    - The same key gives the same solution, to the bit.
    - Times outside the span and a potential that returns NaN raise an exception; a solution of NaN is not
      accepted.

    ```python
    bohmdiff.testing.check_method(
        bd.SequentialScoreMatching(degree=2), dimension=2
    )
    ```

    **Arguments:**

    - `method`: the method, or a function that returns one for a problem.
    - `dimension`: of the built-in cases, 1 to 4, with moments of shape `(K, d)`. One case is bound, squeezed and
        moving; the other is partly inverted, with unequal masses and a drive.
    - `tolerance`: for means and widths in units of the exact width, and for energies relative to one plus the
        exact energy.
    - `density_tolerance`: for the score times the width, and for $\ln\rho$, within a width of the centre; ten
        times the `tolerance` if not given.
    - `cases`: cases to use instead of the built-in ones.
    - `key`: for methods that draw at random; `jax.random.key(0)` if not given.

    **Raises:** [`LawError`][bohmdiff.testing.LawError], whose message has code that reproduces the failure.
    """
    key = jax.random.key(0) if key is None else key
    loose = 10 * tolerance if density_tolerance is None else density_tolerance
    cases = _cases(dimension) if cases is None else list(cases)

    def make(problem: Problem) -> AbstractMethod:
        return method if isinstance(method, AbstractMethod) else method(problem)

    for case in cases:
        problem = case.problem()
        ts = jnp.asarray(_TIMES) * problem.t1
        solution = solve(problem, make(problem), key=key, ts=ts)
        _check_moments(case, solution, tolerance)
        _check_density(case, solution, loose)
        if not np.any(np.asarray(case.drive)):
            _check_conservation(case, solution, tolerance)
    problem = cases[0].problem()
    ts = jnp.asarray(_TIMES) * problem.t1
    _check_repeatable(cases[0], *(solve(problem, make(problem), key=key, ts=ts) for _ in range(2)))
    _check_refusals(problem, make(problem), key)


def _cases(dimension: int) -> list[DrivenGaussian]:
    if not 1 <= dimension <= 4:
        raise ValueError(
            f"dimension must be 1, 2, 3 or 4, but {dimension!r} was given: pass your own cases for more."
        )
    d = dimension
    coupling = 0.2 * (np.eye(d, k=1) + np.eye(d, k=-1))
    zeros = np.zeros(d)
    bound = DrivenGaussian(
        mass=np.ones(d),
        hbar=1.0,
        stiffness=np.eye(d) + coupling,
        centre=zeros,
        drive=zeros,
        frequency=6.0,
        mean=np.linspace(0.5, -0.5, d),
        covariance=0.3 * np.eye(d) + 0.2 * coupling,
        momentum=np.linspace(-0.5, 0.5, d),
        chirp=0.1 * coupling,
    )
    driven = DrivenGaussian(
        mass=np.array([1.0, 2.0, 0.7, 1.5])[:d],
        hbar=0.7,
        stiffness=np.diag([-0.5, 1.0, 0.0, 0.6][:d]) + coupling,
        centre=np.array([0.1, -0.2, 0.0, 0.2])[:d],
        drive=np.array([0.5, -0.3, 0.2, 0.1])[:d],
        frequency=6.0,
        mean=np.array([0.3, 0.0, -0.4, 0.2])[:d],
        covariance=np.diag([0.4, 0.3, 0.5, 0.4][:d]),
        momentum=np.array([0.2, 0.6, 0.0, -0.3])[:d],
        chirp=zeros[:, None] * zeros + 0.1 * np.eye(d),
    )
    return [bound, driven]


def _see(case: DrivenGaussian, then: str) -> str:
    fields = {name: np.asarray(value).tolist() for name, value in vars(case).items()}
    arguments = "".join(f"    {name}={value!r},\n" for name, value in fields.items())
    return (
        f"case = bohmdiff.testing.DrivenGaussian(\n{arguments})\n"
        f"ts = case.t1 * jnp.array({list(_TIMES)})\n"
        f"solution = bd.solve(case.problem(), method, key=jax.random.key(0), ts=ts)\n{then}"
    )


def _check_moments(case: DrivenGaussian, solution: Solution, tolerance: float) -> None:
    exact = case.moments(solution.ts)
    units = {"mean": exact.std, "std": exact.std, "energy": 1 + jnp.abs(exact.energy)}
    for name, unit in units.items():
        ours, theirs = (np.asarray(value) for value in (getattr(solution, name)(), getattr(exact, name)))
        if ours.shape != theirs.shape:
            fail(
                _LAW, f"{name}() has the wrong shape", _see(case, f"solution.{name}()"), shape=str(ours.shape),
                expected=str(theirs.shape),
            )  # fmt: skip
        error = np.max(np.abs(ours - theirs) / np.asarray(unit))
        if not error <= tolerance:
            fail(
                _LAW,
                f"the {_NUMBERS[name]} of a Gaussian is wrong by {error:.1e}; at most {tolerance:.1e} is allowed",
                _see(case, f"solution.{name}(), case.moments(ts).{name}"),
                found=ours,
                exact=theirs,
            )


def _check_density(case: DrivenGaussian, solution: Solution, tolerance: float) -> None:
    t = solution.ts[-1]
    centre, _ = case.centre_at(t)
    width = jnp.sqrt(jnp.diag(case.covariance_at(t)))
    x = centre + width * jnp.linspace(-0.7, 0.9, 3)[:, None]

    def compare(name: str, ours: Any, theirs: Any, unit: Any) -> None:
        found, exact = np.asarray(jax.vmap(ours)(x)), np.asarray(jax.vmap(theirs)(x))
        error = np.max(np.abs(found - exact) * np.asarray(unit))
        if not error <= tolerance:
            fail(
                _LAW,
                f"the {name} of a Gaussian is wrong by {error:.1e}; at most {tolerance:.1e} is allowed",
                _see(case, f"x = jnp.array({np.asarray(x).tolist()})"),
                found=found,
                exact=exact,
            )

    def wave_density(y: jax.Array) -> jax.Array:
        return jnp.log(jnp.abs(solution.wave_function(t, y)) ** 2)

    offers = (
        ("score", lambda y: solution.score(t, y), lambda y: case(t, y), width),
        ("log density", lambda y: solution.log_density(t, y), lambda y: case.log_density(t, y), 1.0),
        ("wave function", wave_density, lambda y: case.log_density(t, y), 1.0),
    )
    for name, ours, theirs, unit in offers:
        try:
            ours(x[0])
        except UnavailableError:
            continue
        compare(name, ours, theirs, unit)


def _check_conservation(case: DrivenGaussian, solution: Solution, tolerance: float) -> None:
    energy = np.asarray(solution.energy())
    drift = np.max(np.abs(energy - energy[0])) / (1 + abs(energy[0]))
    if not drift <= tolerance:
        fail(
            _LAW,
            f"the mean energy drifts by {drift:.1e}; at most {tolerance:.1e} is allowed",
            _see(case, "solution.energy()"),
            energy=energy,
        )


def _check_repeatable(case: DrivenGaussian, one: Solution, other: Solution) -> None:
    for name in _NUMBERS:
        first, second = (np.asarray(getattr(solution, name)()) for solution in (one, other))
        if not np.array_equal(first, second):
            fail(
                _LAW,
                "the same key gave two different solutions",
                _see(case, f"solution.{name}()  # twice"),
                first=first,
                second=second,
            )


def _check_refusals(problem: Problem, method: AbstractMethod, key: Key) -> None:
    def refuses(said: str, see: str, problem: Problem, ts: Any) -> None:
        try:
            solution = solve(problem, method, key=key, ts=ts)
        except Exception as error:
            if isinstance(error, ValueError | RuntimeError) and str(error):
                return
            raise
        fail(_LAW, f"{said} must be refused, but were accepted", see, mean=np.asarray(solution.mean()))

    end = float(problem.t1)
    refuses(
        "times after the end of the span",
        "bd.solve(problem, method, key=key, ts=[2 * problem.t1])",
        problem,
        jnp.array([2 * end]),
    )
    nothing = Hamiltonian(_not_a_number, problem.hamiltonian.mass, problem.hamiltonian.hbar)
    refuses(
        "potentials that return NaN",
        "bad = bd.Hamiltonian(lambda t, x: jnp.nan * jnp.sum(x))\n"
        "bd.solve(bd.Problem(bad, initial, t1), method, key=key)",
        Problem(nothing, problem.initial, problem.t1),
        jnp.array([end]),
    )


def _not_a_number(t: Any, x: jax.Array) -> jax.Array:
    return jnp.nan * jnp.sum(x)
