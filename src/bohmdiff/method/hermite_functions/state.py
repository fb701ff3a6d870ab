"""A state in a basis of Hermite functions, as an initial state."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr
from jaxtyping import Array, Complex, DTypeLike, Float

from ..._precision import in_full_precision
from ..._types import Key, Points, Scalar, Vector, Weights
from ...wavepacket import AbstractDesign, AbstractStateWithNodes
from ._evaluate import moments, placed, psi_and_gradient
from ._index import Quanta
from ._operator import Coefficients, Frame


class HermiteState(AbstractStateWithNodes):
    r"""$\psi = \sum_k c_k \varphi_k(x)$ with products of Hermite functions: a stationary state, or what a
    [`HermiteSolution`][bohmdiff.HermiteSolution] is at one time.

    ```python
    ground = bd.ground_state(hamiltonian, bd.HermiteFunctions(), dimension=2)
    ground.energy, ground.energy_error, ground.mean()
    kick = lambda t, x: -0.1 * jnp.exp(-((t - 1.0) ** 2)) * x[0]
    driven = bd.Problem(hamiltonian + kick, ground, t1=2.0)
    later = bd.solve(driven, bd.HermiteFunctions())
    ```

    It may have nodes, so that only methods that expand or propagate ψ itself take it, unless it is a ground
    state. Particles of a design are placed by the distribution of one coordinate after the other.

    - `energy`: $\langle H\rangle$ of a stationary state, otherwise NaN.
    - `energy_error`: a bound of its error, the norm of $(H - E)\psi$; otherwise NaN.
    - `coefficients`: real and imaginary parts, shape `(2, N)`.
    """

    quanta: Quanta = eqx.field(static=True)
    frame: Frame
    coefficients: Coefficients
    hbar: Scalar
    energy: Scalar
    energy_error: Scalar
    ground: bool = eqx.field(static=True)

    @property
    def dimension(self) -> int:
        return self.quanta.dimension

    @property
    def dtype(self) -> DTypeLike:
        return self.coefficients.dtype

    @property
    def nodeless(self) -> bool:
        return self.ground

    def wave_function(self, x: Vector) -> Complex[Array, ""]:
        """ψ(x) at one point."""
        psi, _ = self._at(x)
        return jax.lax.complex(psi[0], psi[1])

    def log_density(self, x: Vector) -> Scalar:
        psi, _ = self._at(x)
        return jnp.log(jnp.maximum(jnp.sum(psi**2), jnp.finfo(psi.dtype).tiny))

    def phase(self, x: Vector) -> Scalar:
        psi, _ = self._at(x)
        if self.ground:
            return jnp.zeros((), psi.dtype)
        return self.hbar * jnp.arctan2(psi[1], psi[0])

    @in_full_precision
    def mean(self) -> Vector:
        """The mean position, shape `(d,)`."""
        return moments(self.quanta, self.frame, self.coefficients).mean

    @in_full_precision
    def std(self) -> Vector:
        """The standard deviation of each coordinate, shape `(d,)`."""
        covariance = moments(self.quanta, self.frame, self.coefficients).covariance
        return jnp.sqrt(jnp.diagonal(covariance))

    @in_full_precision
    def particles(self, design: AbstractDesign, key: Key | None = None) -> tuple[Points, Weights]:
        normal, weights = design(self.dimension, key)
        uniform = ndtr(jnp.asarray(normal, self.dtype))
        points = placed(self.quanta, self.frame, self.coefficients, uniform)
        return points, jnp.asarray(weights, self.dtype)

    def _at(self, x: Vector) -> tuple[Float[Array, "2"], Float[Array, "d 2"]]:
        psi, gradient = psi_and_gradient(self.quanta, self.frame, self.coefficients, x[None])
        return psi[:, 0], gradient[:, :, 0]
