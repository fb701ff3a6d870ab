"""Initial states of any positive density, given by its logarithm."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import DTypeLike

from .._check import check_output, describe, require
from .._closure import as_module, settled
from .._precision import in_full_precision
from .._types import Key, Numbers, Points, Scalar, Vector, Weights
from ._nodes import find_node
from ._transport import Transport, fit_transport, transported
from .design import AbstractDesign, RandomPoints, needs_key
from .gaussian import GaussianWavePacket
from .state import AbstractInitialState

_LEAST_EFFECTIVE = 0.1
_MOST_OUTSIDE = 1e-5
_METROPOLIS_STEPS = 128
_BATCH = 4096


class LogDensity(AbstractInitialState):
    r"""$\rho_0 = e^{f} / \int e^{f}$ for any smooth $f$, with phase $S_0 = p\cdot(x-\bar x) + S(x)$.

    ```python
    initial = bd.LogDensity(
        lambda x: -0.25 * jnp.sum(x**4), mean=[0.0, 0.0], covariance=0.7
    )
    initial.log_density(jnp.zeros(2))  # normalised
    ```

    **Arguments:**

    - `log_density`: $f(x)$, a function of one position of shape `(d,)` that returns a scalar: $\ln\rho_0$ up
        to a constant. It is differentiated up to five times.
    - `mean`, `covariance`: a first guess of the mean and the covariance of the density, from which the true
        values are computed. As for a [`GaussianWavePacket`][bohmdiff.GaussianWavePacket]; the dtype of
        `mean` sets the precision of the solution.
    - `momentum`: $p$, shape `(d,)`, zero if not given. $\bar x$ is the mean of the density.
    - `phase`: a function $S(x)$ of one position that returns a scalar, an action in the same units as ħ; zero
        if not given.

    **Points** of a design are moved by $x = \bar x + L\,(T_1(\xi_1), \ldots, T_d(\xi_d))$, where $L L^\top$ is
    the covariance of the density and $T_i$ produces its marginal density along the whitened coordinate $i$.
    Normalised importance weights proportional to $\rho_0/q$ correct for the difference between the density
    $q$ of these points and $\rho_0$. The weights are equal in one coordinate and for independent whitened
    coordinates, up to interpolation errors: about 1e-5 in double and 1e-4 in single precision, and 1e-3 and
    3e-2 in the tails.
    `effective_share` is the effective fraction of the points. A design that is exact for polynomials is not
    exact here; it is as accurate as for other smooth functions.

    `RandomPoints` have equal weights: each comes from its own Metropolis chain of 128 steps that
    proposes points of density $q$. If $\rho_0/q \le B$, the distribution of the last point of a chain is
    within $(1 - 1/B)^{128}$ of $\rho_0$, in total variation.

    The normaliser is computed by the trapezoidal rule on 1601, 281², 65³ or 35⁴ points within 20, 14, 8 or 7
    standard deviations, to about 1e-8 for densities about as smooth as a Gaussian. The density outside is
    neglected, which matters for exponential tails in three and four dimensions. In more dimensions the
    normaliser is computed from 65,536 Sobol points, to about 1e-5.

    **Raises:** `ValueError` if $f$ is not finite at the mean or at points within seven standard deviations; if ψ0
    has a node where all but a millionth of the probability is, which points that go downhill find, and tell from
    a valley that is deep but smooth; if the density does not fall off; or if its coordinates are so strongly
    dependent that the effective fraction of the points is less than a tenth: several humps or a
    bent ridge. For some of these densities a [`GaussianMixture`][bohmdiff.GaussianMixture] can be used
    instead. Also for the same reasons as `GaussianWavePacket`, and for functions that do not return a scalar.

    ??? cite "References"

        W. K. Hastings, Biometrika 57, 97 (1970); K. L. Mengersen and R. L. Tweedie, Ann. Stat. 24, 101
        (1996), for the convergence of chains with independent proposals.
    """

    function: Callable[[Vector], Scalar]
    momentum: Vector
    added_phase: Callable[[Vector], Scalar] | None
    transport: Transport
    log_normaliser: Scalar
    effective_share: Scalar

    @in_full_precision
    def __init__(
        self,
        log_density: Callable[[Any], Any],
        mean: Numbers,
        covariance: Numbers,
        momentum: Numbers | None = None,
        phase: Callable[[Any], Any] | None = None,
    ):
        guess = GaussianWavePacket(mean, covariance, momentum)
        check_output(log_density, (guess.mean,), (), "log_density")
        log_density = settled(as_module(log_density), (guess.mean,))
        if phase is not None:
            check_output(phase, (guess.mean,), (), "phase")
            phase = settled(as_module(phase), (guess.mean,))
        value = log_density(guess.mean)
        start = require(
            guess.mean,
            jnp.isfinite(value),
            f"log_density must be finite at the mean, but it is {describe(value)} at x = "
            f"{describe(guess.mean)}. The density must be positive wherever particles can be.",
        )
        fit = fit_transport(log_density, start, guess.covariance)
        x, value = fit.worst
        node = find_node(log_density, fit.transport)
        checks = (
            (
                jnp.isfinite(value),
                f"log_density must be finite where particles are, but it is {describe(value)} at x = "
                f"{describe(x)}. A density with zeros is that of a wave function with nodes, which Bohmian "
                "trajectories cannot cross. Sums of exponentials are best written with jax.nn.logsumexp.",
            ),
            (
                fit.outside < _MOST_OUTSIDE,
                "The density must fall off within ten standard deviations of its mean, but at their end it is "
                f"still {describe(fit.outside)} of its largest value; at most {_MOST_OUTSIDE:g} is allowed. "
                "Pass a log_density that falls off faster in all directions, or a mean and a covariance "
                "closer to those of the density.",
            ),
            (
                ~node.found,
                f"log_density must be finite where particles are, but near x = {describe(node.x)} the density "
                f"falls to {describe(node.share)} of its value close by. A zero is a node of the wave function, "
                "which Bohmian trajectories cannot cross. Pass a density without zeros.",
            ),
            (
                fit.effective > _LEAST_EFFECTIVE,
                f"Only a share of {describe(fit.effective)} of the points would count, and at least "
                f"{_LEAST_EFFECTIVE:g} is needed: the density is far from one with independent coordinates. "
                "Pass a mean and a covariance closer to those of the density, choose coordinates in which it "
                "is simpler, or pass a GaussianMixture where it has several humps.",
            ),
        )
        log_normaliser = fit.log_normaliser
        for holds, message in checks:
            log_normaliser = require(log_normaliser, holds, message)
        self.function = log_density
        self.momentum = guess.momentum
        self.added_phase = phase
        self.transport = fit.transport
        self.log_normaliser = log_normaliser
        self.effective_share = fit.effective

    @property
    def dimension(self) -> int:
        return self.momentum.shape[0]

    @property
    def dtype(self) -> DTypeLike:
        return self.momentum.dtype

    def log_density(self, x: Vector) -> Scalar:
        return self.function(x) - self.log_normaliser

    def phase(self, x: Vector) -> Scalar:
        plane = self.momentum @ (x - self.transport.mean)
        return plane if self.added_phase is None else plane + self.added_phase(x)

    @in_full_precision
    def particles(self, design: AbstractDesign, key: Key | None = None) -> tuple[Points, Weights]:
        if isinstance(design, RandomPoints):
            start, chains = jax.random.split(needs_key(design, key))
            normal, weights = design(self.dimension, start)
            points = _last_of_chains(self, chains, jnp.asarray(normal, self.dtype))
            return points, jnp.asarray(weights, self.dtype)
        normal, weights = (jnp.asarray(a, self.dtype) for a in design(self.dimension, key))
        points, log_ratio = transported(self.transport, self.function, normal)
        return points, jax.nn.softmax(log_ratio + jnp.log(weights))


@eqx.filter_jit
def _last_of_chains(state: LogDensity, key: Key, start: Points) -> Points:
    """The last points of Metropolis chains with independent proposals, one chain per starting point."""

    def propose(normal: Vector) -> tuple[Vector, Scalar]:
        return state.transport.log_ratio(state.function, normal)

    def step(last: tuple[Vector, Scalar], key: Key) -> tuple[tuple[Vector, Scalar], None]:
        normal_key, uniform_key = jax.random.split(key)
        proposed = propose(jax.random.normal(normal_key, start.shape[1:], start.dtype))
        uniform = jax.random.uniform(uniform_key, dtype=start.dtype)
        accept = jnp.log(uniform) < proposed[1] - last[1]
        return jax.tree.map(lambda new, old: jnp.where(accept, new, old), proposed, last), None

    def chain(one: tuple[Key, Vector]) -> Vector:
        key, normal = one
        (x, _), _ = jax.lax.scan(step, propose(normal), jax.random.split(key, _METROPOLIS_STEPS))
        return x

    return jax.lax.map(chain, (jax.random.split(key, start.shape[0]), start), batch_size=_BATCH)
