"""Model potentials from the literature."""

from itertools import combinations
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._check import describe, is_whole_number, require
from .._precision import in_full_precision
from .._types import Numbers, Scalar, Time, Vector
from .potential import (
    AbstractPotential,
    AbstractSeparablePotential,
    Monomial,
    PotentialTerm,
    check_fits,
    number_or_vector,
    positive,
    scalar,
)


class MorseChain(AbstractSeparablePotential):
    r"""A chain of any number of Morse oscillators with nearest-neighbour coupling:
    $V = \sum_i D\,(1 - e^{-\beta x_i})^2 + \lambda \sum_{i<d} x_i x_{i+1}$.

    ```python
    bd.MorseChain(depth=12.5, width=0.2, coupling=0.3)
    ```

    **Arguments:**

    - `depth`: the dissociation energy $D > 0$: a number, or `(d,)` for one per coordinate. Energy.
    - `width`: $\beta > 0$, a number or `(d,)`: the *inverse* length of a well. A mass $m$
        oscillates at the bottom with $\omega = \beta \sqrt{2 D / m}$.
    - `coupling`: $\lambda$, a number of either sign. Energy per length squared.

    **Units:** `depth` in energy, `width` in 1 / length, `coupling` in energy / length².

    **Raises:** `ValueError` for a wrong shape, or a depth or width that is not positive.
    """

    depth: Float[Array, "*d"]
    width: Float[Array, "*d"]
    coupling: Scalar

    @in_full_precision
    def __init__(self, depth: Numbers, width: Numbers, coupling: Numbers = 0.0):
        self.depth = positive(number_or_vector(depth, "depth"), "depth")
        self.width = positive(number_or_vector(width, "width"), "width")
        self.coupling = scalar(coupling, "coupling")

    def __call__(self, t: Time, x: Vector) -> Scalar:
        depth, width = check_fits(self.depth, "depth", x), check_fits(self.width, "width", x)
        wells = jnp.sum(depth * jnp.expm1(-width * x) ** 2)
        return wells + self.coupling * jnp.sum(x[:-1] * x[1:])

    def separable_terms(self, dimension: int) -> tuple[PotentialTerm, ...]:
        depth, width = (jnp.broadcast_to(a, (dimension,)) for a in (self.depth, self.width))
        zero = jnp.zeros_like(self.coupling)
        wells = (_replaced(self, depth=depth[i], width=width[i], coupling=zero) for i in range(dimension))
        return (
            *(PotentialTerm((i,), well) for i, well in enumerate(wells)),
            *(PotentialTerm((i, i + 1), Monomial(self.coupling, (1, 1))) for i in range(dimension - 1)),
        )


class DoubleWell(AbstractSeparablePotential):
    r"""$V = \sum_i D\,(x_i^2/a^2 - 1)^2$: minima of zero at $x_i = \pm a$, separated by a barrier of height $D$.

    With several coordinates, each has its own double well; add a function to couple them.

    ```python
    bd.DoubleWell(barrier=1.0, minimum=2.0)
    ```

    **Arguments:**

    - `barrier`: the height $D > 0$: a number, or `(d,)` for one per coordinate. Energy.
    - `minimum`: the distance $a > 0$ of the minima from the barrier: a number or `(d,)`. Length.

    **Units:** `barrier` in energy, `minimum` in length.

    **Raises:** `ValueError` for a wrong shape, or a parameter that is not positive.
    """

    barrier: Float[Array, "*d"]
    minimum: Float[Array, "*d"]

    @in_full_precision
    def __init__(self, barrier: Numbers = 1.0, minimum: Numbers = 2.0):
        self.barrier = positive(number_or_vector(barrier, "barrier"), "barrier")
        self.minimum = positive(number_or_vector(minimum, "minimum"), "minimum")

    def __call__(self, t: Time, x: Vector) -> Scalar:
        barrier, minimum = check_fits(self.barrier, "barrier", x), check_fits(self.minimum, "minimum", x)
        return jnp.sum(barrier * ((x / minimum) ** 2 - 1) ** 2)

    def separable_terms(self, dimension: int) -> tuple[PotentialTerm, ...]:
        barrier, minimum = (jnp.broadcast_to(a, (dimension,)) for a in (self.barrier, self.minimum))
        return tuple(
            PotentialTerm((i,), _replaced(self, barrier=barrier[i], minimum=minimum[i]))
            for i in range(dimension)
        )


