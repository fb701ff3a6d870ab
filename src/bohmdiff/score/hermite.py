"""Hermite scores: ln ρ as a polynomial in a frame that moves and breathes with the ensemble."""

import math
from dataclasses import replace
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import lineax as lx
import numpy as np
from jaxtyping import Array, Float

from .._types import Matrix, Points, Scalar, Time, Vector, Weights
from ..network.derivatives import (
    AbstractWithDerivatives,
    LocalScore,
    ScalarDerivatives,
    combinations,
    ladder,
    spread,
)
from ._polynomials import (
    HermitePolynomials,
    differentiate,
    expand,
    expected_derivatives,
    expected_gradients,
    hermite_basis,
    hermite_polynomials,
)
from .basis import AbstractBasis, TotalDegree
from .score import AbstractGradientScore

_NARROWER = 0.8

# Beyond the window the weight of a particle in the fit is exp(-e⁴) at e times so many standard deviations.
_EDGE = 2.0


class HermiteExpansion(eqx.Module):
    r"""$\ln\rho(x) = -\tfrac12|\xi|^2 + \sum_\alpha c_\alpha h_\alpha(\xi) + \text{const}$ with
    $\xi = L^{-1}(x - \mu)$.

    ```python
    expansion = solution.fitted.path.evaluate(
        0.5
    )  # that of a sequential solution, at one time
    expansion.coefficients, expansion.mean
    ```

    A polynomial is not bounded where it was not fitted. Beyond `window` the gradient of the correction to
    the Gaussian is therefore evaluated at the point where the ray to the centre crosses that radius. The
    quantum force is that of the fit, in which particles beyond this radius count less and less: far outside
    there is none.

    **Arguments:**

    - `mean`, `cholesky`: $\mu$, shape `(d,)`, and the lower triangular $L$, shape `(d, d)`.
    - `coefficients`: of all basis functions except the constant, shape `(n - 1,)`.
    - `log_partition`: $\ln\int \mathcal N(\xi) e^{\sum_\alpha c_\alpha h_\alpha} d\xi$.
    - `degree`: the total degree.
    - `window`: a radius in standard deviations.
    - `basis`: the rule that selects polynomials up to that degree, all of them if not given.
    - `frame_force`: what the force of a fit has in addition because the frame follows the particles; a
        `FrameForce`, or `None`.

    **Units:** `mean` and `cholesky` in units of length; the coefficients have none.

    **Raises:** nothing; it is made by [`SequentialScoreMatching`][bohmdiff.SequentialScoreMatching].
    """

    mean: Vector
    cholesky: Matrix
    coefficients: Float[Array, " n"]
    log_partition: Scalar
    degree: int = eqx.field(static=True)
    window: float = eqx.field(static=True)
    basis: AbstractBasis = eqx.field(default=TotalDegree(), static=True)
    frame_force: "FrameForce | None" = None

    @property
    def dimension(self) -> int:
        """The number of coordinates, `d`."""
        return self.mean.shape[0]

    @property
    def polynomials(self) -> HermitePolynomials:
        """The polynomials that the coefficients belong to, the constant included."""
        return hermite_polynomials(self.dimension, self.degree, self.basis)

    def score(self, x: Points) -> Points:
        """∇ ln ρ at the points `x`, shape `(M, d)`."""
        xi = self.in_frame(x)
        in_frame = self._correction_gradient(self._trusted(xi)) - xi
        return in_frame @ self._inverse

    def correction_gradient(self, x: Points) -> Points:
        r"""$\nabla\sum_\alpha c_\alpha h_\alpha(\xi)$ at the points `x`, shape `(M, d)`."""
        return self._correction_gradient(self._trusted(self.in_frame(x))) @ self._inverse

    def correction_laplacian(self, x: Points, mass: Vector) -> Float[Array, " M"]:
        r"""$\nabla\cdot m^{-1}\nabla\sum_\alpha c_\alpha h_\alpha(\xi)$ at the points `x`, shape `(M,)`."""
        gradient = differentiate(self._all_coefficients(), self.polynomials)
        hessian = differentiate(gradient, self.polynomials)
        column = jnp.einsum("ij,ijn->n", mass_metric(self.cholesky, mass), hessian)
        return expand(self._trusted(self.in_frame(x)), self._low(column[None]), self.polynomials.lower)[
            :, 0
        ]

    def quantum(self, x: Points, mass: Vector, hbar: Scalar) -> tuple[Float[Array, " M"], Points]:
        r"""$Q$ and $-\nabla Q$ at the points `x`, shapes `(M,)` and `(M, d)`, by one product of basis
        and coefficients.

        In the frame $Q = -\tfrac{\hbar^2}{4}[\chi\,(\mathrm{tr}(A\,\nabla\nabla\varphi) +
        \tfrac12 \nabla\varphi^\top A \nabla\varphi) + \nabla\chi^\top A \nabla\varphi]$ with
        $A = L^{-1} m^{-1} L^{-\top}$ and the window $\chi$, less what the frame takes up.
        """
        xi = self.in_frame(x)
        local = self._integrand(xi, mass_metric(self.cholesky, mass))
        value, in_frame = local.value, local.gradient
        if self.frame_force is not None:
            shift, stretch = self.frame_force
            along = xi @ stretch
            value = value - xi @ shift - jnp.sum(along * xi, axis=1)
            in_frame = in_frame - shift[None] - 2 * along
        return -0.25 * hbar**2 * value, 0.25 * hbar**2 * in_frame @ self._inverse

    def _integrand(self, xi: Points, metric: Matrix) -> "_Integrand":
        """What a fit minimises the mean of, particle by particle, and its derivatives in ξ and in A."""
        d = self.dimension
        weight = window_at(xi, self.window)
        gradient = differentiate(self._all_coefficients(), self.polynomials)
        hessian = differentiate(gradient, self.polynomials)
        slope = differentiate(jnp.einsum("ij,ijn->n", metric, hessian), self.polynomials)
        columns = jnp.concatenate([gradient, hessian.reshape(d * d, -1), slope])
        inside = weight.inside(xi)
        values = expand(inside, self._low(columns), self.polynomials.lower)
        score = values[:, :d] - inside
        curvature = values[:, d : d + d * d].reshape(-1, d, d) - jnp.eye(d, dtype=xi.dtype)[None]
        along = score @ metric
        bare = jnp.einsum("mij,ij->m", curvature, metric) + 0.5 * jnp.sum(score * along, axis=1)
        force = values[:, d + d * d :] + jnp.einsum("mij,mj->mi", curvature, along)
        by_metric = curvature + 0.5 * score[:, :, None] * score[:, None, :]
        if weight.gradient is None:
            return _Integrand(bare, force, by_metric)
        edge = weight.gradient[:, :, None] * score[:, None, :]
        return _Integrand(
            value=weight.value * bare + jnp.sum(weight.gradient * along, axis=1),
            gradient=weight.gradient * bare[:, None]
            + weight.value[:, None] * force
            + weight.hessian_times(along)
            + jnp.einsum("mij,mj->mi", curvature, weight.gradient @ metric),
            by_metric=weight.value[:, None, None] * by_metric + 0.5 * (edge + jnp.swapaxes(edge, 1, 2)),
        )

    def derivatives(self, x: Vector, inverse_mass: Vector, order: int = 1) -> tuple[LocalScore, ...]:
        """The score at one point, its derivatives that the quantum force needs, and the derivatives of both.

        Beyond the window the polynomial's part of each is evaluated at that radius, as it is for the score.
        """
        d, inverse = self.dimension, self._inverse

        def along_axes(coefficients: Float[Array, "*k n"]) -> Float[Array, "*k d n"]:
            return jnp.einsum("ik,...in->...kn", inverse, differentiate(coefficients, self.polynomials))

        columns = [along_axes(self._all_coefficients())]
        for _ in range(order + 1):
            columns.append(along_axes(columns[-1]))
        columns.append(along_axes(jnp.einsum("i,ii...->...", inverse_mass, columns[-1])))
        # Each component of a symmetric tensor once.
        flat = jnp.concatenate([c[tuple(np.transpose(combinations(d, c.ndim - 1)))] for c in columns])
        values = expand(self._trusted(self.in_frame(x[None])), self._low(flat), self.polynomials.lower)[0]
        ends = np.cumsum([len(combinations(d, c.ndim - 1)) for c in columns])
        parts = [
            part[spread(d, c.ndim - 1)]
            for part, c in zip(jnp.split(values, ends[:-1]), columns, strict=True)
        ]
        correction = ScalarDerivatives(tuple(parts[:-1]), parts[-1]).as_score(inverse_mass)
        if not math.isinf(self.window):
            correction = _moved(correction, ladder(self._into_place, x, order)[1:])
        precision = inverse.T @ inverse
        first, *others = correction
        first = first._replace(
            score=first.score - precision @ (x - self.mean), jacobian=first.jacobian - precision
        )
        if others:
            others[0] = others[0]._replace(score=others[0].score - precision)
        return (first, *others)

    def _into_place(self, x: Vector) -> Vector:
        """x, or the point where the ray from the centre to x crosses the window's radius."""
        return self.mean + self.cholesky @ self._trusted(self.in_frame(x[None]))[0]

    def log_density(self, x: Vector) -> Scalar:
        r"""$\ln\rho(x)$ at one point; reliable only where the fitted particles are."""
        return self.log_densities(x[None])[0]

    def log_densities(self, x: Points) -> Float[Array, " M"]:
        r"""$\ln\rho$ at the points `x`, shape `(M,)`."""
        xi = self.in_frame(x)
        log_determinant = jnp.sum(jnp.log(jnp.abs(jnp.diag(self.cholesky))))
        log_normal = -0.5 * jnp.sum(xi**2, axis=1) - 0.5 * self.dimension * math.log(2 * math.pi)
        return log_normal - log_determinant + self._correction(xi) - self.log_partition

    def in_frame(self, x: Points) -> Points:
        """ξ at the points `x`, shape `(M, d)`."""
        return (x - self.mean[None]) @ self._inverse.T

    @property
    def _inverse(self) -> Matrix:
        return lower_inverse(self.cholesky)

    def _trusted(self, xi: Points) -> Points:
        """ξ, or the point where the ray from the centre to ξ crosses the window's radius."""
        if math.isinf(self.window):
            return xi
        square = jnp.sum(xi**2, axis=1, keepdims=True)
        outside = square > self.window**2
        # The inner `where` keeps the derivative of the root finite at the centre.
        return jnp.where(outside, self.window / jnp.sqrt(jnp.where(outside, square, 1.0)), 1.0) * xi

    def _all_coefficients(self) -> Float[Array, " n"]:
        return jnp.concatenate([jnp.zeros_like(self.coefficients[:1]), self.coefficients])

    def _low(self, coefficients: Float[Array, "k n"]) -> Float[Array, "k low"]:
        """Coefficients of a derivative, without those that are zero because its degree is lower."""
        return coefficients[:, : self.polynomials.lower.size]

    def _correction_gradient(self, xi: Points) -> Points:
        columns = self._low(differentiate(self._all_coefficients(), self.polynomials))
        return expand(xi, columns, self.polynomials.lower)

    def _correction(self, xi: Points) -> Float[Array, " M"]:
        """Σ c h(ξ); beyond the window it continues as a straight line along the ray."""
        trusted = self._trusted(xi)
        coefficients = self._all_coefficients()
        slopes = differentiate(coefficients, self.polynomials)
        both = expand(trusted, jnp.concatenate([coefficients[None], slopes]), self.polynomials)
        return both[:, 0] + jnp.sum(both[:, 1:] * (xi - trusted), axis=1)


