"""Sequential score matching: fit the score to the particles at every force, and move on."""

from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jaxtyping import Array

from ..._check import as_positive_integer, describe, is_concrete
from ..._errors import DegenerateFitError
from ..._types import Key, Points, Scalar, Times, Vector, Weights
from ...flow import check_integration, hermite_acceleration, integrate, require_finite
from ...problem import Problem
from ...score import (
    AbstractBasis,
    HermiteScore,
    TotalDegree,
    cubic_path,
    default_trust_radius,
    fit_hermite,
    hermite_polynomials,
)
from ...solver import BlanesMoan4
from ...wavepacket import AbstractDesign, as_design, default_design
from ..method import AbstractMethod
from .solution import EnsembleSolution

# Few coordinates afford more Gauss–Hermite nodes than exactness asks for, and a density that splits or
# bends needs them: nodes per axis, by dimension.
_DEFAULT_NODES = {1: 200, 2: 32, 3: 12}


class TooFewParticlesError(ValueError):
    """There are fewer particles than basis functions."""


class SequentialScoreMatching(AbstractMethod):
    r"""Fits a polynomial score to all particles at every evaluation of the force.

    In a frame that moves and breathes with the ensemble, $\ln\rho$ is a Gaussian plus Hermite
    polynomials up to a total degree, found by implicit score matching: a small linear system in the
    particles' positions alone. Particles and fit together are a Hamiltonian system, so a symplectic
    solver keeps the energy. There is no training and no loss; the degree is what limits the accuracy.

    ```python
    solution = bd.solve(problem, bd.SequentialScoreMatching(degree=4))
    solution.mean(), solution.std(), solution.energy()
    ```

    **Arguments:**

    - `degree`: total degree of the polynomial, at least 2; 2 is a Gaussian wave packet whose width
        follows the ensemble.
    - `particles`: a design of initial points such as
        [`GaussHermitePoints(6)`][bohmdiff.GaussHermitePoints], or a number of scrambled Sobol points,
        which need a `key`. If not given: a pruned Gauss–Hermite grid with `degree + 2` nodes per axis, and
        at least 200, 32 and 12 in one, two and three dimensions, while that is at most 20,000 points,
        otherwise 16,384 Sobol points.
    - `steps`: equal steps from `t0` to `t1`.
    - `solver`: any of the symplectic solvers.
    - `trust_radius`: beyond that many standard deviations from the centre of the ensemble
        the polynomial correction's force no longer grows, so that particles in the far tail, where
        nothing determines a polynomial, stay finite. `math.inf` switches it off. If not given, 6, or
        $4 + \sqrt d$ in more than four dimensions, where the bulk of the particles is at $\sqrt d$.
    - `basis`: which polynomials of that degree. In many coordinates there are too many of them, and
        [`Interactions(2, reach=1)`][bohmdiff.Interactions], pairs of neighbours, or
        [`HyperbolicCross()`][bohmdiff.HyperbolicCross] leave few.

    **Units:** those of the problem; `trust_radius` counts standard deviations. Moments have the shape `(K, d)`.

    **Raises:** `ValueError` for bad options and for fewer particles than basis functions;
    [`DegenerateFitError`][bohmdiff.DegenerateFitError] if the linear system becomes singular on the way.

    ??? cite "References"

        A. Hyvärinen, J. Mach. Learn. Res. 6, 695 (2005), for score matching;
        S. Garashchuk and V. A. Rassolov, J. Chem. Phys. 118, 2482 (2003) and 120, 1181 (2004), for
        energy-conserving fits of the quantum potential.
    """

    degree: int = 4
    particles: int | AbstractDesign | None = None
    steps: int = 64
    solver: diffrax.AbstractSolver = BlanesMoan4()
    trust_radius: float | None = None
    basis: AbstractBasis = TotalDegree()

    def __check_init__(self):
        as_positive_integer(self.degree, "degree", "Pass the total degree of the polynomial.")
        if self.degree < 2:
            raise ValueError(
                f"degree must be at least 2, which describes a Gaussian, but {self.degree} was given."
            )
        check_integration(self.solver, self.steps)
        if self.particles is not None:
            as_design(self.particles, "particles")
        if not isinstance(self.basis, AbstractBasis):
            raise ValueError(f"basis must be a rule such as Interactions(2), but {self.basis!r} was given.")
        if self.trust_radius is not None and not self.trust_radius > 0:
            raise ValueError(f"trust_radius must be positive, but {self.trust_radius!r} was given.")

    def design(self, dimension: int) -> AbstractDesign:
        """The design of initial points that is used in `dimension` coordinates."""
        if self.particles is None:
            return default_design(dimension, max(self.degree + 2, _DEFAULT_NODES.get(dimension, 0)))
        return as_design(self.particles, "particles")

    def trust_radius_in(self, dimension: int) -> float:
        """The trust radius that is used in `dimension` coordinates."""
        if self.trust_radius is None:
            return default_trust_radius(dimension)
        return self.trust_radius

    def run(self, problem: Problem, ts: Times, *, key: Key | None, progress: bool) -> EnsembleSolution:
        dimension = problem.dimension
        x0, weights = problem.initial.particles(self.design(dimension), key)
        functions = hermite_polynomials(dimension, self.degree, self.basis).size
        if x0.shape[0] < functions:
            raise TooFewParticlesError(
                f"{x0.shape[0]} particles cannot determine the {functions} basis functions of degree "
                f"{self.degree} in {dimension} dimensions: pass more particles, best several times as "
                "many, or a lower degree."
            )
        x0 = require_finite(problem, problem.hamiltonian.potential, x0, "potential")
        saved, path, condition_numbers = _run(problem, self, x0, weights, ts, progress)
        _refuse_degenerate(self, problem, functions, path.ts, condition_numbers, saved)
        return EnsembleSolution(
            problem=problem,
            method=self,
            ts=ts,
            fitted=HermiteScore(path),
            condition_number=saved.condition_number,
            farthest=saved.farthest,
            solver=self.solver,
            steps=self.steps,
            particles=x0.shape[0],
            _mean=saved.mean,
            _std=saved.std,
            _energy=saved.energy,
        )


