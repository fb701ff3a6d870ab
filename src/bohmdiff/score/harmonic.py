"""The score of a coherent state in the harmonic expansion of the potential."""

import jax
import jax.numpy as jnp

from .._check import cast_floats, describe, require
from .._precision import in_full_precision
from .._types import Matrix, Scalar, Time, Vector
from ..problem import Problem, as_problem
from ..wavepacket import GaussianWavePacket
from .score import AbstractGradientScore


class HarmonicScore(AbstractGradientScore):
    r"""$s = -\tfrac2\hbar\, \Omega\, (x - \bar x(t))$, the coherent state of the harmonic expansion of the
    potential about the initial mean.

    With $K = \nabla\nabla V$ and $\Omega = m^{1/2}(m^{-1/2} K m^{-1/2})^{1/2} m^{1/2}$ its width is that of
    the ground state, and its centre moves like a classical particle that starts at the initial mean.

    ```python
    score = bd.HarmonicScore(problem)
    ```

    **Arguments:**

    - `problem`: for the potential at `t0`, the masses, ħ and the initial mean and momentum. Its initial state
        must be a [`GaussianWavePacket`][bohmdiff.GaussianWavePacket].

    **Units:** 1 / length.

    **Raises:** `ValueError` for any other initial state, and if the potential is not bound in every direction at
    the initial mean.
    """

    precision: Matrix
    frequencies: Vector
    modes: Matrix
    centre: Vector
    displacement: Vector
    rate: Vector
    t0: Scalar

    @in_full_precision
    def __init__(self, problem: Problem):
        problem = cast_floats(as_problem(problem), problem.dtype)
        hamiltonian, initial = problem.hamiltonian, problem.initial
        if not isinstance(initial, GaussianWavePacket):
            raise ValueError(
                "HarmonicScore needs the mean and the momentum of a GaussianWavePacket, but the initial state is "
                f"a {type(initial).__name__}. Use another baseline: baseline=solve(problem, "
                "SequentialScoreMatching())."
            )
        mean = initial.mean
        mass = hamiltonian.masses(problem.dimension)
        root = jnp.sqrt(mass)

        def potential(x: Vector) -> Scalar:
            return hamiltonian.potential(problem.t0.astype(mean.dtype), x)

        curvature = jax.hessian(potential)(mean)
        squared, vectors = jnp.linalg.eigh(curvature / jnp.outer(root, root))
        squared = require(
            squared,
            jnp.all(squared > 0),
            "A harmonic baseline needs a potential that is bound in every direction at the initial mean, "
            f"but the squares of its frequencies there are {describe(squared)}. On a barrier or a plateau "
            "use GaussianDynamics() or SequentialScoreMatching(): baseline=solve(problem, method).",
        )
        self.frequencies = frequencies = jnp.sqrt(squared)
        # Normal modes y with x = centre + R y and Rᵀ m R = 1.
        modes = vectors / root[:, None]
        displacement = -(modes.T @ -jax.grad(potential)(mean)) / squared
        self.modes, self.displacement = modes, displacement
        self.centre = mean - modes @ displacement
        self.rate = modes.T @ initial.momentum
        weighted = root[:, None] * vectors
        self.precision = (2 / hamiltonian.hbar) * (weighted * frequencies[None]) @ weighted.T
        self.t0 = problem.t0.astype(mean.dtype)

    def mean(self, t: Time) -> Vector:
        """The centre at time `t`, shape `(d,)`."""
        w = self.frequencies
        angle = w * (t - self.t0)
        y = self.displacement * jnp.cos(angle) + self.rate * jnp.sin(angle) / w
        return self.centre + self.modes @ y

    def __call__(self, t: Time, x: Vector) -> Vector:
        return -self.precision @ (x - self.mean(t))

    def log_density(self, t: Time, x: Vector) -> Scalar:
        r"""$\ln\rho$ of the coherent state, up to a constant."""
        y = x - self.mean(t)
        return -0.5 * y @ self.precision @ y