def _moved(parts: tuple[LocalScore, ...], place: tuple[Array, ...]) -> tuple[LocalScore, ...]:
    """Derivatives at y(x) converted to derivatives along x, from the derivatives of y."""
    here, *others = parts
    if not others:
        return parts
    slope = place[0]
    slopes = jax.tree.map(lambda part: part @ slope, others[0])
    if len(others) == 1:
        return here, slopes
    curvatures = jax.tree.map(
        lambda second, first: (
            jnp.einsum("...ij,ik,jl->...kl", second, slope, slope)
            + jnp.einsum("...i,ikl->...kl", first, place[1])
        ),
        others[1],
        others[0],
    )
    return here, slopes, curvatures


class FrameForce(NamedTuple):
    r"""The derivatives of the minimum of a fit in its frame: the potential
    $\tfrac{\hbar^2}{4}(a^\top\xi + \xi^\top B\,\xi)$ with $a$ of shape `(d,)` and symmetric $B$, `(d, d)`.

    Both vanish if the window holds all particles and the basis is that of all polynomials, because the fit
    then does not depend on the frame.
    """

    shift: Vector
    stretch: Matrix


class _Integrand(NamedTuple):
    value: Float[Array, " M"]
    gradient: Points
    by_metric: Float[Array, "M d d"]


