"""Settings of JAX with which users look for accidents in their own code: there are none in ours."""

from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bohmdiff as bd

KEY = jax.random.key(0)
TS = np.array([0.0, 0.25, 0.5])
METHODS = {
    "SplitOperator": bd.SplitOperator(24, -6.0, 6.0, steps=4),
    "GaussianDynamics": bd.GaussianDynamics(steps=4),
    "SequentialScoreMatching": bd.SequentialScoreMatching(2, steps=4),
    "GivenScore": bd.GivenScore(lambda t, x: -2 * x.at[0].add(-0.5), bd.GaussHermitePoints(4), steps=4),
}
USES: dict[str, Callable[[bd.Solution], object]] = {
    "compare": lambda s: repr(bd.compare(s, s)),
    "propagate": lambda s: bd.propagate(
        s.problem, s, np.zeros((2, 2)), ts=TS, solver=bd.BlanesMoan4(), steps=8
    ),
    "overlap": lambda s: s.overlap(s),
    "autocorrelation": lambda s: s.autocorrelation(),
    "expectation": lambda s: s.expectation(lambda x: (x[0] > 0, jnp.sum(x) ** 2)),
    "trajectories": lambda s: s.trajectories(np.zeros((2, 2))),
    "sample": lambda s: s.sample(KEY, 2),
    "velocity": lambda s: s.velocity(0.3, np.zeros(2)),
    "to_xarray": lambda s: s.to_xarray(),
}


@pytest.fixture(autouse=True)
def strict():
    with (
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
        jax.transfer_guard("disallow"),
    ):
        yield


def problem(dtype):
    drive = bd.Quadratic(1.0, linear=lambda t: 0.1 * jnp.sin(t))
    return bd.Problem(
        bd.Hamiltonian(drive), bd.GaussianWavePacket(np.array([0.5, 0.0], dtype), 0.5), t1=0.5
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(METHODS))
def test_methods_and_solutions(name):
    solution = bd.solve(problem(np.float64), METHODS[name], ts=TS, key=KEY)
    assert np.all(np.isfinite(np.asarray(solution.mean()) + np.asarray(solution.std())))
    for use in USES.values():
        with suppress(bd.UnavailableError):
            use(solution)


@pytest.mark.slow
def test_a_grid_in_single_precision():
    solution = bd.solve(problem(np.float32), METHODS["SplitOperator"], ts=TS)
    assert solution.energy().dtype == np.float32
    solution.velocity(0.3, np.zeros(2, np.float32))  # between saved times, with a driven potential


def test_particles():
    initial = bd.GaussianMixture([0.5, 0.5], [[-0.5, 0.0], [0.5, 0.0]], 0.5)
    x, weights = initial.particles(bd.GaussHermitePoints(3))
    assert np.all(np.isfinite(x))
    assert abs(float(np.asarray(weights).sum()) - 1) < 1e-6


@pytest.mark.parametrize(
    "value",
    [
        np.array([0.5], np.float16),
        jnp.array([0.5], jnp.bfloat16),
        np.array([1], "m8[s]"),
        [Decimal("0.5")],
        np.ma.array([0.5], mask=[True]),
        bytearray(b"1"),
        np.array([1.5], np.longdouble),
    ],
    ids=str,
)
def test_numbers_of_other_kinds(value):
    with pytest.raises(ValueError, match="mean must be"):
        bd.GaussianWavePacket(value, 0.5)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: bd.RandomPoints(np.timedelta64(3, "s")), "number"),
        (lambda: bd.SplitOperator(np.timedelta64(32, "s"), -1.0, 1.0), "points"),
        (lambda: bd.SplitOperator(32, np.ma.array([-1.0], mask=[True]), 1.0), "lower"),
        (lambda: bd.AutomaticDegree(tolerance=np.complex128(1 + 1j)), "tolerance"),
        (lambda: bd.GaussHermitePoints(4, discard=np.timedelta64(0, "s")), "discard"),
        (lambda: bd.TabulatedPotential(["1234", [0, 1, 2, 3]], np.zeros((4, 4))), "axis 0"),
    ],
)
def test_options_of_other_kinds(make, name):
    with pytest.raises(ValueError, match=name):
        make()
