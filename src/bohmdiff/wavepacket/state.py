"""The interface of an initial state ψ0 = √ρ0 exp(i S0/ħ), given by ln ρ0 and S0."""

from abc import abstractmethod

import equinox as eqx
import jax
from jaxtyping import Complex, DTypeLike, Float

from .._types import Key, Matrix, Points, Scalar, Vector, Weights
from .design import AbstractDesign


class AbstractInitialState(eqx.Module):
    r"""A nodeless wave function $\psi_0 = \sqrt{\rho_0}\, e^{iS_0/\hbar}$.

    ```python
    initial.score(x), initial.velocity(x, mass), initial.log_density(x)
    ```

    A subclass defines its density, its phase and how to place particles; the rest is derived from these.
    """

    @property
    @abstractmethod
    def dimension(self) -> int:
        """The number of coordinates, `d`."""

    @property
    @abstractmethod
    def dtype(self) -> DTypeLike:
        """The dtype in which a problem with this initial state is solved."""

    @abstractmethod
    def log_density(self, x: Vector) -> Scalar:
        r"""$\ln\rho_0(x)$, normalised."""

    @abstractmethod
    def phase(self, x: Vector) -> Scalar:
        r"""$S_0(x)$, an action in the same units as ħ."""

    @abstractmethod
    def particles(self, design: AbstractDesign, key: Key | None = None) -> tuple[Points, Weights]:
        r"""Initial particles, and weights that sum to one: $\sum_j w_j f(x_j) \approx E_{\rho_0} f$."""

    def score(self, x: Vector) -> Vector:
        r"""$\nabla\ln\rho_0(x)$."""
        return jax.grad(self.log_density)(x)

    def velocity(self, x: Vector, mass: Float[jax.Array, "*d"]) -> Vector:
        r"""$v_0 = \nabla S_0 / m$."""
        return jax.grad(self.phase)(x) / mass

    def velocity_gradient(self, x: Vector, mass: Float[jax.Array, "*d"]) -> Matrix:
        r"""$\partial v_{0,i} / \partial x_j$."""
        return jax.jacfwd(lambda y: self.velocity(y, mass))(x)


class AbstractStateWithNodes(AbstractInitialState):
    r"""A wave function that may have nodes. Only methods that propagate or expand ψ itself take it:
    [`SplitOperator`][bohmdiff.SplitOperator] and [`HermiteFunctions`][bohmdiff.HermiteFunctions].

    ```python
    states = bd.eigenstates(
        hamiltonian, bd.HermiteFunctions(), count=2, dimension=2
    )
    states[1].wave_function(x), states[1].nodeless
    ```
    """

    @property
    @abstractmethod
    def nodeless(self) -> bool:
        """Whether this one is known to have none, so that all methods take it."""

    @abstractmethod
    def wave_function(self, x: Vector) -> Complex[jax.Array, ""]:
        """ψ(x) at one point."""