class Window(NamedTuple):
    r"""$\chi(\xi)$, how much particles count in a fit, and its gradient; `None` for an infinite window."""

    value: Float[Array, " M"]
    gradient: Points | None
    direction: Points | None
    curvatures: tuple[Float[Array, " M"], Float[Array, " M"]] | None  # along the ray, and across it

    def hessian_times(self, vectors: Points) -> Points:
        r"""$\nabla\nabla\chi$ times a vector for each particle."""
        assert self.direction is not None
        assert self.curvatures is not None
        along = jnp.sum(self.direction * vectors, axis=1, keepdims=True) * self.direction
        radial, across = self.curvatures
        return radial[:, None] * along + across[:, None] * (vectors - along)

    def inside(self, xi: Points) -> Points:
        """ξ, or the centre where the window is zero, so that no polynomial overflows."""
        return xi if self.gradient is None else jnp.where(self.value[:, None] > 0, xi, 0)


def window_at(xi: Points, radius: float) -> Window:
    r"""$\chi = 1$ for $|\xi|$ up to the radius, and $e^{-e^4}$ beyond, with $e = (|\xi| - \text{radius}) / 2$."""
    if math.isinf(radius):
        return Window(jnp.ones_like(xi[:, 0]), None, None, None)
    square = jnp.sum(xi**2, axis=1)
    outside = square > radius**2
    # The inner `where` keeps the derivative of the root finite at the centre.
    distance = jnp.where(outside, jnp.sqrt(jnp.where(outside, square, 1.0)), radius)
    # Farther out the weight is zero in any precision, and powers would overflow.
    beyond = jnp.minimum((distance - radius) / _EDGE, 8.0)
    value = jnp.exp(-(beyond**4))
    slope = -4 * beyond**3 * value / _EDGE
    direction = xi / distance[:, None]
    radial = (16 * beyond**6 - 12 * beyond**2) * value / _EDGE**2
    return Window(value, slope[:, None] * direction, direction, (radial, slope / distance))