class HenonHeiles(AbstractSeparablePotential):
    r"""The Hénon–Heiles model in any $d \ge 2$:
    $V = \tfrac12 \sum_i \omega_i^2 x_i^2 + \lambda \sum_{i<d} (x_i^2 x_{i+1} - \tfrac13 x_{i+1}^3)$.

    A standard benchmark for methods in many coordinates. The potential has
    no lower bound: a packet that spreads over the saddles (at an energy of $1/(6\lambda^2)$ for
    $d = 2$, $\omega = 1$) escapes.

    ```python
    bd.HenonHeiles(coupling=0.111803)
    ```

    **Arguments:**

    - `coupling`: $\lambda$, a number. Energy per length cubed.
    - `frequency`: $\omega$, a number or `(d,)`. The model is written in coordinates of mass one; for
        another mass $m$ pass $\omega \sqrt m$.

    **Units:** units in which the harmonic frequency and the mass are one; `coupling` in energy
    / length³.

    **Raises:** `ValueError` for a wrong shape, or, at the call, for fewer than two coordinates.

    ??? cite "Reference"

        M. Nest and H.-D. Meyer, *Benchmark calculations on high-dimensional Henon–Heiles potentials
        with the multi-configuration time dependent Hartree (MCTDH) method*, J. Chem. Phys. **117**,
        10499 (2002).
    """

    coupling: Scalar
    frequency: Float[Array, "*d"]

    @in_full_precision
    def __init__(self, coupling: Numbers, frequency: Numbers = 1.0):
        self.coupling = scalar(coupling, "coupling")
        self.frequency = number_or_vector(frequency, "frequency")

    def __call__(self, t: Time, x: Vector) -> Scalar:
        if x.size < 2:
            raise ValueError(
                f"HenonHeiles couples neighbours and needs at least two coordinates, but {x.size} was "
                "given."
            )
        harmonic = 0.5 * jnp.sum((check_fits(self.frequency, "frequency", x) * x) ** 2)
        left, right = x[:-1], x[1:]
        return harmonic + self.coupling * jnp.sum(left**2 * right - right**3 / 3)

    def separable_terms(self, dimension: int) -> tuple[PotentialTerm, ...]:
        force = 0.5 * jnp.broadcast_to(self.frequency, (dimension,)) ** 2
        return (
            *(PotentialTerm((i,), Monomial(force[i], (2,))) for i in range(dimension)),
            *(PotentialTerm((i,), Monomial(-self.coupling / 3, (3,))) for i in range(1, dimension)),
            *(PotentialTerm((i, i + 1), Monomial(self.coupling, (2, 1))) for i in range(dimension - 1)),
        )


class Eckart(AbstractSeparablePotential):
    r"""The symmetric barrier $V = V_0\, \operatorname{sech}^2(x_k / a)$ along one coordinate $k$.

    The other coordinates are free; add a potential to confine them:

    ```python
    bd.Eckart(height=1.0, width=0.5) + bd.Quadratic([0.0, 1.0])
    ```

    **Arguments:**

    - `height`: $V_0$, of either sign (a negative one is the Pöschl–Teller well). Energy.
    - `width`: $a > 0$. Length.
    - `coordinate`: $k$, the index of the coordinate along which the barrier lies; by default the first.

    **Units:** `height` in energy, `width` in length.

    **Raises:** `ValueError` for a wrong shape, a width that is not positive, or, at the call, a
    coordinate that does not exist.

    ??? cite "Reference"

        C. Eckart, *The penetration of a potential barrier by electrons*, Phys. Rev. **35**, 1303 (1930).
    """

    height: Scalar
    width: Scalar
    coordinate: int = eqx.field(static=True)

    @in_full_precision
    def __init__(self, height: Numbers, width: Numbers, coordinate: int = 0):
        if not is_whole_number(coordinate) or coordinate < 0:
            raise ValueError(
                f"coordinate must be the index of a coordinate, 0 to d - 1, but {coordinate!r} was given."
            )
        self.height = scalar(height, "height")
        self.width = positive(scalar(width, "width"), "width")
        self.coordinate = int(coordinate)

    def __call__(self, t: Time, x: Vector) -> Scalar:
        if self.coordinate >= x.size:
            raise ValueError(
                f"The barrier lies along coordinate {self.coordinate}, but x has only {x.size} coordinates: "
                f"0 to {x.size - 1}."
            )
        y = 2 * x[self.coordinate] / self.width
        # sech²(y/2) = 4 σ(y) σ(−y). Far from the barrier it does not overflow, unlike 1/cosh², and keeps its
        # relative precision, unlike 1 − tanh².
        return 4 * self.height * jax.nn.sigmoid(y) * jax.nn.sigmoid(-y)

    def separable_terms(self, dimension: int) -> tuple[PotentialTerm, ...]:
        return (PotentialTerm((self.coordinate,), _replaced(self, coordinate=0)),)


