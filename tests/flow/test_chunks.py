import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bohmdiff as bd
from bohmdiff.flow import _chunks as chunks
from bohmdiff.flow._chunks import in_chunks

PROBLEM = bd.Problem(
    bd.Hamiltonian(lambda t, x: jnp.sum(x**2 + 0.1 * x**4)), bd.GaussianWavePacket([0.3, 0.0], 0.5), t1=0.5
)


def sizes_of_chunks(number, limit, monkeypatch):
    """How many particles each call gets, where the arrays of a particle take 1608 bytes."""
    sizes = []

    def move(x):
        sizes.append(x.shape[0])
        return x

    monkeypatch.setattr(chunks, "_BYTES", {jax.default_backend(): limit})
    x0 = jnp.arange(3.0 * number).reshape(number, 3)
    moved = in_chunks(move, lambda x: jnp.zeros((x.shape[0], 100)) + x[:, :1], x0)
    np.testing.assert_array_equal(moved, x0)
    return sizes


@pytest.mark.parametrize(("number", "most"), [(1000, 400), (1001, 400), (5000, 257), (300, 1)])
def test_a_large_ensemble_goes_in_chunks_of_one_size(number, most, monkeypatch):
    (size,) = set(sizes_of_chunks(number, 1608 * most, monkeypatch))
    assert most / 3 <= size <= most


@pytest.mark.parametrize("number", [2, 256, 1000])
def test_a_small_one_does_not(number, monkeypatch):
    assert sizes_of_chunks(number, 1_700_000, monkeypatch) == [number]


@pytest.mark.long
def test_chunks_change_nothing(monkeypatch):
    x0 = jax.random.normal(jax.random.key(0), (301, 2))

    def run(stiffness):
        score = bd.GradientScore(lambda t, x: -stiffness * jnp.sum(x**2))
        ts = jnp.array([0.1, 0.5])
        return bd.propagate(PROBLEM, score, x0, ts=ts, solver=bd.VelocityVerlet(), steps=4)

    def spread(stiffness):
        flow = run(stiffness)
        return jnp.mean(flow.position**2) + jnp.mean(flow.log_density), flow

    def loops():
        return str(jax.make_jaxpr(spread)(1.1)).count("scan[")

    (_, whole), slope = jax.value_and_grad(spread, has_aux=True)(1.1)
    loops_of_whole = loops()
    jax.clear_caches()
    monkeypatch.setattr(chunks, "_BYTES", {jax.default_backend(): 100_000})
    (_, flow), slope_in_chunks = jax.value_and_grad(spread, has_aux=True)(1.1)
    assert loops() > loops_of_whole
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14), flow, whole)
    np.testing.assert_allclose(slope_in_chunks, slope, rtol=1e-10)
