"""Hypothesis strategies for problems with known solutions, and for the parts of problems.

Strategies draw values, not shapes: every shape needs a compilation. Drawn values print as code to paste.
"""

from typing import Any

import jax
import numpy as np
from hypothesis import strategies as st

from ..hamiltonian import (
    AbstractPotential,
    DoubleWell,
    Eckart,
    HenonHeiles,
    InteractingBosons,
    MorseChain,
    PotentialSum,
    Quadratic,
)
from ..score import NeuralScore
from ..wavepacket import GaussianWavePacket
from .driven_gaussian import DrivenGaussian

Matrix = list[list[float]]


def vectors(d: int, low: float = -1.0, high: float = 1.0) -> st.SearchStrategy[list[float]]:
    """`d` numbers between `low` and `high`.

    ```python
    @given(bohmdiff.testing.vectors(3, -1.0, 1.0))
    def test_a_mean_anywhere(mean):
        bd.GaussianWavePacket(mean, covariance=0.5)
    ```

    **Arguments:**

    - `d`: the number of entries.
    - `low`, `high`: the bounds.

    **Raises:** nothing of its own.
    """
    return st.lists(st.floats(low, high), min_size=d, max_size=d)


def symmetric_matrices(d: int, largest: float = 1.0) -> st.SearchStrategy[Matrix]:
    """Symmetric `(d, d)` matrices, as lists of rows, with entries up to `largest`.

    ```python
    @given(bohmdiff.testing.symmetric_matrices(2, 0.5))
    def test_any_chirp(chirp):
        bd.GaussianWavePacket([0.0, 0.0], 0.5, chirp=chirp)
    ```

    **Arguments:**

    - `d`: matrices have the shape `(d, d)`.
    - `largest`: a bound on the size of entries.

    **Raises:** nothing of its own.
    """
    return _square(d).map(lambda m: (0.5 * largest * (m + m.T)).tolist())


def positive_definite_matrices(
    d: int, smallest: float = 0.3, spread: float = 0.3
) -> st.SearchStrategy[Matrix]:
    """Symmetric `(d, d)` matrices, as lists of rows, whose eigenvalues lie between `smallest` and
    `smallest + spread * d**2`.

    ```python
    @given(bohmdiff.testing.positive_definite_matrices(3))
    def test_a_packet_of_any_covariance(covariance): ...
    ```

    **Arguments:**

    - `d`: matrices have the shape `(d, d)`.
    - `smallest`: a positive lower bound of all eigenvalues.
    - `spread`: the largest eigenvalue exceeds `smallest` by at most `spread * d**2`.

    **Raises:** nothing of its own.
    """
    return _square(d).map(lambda m: (smallest * np.eye(d) + spread * m @ m.T).tolist())


def gaussian_wave_packets(d: int) -> st.SearchStrategy[GaussianWavePacket]:
    """Packets at rest or moving, squeezed, correlated and chirped, within a unit of the origin.

    ```python
    @given(bohmdiff.testing.gaussian_wave_packets(2))
    def test_a_packet_has_a_score(packet):
        assert jnp.allclose(packet.score(packet.mean), 0.0)
    ```

    **Arguments:**

    - `d`: the number of coordinates.

    **Raises:** nothing of its own.
    """
    return st.builds(
        GaussianWavePacket,
        mean=vectors(d),
        covariance=positive_definite_matrices(d),
        momentum=vectors(d),
        chirp=symmetric_matrices(d, 0.5),
    )


def quadratic_potentials(d: int) -> st.SearchStrategy[Quadratic]:
    """Bound, free and inverted quadratic potentials, coupled, with a centre and a linear term.

    ```python
    @given(bohmdiff.testing.quadratic_potentials(2))
    def test_its_third_derivatives_vanish(potential):
        assert potential(0.0, jnp.zeros(2)).shape == ()
    ```

    **Arguments:**

    - `d`: the number of coordinates.

    **Raises:** nothing of its own.
    """
    return st.builds(
        Quadratic, matrix=symmetric_matrices(d, 2.0), centre=vectors(d), linear=vectors(d, -0.5, 0.5)
    )


