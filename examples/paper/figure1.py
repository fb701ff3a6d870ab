"""Figure 1: a wave packet splits on the barrier of a double well.

V = D (x²/a² − 1)² with D = 1, a = 2 and m = ħ = 1; ρ0 is a Gaussian of standard deviation ½ at x = 0. In
grey the exact density until t = π, over it exact Bohmian trajectories: in one dimension they are the
quantiles of the density, each with a constant probability to its left. Both are recomputed, in
seconds.
"""

import jax.numpy as jnp
import numpy as np

import _paper
import bohmdiff as bd


def main() -> None:
    options = _paper.parser(__doc__).parse_args()
    problem = bd.Problem(
        bd.Hamiltonian(bd.DoubleWell(barrier=1.0, minimum=2.0), mass=1.0, hbar=1.0),
        bd.GaussianWavePacket(mean=[0.0], covariance=0.25),
        t1=jnp.pi,
    )
    grid = bd.SplitOperator(points=256, lower=-8.0, upper=8.0)
    exact = bd.solve(problem, grid)
    paths = np.asarray(exact.quantile_trajectories((np.arange(24) + 0.5) / 24))
    print(f"standard deviation at t = π: {float(exact.std()[-1, 0]):.6f}; {exact}")
    figure = bd.plot.density(exact, paths, label="exact Bohmian trajectories", lower=-4.5, upper=4.5)
    _paper.save_figure(figure, options.out, "figure1.png")
    _paper.save_json(
        {
            "std_end": float(exact.std()[-1, 0]),
            "energy": float(exact.energy()[-1]),
            "energy_drift": float(exact.energy_drift),
            "trajectories_cross": bool(np.any(np.diff(paths, axis=0) <= 0)),
        },
        options.json,
    )


if __name__ == "__main__":
    _paper.run(main)