class _Saved(NamedTuple):
    mean: Vector
    std: Vector
    energy: Scalar
    condition_number: Scalar
    farthest: Scalar


@eqx.filter_jit
def _run(
    problem: Problem,
    method: SequentialScoreMatching,
    x0: Points,
    weights: Weights,
    ts: Times,
    progress: bool,
) -> tuple[_Saved, diffrax.CubicInterpolation, Array]:
    hamiltonian = problem.hamiltonian
    mass = hamiltonian.masses(problem.dimension)

    trust_radius = method.trust_radius_in(problem.dimension)

    def fit(x: Points):
        return fit_hermite(x, weights, mass, method.degree, trust_radius, method.basis)

    def kick(t: Any, x: Points, args: Any) -> Points:
        return hermite_acceleration(hamiltonian, fit(x).expansion, t, x)

    def moments(t: Any, y: tuple[Points, Points], args: Any) -> _Saved:
        x, velocity = y
        fitted = fit(x)
        kinetic = weights @ jax.vmap(hamiltonian.kinetic_energy)(velocity)
        classical = weights @ jax.vmap(hamiltonian.potential, in_axes=(None, 0))(t, x)
        quantum = 0.125 * hamiltonian.hbar**2 * fitted.fisher_information
        centred = x - fitted.expansion.mean
        xi = jsl.solve_triangular(fitted.expansion.cholesky, centred.T, lower=True)
        return _Saved(
            mean=fitted.expansion.mean,
            std=jnp.sqrt(weights @ centred**2),
            energy=kinetic + classical + quantum,
            condition_number=fitted.condition_number,
            farthest=jnp.sqrt(jnp.max(jnp.sum(xi**2, axis=0))),
        )

    def moving_fit(t: Any, y: tuple[Points, Points], args: Any):
        def expansion_and_condition(x: Points):
            fitted = fit(x)
            return fitted.expansion, fitted.condition_number

        # The derivative of the fit along the motion makes its interpolation in time cubic.
        (expansion, condition_number), (rate, _) = jax.jvp(expansion_and_condition, y[:1], y[1:])
        return expansion, rate, condition_number

    velocity0 = jax.vmap(lambda x: problem.initial.velocity(x, hamiltonian.mass))(x0)
    solution = integrate(
        problem,
        (diffrax.ODETerm(lambda t, velocity, args: velocity), diffrax.ODETerm(kick)),
        (x0, velocity0),
        diffrax.SaveAt(
            subs=[
                diffrax.SubSaveAt(ts=ts, fn=moments),
                diffrax.SubSaveAt(t0=True, steps=True, fn=moving_fit),
            ]
        ),
        method.solver,
        method.steps,
        progress=progress,
    )
    assert solution.ts is not None
    assert solution.ys is not None
    saved, (expansions, rates, condition_numbers) = solution.ys
    return saved, cubic_path(solution.ts[1], expansions, rates), condition_numbers


def _refuse_degenerate(
    method: SequentialScoreMatching,
    problem: Problem,
    functions: int,
    ts: Times,
    condition_numbers: Times,
    saved: _Saved,
) -> None:
    """Raises where a fit was singular to working precision, and says when; not under a transformation."""
    if not is_concrete((condition_numbers, saved)):
        return
    limit = 0.1 / float(jnp.finfo(problem.dtype).eps)
    bad = ~(condition_numbers < limit)
    bad = bad.at[-1].set(bad[-1] | ~jnp.all(jnp.isfinite(saved.energy)))
    if not bool(jnp.any(bad)):
        return
    first = int(jnp.argmax(bad))
    raise DegenerateFitError(
        f"The score fit became singular at t = {describe(ts[first])}, in step {first} of {method.steps}: "
        f"the condition number of its {functions - 1} x {functions - 1} linear system is "
        f"{float(condition_numbers[first]):.1e}, and {limit:.0e} is the limit. Either particles ran away "
        "(pass a smaller trust_radius, or a design that reaches less far out), or they are too few "
        "for the basis (pass more particles or a lower degree), or the steps are too long (pass more)."
    )