def default_window(dimension: int) -> float:
    """The radius in standard deviations; the bulk of the particles is at the root of the dimension."""
    return 4.0 + math.sqrt(dimension)


def mass_metric(cholesky: Matrix, mass: Vector) -> Matrix:
    r"""$A = L^{-1} m^{-1} L^{-\top}$: the inverse mass in the coordinates of the frame."""
    inverse = lower_inverse(cholesky)
    return (inverse / mass[None]) @ inverse.T


def lower_inverse(cholesky: Matrix) -> Matrix:
    """The inverse of a lower triangular matrix."""
    return jsl.solve_triangular(cholesky, jnp.eye(cholesky.shape[0], dtype=cholesky.dtype), lower=True)


class HermiteFit(NamedTuple):
    """A fitted expansion and the diagnostics of the fit."""

    expansion: HermiteExpansion
    fisher_information: Scalar  # E[sᵀ m⁻¹ s]; times ħ²/8 it is the mean quantum energy
    condition_number: Scalar  # of the normal matrix: a lower bound, from its Cholesky factor


def fit_hermite(
    x: Points,
    weights: Weights,
    mass: Vector,
    degree: int,
    window: float,
    basis: AbstractBasis = TotalDegree(),  # noqa: B008
) -> HermiteFit:
    r"""Implicit score matching with polynomials.

    Minimises $E[\chi\,(\tfrac12 s^\top m^{-1} s + \mathrm{div}(m^{-1}s)) + \nabla\chi^\top m^{-1} s]$ over
    $s = \nabla\varphi$, φ a polynomial of total degree `degree` that `basis` allows. This is a least-squares fit
    to the score of the points' density, with the weight χ and without knowing that density. χ is one up to
    `window` standard deviations and falls to zero beyond, so that particles far out, where nothing determines
    a polynomial, neither decide the fit nor feel it.

    With this weight of the coordinates the particles and the fit together are a Hamiltonian system: minus
    ħ²/4 times the minimum is the quantum energy, and its gradient in the particles' positions is the quantum
    force, so energy is conserved for any degree, basis and window. The minimum depends on the positions
    through the frame, too, if particles leave the window or `basis` excludes polynomials; that part of the
    gradient is the `frame_force` of the expansion.

    ??? cite "References"

        A. Hyvärinen, *Estimation of non-normalized statistical models by score matching*,
        J. Mach. Learn. Res. 6, 695 (2005). S. Garashchuk and V. A. Rassolov, *Energy conserving
        approximations to the quantum potential*, J. Chem. Phys. 120, 1181 (2004).
    """
    moments = _moments(x, weights, mass, degree, window, basis)
    (coefficients,), pivots = _solve_definite(moments.gradients, moments.score_side[None])
    return _score_of(moments, coefficients, pivots, weights, degree, window, basis)


