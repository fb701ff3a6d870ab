"""Uses every dependency once: a fit, a grid, a training of two epochs with checkpoints, a file, a picture."""

import warnings
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import optax

import bohmdiff as bd

jax.config.update("jax_enable_x64", True)

problem = bd.Problem(
    bd.Hamiltonian(bd.MorseChain(depth=12.5, width=0.2, coupling=0.3), mass=1.0, hbar=1.0),
    bd.GaussianWavePacket(mean=[1.0, 0.0], covariance=0.5),
    t1=1.0,
)
ts = jnp.linspace(0.0, 1.0, 5)
exact = bd.solve(problem, bd.SplitOperator(points=32, lower=-6.0, upper=8.0), ts=ts, progress=True)
fitted = bd.solve(problem, bd.SequentialScoreMatching(degree=4), ts=ts, progress=True)
assert np.abs(fitted.mean() - exact.mean()).max() < 1e-3
assert np.abs(fitted.std() - exact.std()).max() < 1e-3

# A small training: its first step compiles for long.
line = bd.Problem(
    bd.Hamiltonian(bd.MorseChain(depth=12.5, width=0.2)),
    bd.GaussianWavePacket([0.5], 0.5),
    t1=0.5,
)
psi = bd.NeuralWaveFunction(line, width=4, depth=1, key=jax.random.key(0))
training = bd.Training(optax.adam(1e-3), epochs=2, directory="training")
method = bd.PhysicsInformedNetwork(psi, training=training, particles=32)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)  # it has learned nothing yet
    trained = bd.solve(line, method, key=jax.random.key(1), progress=True)
assert np.isfinite(trained.energy()).all()

fitted.save("solution.nc")
again = bd.load("solution.nc")
np.testing.assert_array_equal(again.mean(), fitted.mean())
bd.plot.moments(fitted, exact).savefig("moments.png")

for name in (
    "jax",
    "equinox",
    "diffrax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "scipy",
    "xarray",
    "matplotlib",
):
    print(name, version(name), end="; ")
print("\nall of them work")
