"""Particles that move on several devices, here several of a processor's, in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", 2)
import bohmdiff as bd

# Not a multiple of two, and more than one chunk on each device.
NUMBER = 4001
problem = bd.Problem(
    bd.Hamiltonian(lambda t, x: jnp.sum(x**2) / 2 + 0.1 * x[0] ** 4, mass=[1.0, 2.0]),
    bd.GaussianWavePacket(mean=[1.0, 0.0], covariance=0.5),
    t1=1.0,
)
score = bd.NeuralScore(problem, baseline=bd.HarmonicScore(problem), width=16, key=jax.random.key(0))
x0, _ = problem.initial.particles(bd.SobolPoints(NUMBER), jax.random.key(1))


def flow(score, x0):
    return bd.propagate(problem, score, x0, ts=[0.3, 1.0], solver=bd.BlanesMoan4(), steps=8)


both, one = flow(score, x0), jax.jit(lambda x0: flow(score, x0))(x0)
for name in ("ts", "position", "velocity", "phase", "energy", "deformation", "deformation_rate", "log_density"):
    ours, theirs = getattr(both, name), getattr(one, name)
    assert ours.shape == theirs.shape, name
    assert ours.devices() == {jax.devices()[0]}, name
    np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-11, err_msg=name)

bound = bd.solve(problem, bd.GivenScore(score, particles=NUMBER, steps=8), key=jax.random.key(2), ts=[1.0])
again = bd.propagate(problem, bound.score, x0, ts=[1.0], solver=bd.BlanesMoan4(), steps=8)
np.testing.assert_allclose(again.position[:, 0], both.position[:, 1], atol=1e-11)

try:
    flow(lambda t, x: 1e3 * x**3, x0)
except ValueError as error:
    assert f"({NUMBER} of {NUMBER}, the first" in str(error), error
    print("refused")
"""


@pytest.mark.long
def test_particles_on_two_devices_move_as_on_one():
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=root,
        env=os.environ | {"XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "refused\n"