class InteractingBosons(AbstractSeparablePotential):
    r"""Repelling particles on a line in a harmonic trap, with one coordinate per particle:
    $V = \sum_i \tfrac12 m \omega^2 x_i^2 + \sum_{i<j} \tfrac{g}{2}\, \mathcal N(x_i - x_j;\, 0, \sigma^2)$.

    **Pair convention.** Each pair $i<j$ is counted once, with $g/2$ times the *normalised* normal
    density of variance $\sigma^2$. The energy of a pair at the same position is
    $g / (2 \sqrt{2\pi\sigma^2})$, and $\int V_\text{pair}\, dr = g/2$. (If a paper sums
    $g\,\mathcal N$ over each pair once, pass twice its $g$.)

    ```python
    bd.InteractingBosons(frequency=1.0, repulsion=1.0, variance=0.1)
    ```

    **Arguments:**

    - `frequency`: the trap frequency $\omega \ge 0$. Per time.
    - `repulsion`: $g$; a negative value makes the particles attract each other. Energy times length.
    - `variance`: $\sigma^2 > 0$ of the pair term, the square of its range. Length squared.
    - `mass`: the mass $m > 0$ of one particle; the trap has the frequency $\omega$ only if $m$ equals the
        mass of the Hamiltonian.

    **Units:** `frequency` in 1 / time, `repulsion` in energy · length, `variance` in length².

    **Raises:** `ValueError` for a wrong shape or sign.

    ??? cite "Reference"

        E. Orlova, A. Ustimenko, R. Jiang, P. Y. Lu and R. Willett, *Deep stochastic mechanics*,
        Proceedings of the 41st International Conference on Machine Learning (2024).
    """

    frequency: Scalar
    repulsion: Scalar
    variance: Scalar
    mass: Scalar

    @in_full_precision
    def __init__(
        self,
        frequency: Numbers = 1.0,
        repulsion: Numbers = 1.0,
        variance: Numbers = 0.1,
        mass: Numbers = 1.0,
    ):
        frequency = scalar(frequency, "frequency")
        self.frequency = require(
            frequency,
            frequency >= 0,
            f"frequency must not be negative, but {describe(frequency)} was given.",
        )
        self.repulsion = scalar(repulsion, "repulsion")
        self.variance = positive(scalar(variance, "variance"), "variance")
        self.mass = positive(scalar(mass, "mass"), "mass")

    def __call__(self, t: Time, x: Vector) -> Scalar:
        trap = 0.5 * self.mass * jnp.sum((self.frequency * x) ** 2)
        # Pairs by index instead of a (d, d) table: every derivative would compute its diagonal for nothing.
        i, j = np.triu_indices(x.size, k=1)
        # At 40 standard deviations the exponential underflows. Without the clip, its derivatives for very
        # distant particles would be zero times an overflowing power of the distance.
        distance = jnp.clip((x[i] - x[j]) / jnp.sqrt(self.variance), -40.0, 40.0)
        height = 0.5 * self.repulsion / jnp.sqrt(2 * np.pi * self.variance)
        return trap + height * jnp.sum(jnp.exp(-0.5 * distance**2))

    def separable_terms(self, dimension: int) -> tuple[PotentialTerm, ...]:
        force = 0.5 * self.mass * self.frequency**2
        pair = _replaced(self, frequency=jnp.zeros_like(self.frequency))
        return (
            *(PotentialTerm((i,), Monomial(force, (2,))) for i in range(dimension)),
            *(PotentialTerm(two, pair) for two in combinations(range(dimension), 2)),
        )


def _replaced(potential: AbstractPotential, **fields: Any) -> AbstractPotential:
    """The same potential with other parameters, which need no check."""
    other = object.__new__(type(potential))
    for name in potential.__dataclass_fields__:
        object.__setattr__(other, name, fields.get(name, getattr(potential, name)))
    return other
