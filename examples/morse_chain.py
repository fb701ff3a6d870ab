r"""Four coupled Morse oscillators.

$$V = \sum_i D\,(1 - e^{-\beta x_i})^2 + \lambda \sum_i x_i x_{i+1}$$

with $D = 12.5$, $\beta = 0.2$, $\lambda = 0.3$ and $m = \hbar = 1$. A Gaussian packet starts displaced in the
first mode. Energy travels down the chain, and the anharmonic wells shear the packet. The picture shows the
mean and the width of each mode (lines) over the exact ones (markers), and the differences below.
"""

import jax
import jax.numpy as jnp

import bohmdiff as bd

jax.config.update("jax_enable_x64", True)  # JAX computes in single precision unless told otherwise

chain = bd.MorseChain(depth=12.5, width=0.2, coupling=0.3)  # or any function V(t, x) of one point
packet = bd.GaussianWavePacket(mean=[1.0, 0.0, 0.0, 0.0], covariance=0.5)
problem = bd.Problem(bd.Hamiltonian(chain, mass=1.0, hbar=1.0), packet, t1=jnp.pi)
ts = jnp.linspace(0.0, jnp.pi, 33)

# Particles on Bohmian trajectories; a polynomial of degree 4 is fitted to their score at every step.
solution = bd.solve(problem, bd.SequentialScoreMatching(degree=4), ts=ts, progress=True)
print(solution)

# The exact answer: the wave function on a grid of 28 points in each coordinate.
exact = bd.solve(problem, bd.SplitOperator(points=28, lower=-6.0, upper=8.0), ts=ts, progress=True)
print(bd.compare(solution, exact))

bd.plot.moments(solution, exact).savefig("morse_chain.png")