def fit_phase(
    x: Points,
    velocity: Points,
    weights: Weights,
    mass: Vector,
    degree: int,
    window: float,
    basis: AbstractBasis = TotalDegree(),  # noqa: B008
) -> HermiteExpansion:
    r"""The phase whose velocity is closest to that of the particles.

    Minimises $E[\chi\,(v - m^{-1}\nabla S)^\top m\,(v - m^{-1}\nabla S)]$ over polynomials $S$ of total degree
    `degree` that `basis` allows, with the window χ of the fit of the score. Where it holds all particles, the
    moments of the basis change at the same rates as under `velocity`:
    $E[\nabla h_\alpha \cdot m^{-1}\nabla S] = E[\nabla h_\alpha \cdot v]$.

    **Returns:** an expansion whose `correction_gradient` is $\nabla S$.
    """
    moments = _moments(x, weights, mass, degree, window, basis)
    right_side = moments.phase_side(velocity)
    (coefficients,), _ = _solve_definite(moments.gradients, right_side[None])
    return moments.expansion(coefficients, degree, window, basis)


def fit_score_and_phase(
    x: Points,
    velocity: Points,
    weights: Weights,
    mass: Vector,
    degree: int,
    window: float,
    basis: AbstractBasis = TotalDegree(),  # noqa: B008
) -> tuple[HermiteFit, HermiteExpansion]:
    """[`fit_hermite`][bohmdiff.score.hermite.fit_hermite] and
    [`fit_phase`][bohmdiff.score.hermite.fit_phase] with one linear system."""
    moments = _moments(x, weights, mass, degree, window, basis)
    right_sides = jnp.stack([moments.score_side, moments.phase_side(velocity)])
    (coefficients, phase), pivots = _solve_definite(moments.gradients, right_sides)
    score = _score_of(moments, coefficients, pivots, weights, degree, window, basis)
    return score, moments.expansion(phase, degree, window, basis)


def _score_of(
    moments: "_Moments",
    coefficients: Float[Array, " n"],
    pivots: Float[Array, " n"],
    weights: Weights,
    degree: int,
    window: float,
    basis: AbstractBasis,
) -> HermiteFit:
    expansion = moments.expansion(coefficients, degree, window, basis)
    partition = _log_partition(expansion, moments.xi, weights)
    local = expansion._integrand(moments.xi, moments.metric)
    information = -2 * weights @ local.value
    expansion = replace(
        expansion, log_partition=partition, frame_force=_frame_force(local, moments, weights)
    )
    return HermiteFit(expansion, information, (jnp.max(pivots) / jnp.min(pivots)) ** 2)


def _frame_force(local: _Integrand, moments: "_Moments", weights: Weights) -> FrameForce:
    """From the derivatives of the mean integrand in μ and C at fixed particles and coefficients.

    With P = L⁻¹ dL the mean changes by -⟨E[∂_ξ j ξᵀ] + 2 E[∂j/∂A] A, P⟩, and P is the lower triangle of
    L⁻¹ dC L⁻ᵀ with half of its diagonal.
    """
    slopes = local.gradient * weights[:, None]
    by_metric = jnp.einsum("m,mij->ij", weights, local.by_metric)
    by_factor = jnp.tril(slopes.T @ moments.xi + 2 * by_metric @ moments.metric)
    by_factor = by_factor - 0.5 * jnp.diag(jnp.diag(by_factor))
    return FrameForce(jnp.sum(slopes, axis=0), 0.5 * (by_factor + by_factor.T))


class _Moments(NamedTuple):
    """The input of the fits: the frame of the particles, and the moments of the basis in it."""

    mean: Vector
    cholesky: Matrix
    metric: Matrix
    polynomials: HermitePolynomials
    xi: Points
    values: Float[Array, "M low"]
    weights: Weights  # those of the particles times the window
    gradients: Float[Array, "n n"]
    score_side: Float[Array, " n"]  # the right side of the linear system for the score

    def phase_side(self, velocity: Points) -> Float[Array, " n"]:
        """The right side of the linear system for the phase."""
        in_frame = jsl.solve_triangular(self.cholesky, velocity.T, lower=True) * self.weights[None]
        return expected_derivatives(in_frame @ self.values, self.polynomials)[1:]

    def expansion(
        self, coefficients: Float[Array, " n"], degree: int, window: float, basis: AbstractBasis
    ) -> HermiteExpansion:
        zero = jnp.zeros((), coefficients.dtype)
        return HermiteExpansion(self.mean, self.cholesky, coefficients, zero, degree, window, basis)