def potentials(d: int) -> st.SearchStrategy[AbstractPotential]:
    """The library's potentials in `d` dimensions, and sums of two.

    ```python
    @given(bohmdiff.testing.potentials(2))
    def test_a_hamiltonian_of_any_potential(potential):
        assert jnp.isfinite(
            bd.Hamiltonian(potential).potential(0.0, jnp.zeros(2))
        )
    ```

    **Arguments:**

    - `d`: the number of coordinates.

    **Raises:** nothing of its own.
    """
    single: list[st.SearchStrategy[Any]] = [
        quadratic_potentials(d),
        st.builds(
            MorseChain, depth=st.floats(1, 15), width=st.floats(0.1, 0.5), coupling=st.floats(-0.4, 0.4)
        ),
        st.builds(DoubleWell, barrier=st.floats(0.5, 2), minimum=st.floats(1, 3)),
        st.builds(
            Eckart, height=st.floats(0.5, 2), width=st.floats(0.3, 1), coordinate=st.integers(0, d - 1)
        ),
    ]
    if d > 1:
        single += [
            st.builds(HenonHeiles, coupling=st.floats(0.05, 0.2), frequency=st.floats(0.5, 1.5)),
            st.builds(
                InteractingBosons,
                repulsion=st.floats(0.1, 2),
                variance=st.floats(0.1, 0.5),
                mass=st.just(1.0),
            ),
        ]
    one = st.one_of(single)
    return st.one_of(one, st.builds(PotentialSum, one, one))


def driven_gaussians(d: int) -> st.SearchStrategy[DrivenGaussian]:
    """Problems with known solutions: random masses, ħ, covariance, momentum, chirp, coupling, curvature of either
    sign, and drive.

    ```python
    @given(bohmdiff.testing.driven_gaussians(2))
    def test_my_method_is_exact_there(case):
        solution = bd.solve(case.problem(), bd.GaussianDynamics())
        np.testing.assert_allclose(
            solution.std(), case.moments(solution.ts).std, rtol=1e-3
        )
    ```

    **Arguments:**

    - `d`: the number of coordinates.

    **Raises:** `ValueError` on drawing in a dimension that is not positive.
    """
    return st.builds(
        DrivenGaussian,
        mass=vectors(d, 0.5, 3),
        hbar=st.floats(0.3, 1.5),
        stiffness=symmetric_matrices(d, 2.0),
        centre=vectors(d),
        drive=vectors(d),
        frequency=st.floats(5, 7),  # beyond every resonance
        mean=vectors(d),
        covariance=positive_definite_matrices(d),
        momentum=vectors(d),
        chirp=symmetric_matrices(d, 0.5),
    )


def scores(d: int) -> st.SearchStrategy[DrivenGaussian | NeuralScore]:
    """Exact scores of driven Gaussians, and small untrained networks.

    ```python
    @given(bohmdiff.testing.scores(2))
    def test_a_score_is_a_vector(score):
        assert score(0.5, jnp.zeros(2)).shape == (2,)
    ```

    **Arguments:**

    - `d`: the number of coordinates.

    **Raises:** nothing of its own.
    """
    problems = driven_gaussians(d).map(DrivenGaussian.problem)
    keys = st.builds(jax.random.key, st.integers(0, 1000))
    networks = st.builds(
        NeuralScore, problems, width=st.just(4), depth=st.just(1), output_scale=st.floats(0.1, 1), key=keys
    )
    return st.one_of(driven_gaussians(d), networks)


def _square(d: int) -> st.SearchStrategy[np.ndarray]:
    return st.lists(vectors(d), min_size=d, max_size=d).map(np.array)