def _moments(
    x: Points, weights: Weights, mass: Vector, degree: int, window: float, basis: AbstractBasis
) -> _Moments:
    mean = weights @ x
    centred = x - mean[None]
    cholesky = jnp.linalg.cholesky((centred * weights[:, None]).T @ centred)
    xi = jsl.solve_triangular(cholesky, centred.T, lower=True).T
    metric = mass_metric(cholesky, mass)
    polynomials = hermite_polynomials(x.shape[1], degree, basis)
    weight = window_at(xi, window)
    counted = weights * weight.value
    values = hermite_basis(weight.inside(xi), polynomials.lower)
    gram = (values * counted[:, None]).T @ values
    gradients, linear, laplacian = expected_gradients(gram, metric, polynomials)
    score_side = linear - laplacian
    if weight.gradient is not None:
        edge = (weight.gradient * weights[:, None]).T @ values
        score_side = score_side - expected_derivatives(metric @ edge, polynomials)
    return _Moments(
        mean, cholesky, metric, polynomials, xi, values, counted, gradients[1:, 1:], score_side[1:]
    )


def _solve_definite(
    matrix: Float[Array, "n n"], vectors: Float[Array, "k n"]
) -> tuple[Float[Array, "k n"], Float[Array, " n"]]:
    """The solutions and the pivots of the Cholesky factor; NaN where the matrix is not positive definite."""
    solver = lx.Cholesky()

    def operator(entries: Array) -> lx.MatrixLinearOperator:
        return lx.MatrixLinearOperator(entries, lx.positive_semidefinite_tag)

    factor, is_negative = solver.init(operator(matrix), {})
    # Lineax refuses NaN under differentiation with any setting: pass it the identity instead.
    sound = jnp.all(jnp.isfinite(factor))
    identity = jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    state = (jnp.where(sound, factor, identity), is_negative)
    safe = operator(jnp.where(sound, matrix, identity))

    def solve(vector: Float[Array, " n"]) -> Float[Array, " n"]:
        return lx.linear_solve(safe, vector, solver, state=state, throw=False).value

    solutions = jax.vmap(solve)(jnp.where(sound, vectors, 0))
    return jnp.where(sound, solutions, jnp.nan), jnp.abs(jnp.diag(factor))


def _log_partition(expansion: HermiteExpansion, xi: Points, weights: Weights) -> Scalar:
    r"""The normalisation constant, which the score does not determine, from the particles alone.

    $\int g = E_\rho[g/\rho] = 1$ for any density g, here a Gaussian narrower than the ensemble, so that
    the polynomial does not matter where there are no particles.
    """
    dimension = xi.shape[1]
    log_ratio = dimension * math.log(1 / _NARROWER) + 0.5 * (1 - _NARROWER**-2) * jnp.sum(xi**2, axis=1)
    return -jax.nn.logsumexp(log_ratio - expansion._correction(xi), b=weights)


class HermiteScore(AbstractGradientScore, AbstractWithDerivatives):
    """A Hermite expansion whose frame and coefficients are cubic functions of time.

    ```python
    fitted = bd.solve(problem, bd.SequentialScoreMatching(degree=4)).fitted
    fitted(0.5, x), fitted.log_density(0.5, x)
    ```

    **Arguments:**

    - `path`: a Diffrax interpolation whose value at `t` is a
        [`HermiteExpansion`][bohmdiff.HermiteExpansion].

    **Units:** 1 / length.

    **Raises:** nothing; it is made by [`SequentialScoreMatching`][bohmdiff.SequentialScoreMatching].
    """

    path: diffrax.CubicInterpolation

    def at(self, t: Any) -> HermiteExpansion:
        """The expansion at one time."""
        return self.path.evaluate(t)

    def __call__(self, t: Time, x: Vector) -> Vector:
        return self.at(t).score(x[None])[0]

    def derivatives(self, t: Time, x: Vector, inverse_mass: Vector, order: int) -> tuple[LocalScore, ...]:
        """The score at one point, its derivatives that the quantum force needs, and the derivatives of both."""
        return self.at(t).derivatives(x, inverse_mass, order)

    def log_density(self, t: Time, x: Vector) -> Scalar:
        """The normalised log density that belongs to the score."""
        return self.at(t).log_density(x)
