"""Reverse Kullback-Leibler divergence of the trained flow, at t = 0 and t = π, without a picture.

D = E_θ[ln ρ_θ − ln |ψ|²], over particles that move with the flow and know its density, ρ_θ = ρ0/|det F|. ψ
is the exact wave function on a grid, evaluated between its points with spectral accuracy.

Three estimates, each with the Monte-Carlo error of independent draws (an upper bound for Sobol points):

- plain: the mean of ln(ρ_θ/|ψ|²);
- positive: that of r − 1 − ln r with r = |ψ|²/ρ_θ. It is the same number, as E_θ[r] = 1, and no term of it is
  negative, but where the flow is wrong in the tails r can be large;
- inside: the part of it from particles that start within 3.3 standard deviations, where training has its own.
"""

import jax
import numpy as np

import _paper
import bohmdiff as bd

PARTICLES = 4096
CHUNK = 512
INSIDE = 3.3


def main() -> None:
    options = _paper.parser(__doc__, weights=True).parse_args()
    arrays = _paper.data("particles.npz", lambda score: compute(score, _paper.solve_exactly()), options)
    initial = _paper.chain(_paper.MODES).initial
    start = (arrays["x0"] - initial.mean) / np.sqrt(np.diagonal(initial.covariance))
    inside = np.linalg.norm(start, axis=1) <= INSIDE
    figures = {
        "particles": len(inside),
        "outside": float(np.mean(~inside)),
        "inverted": int(np.sum(arrays["determinant"] <= 0)),
    }
    for i, when in enumerate(("start", "end")):
        log_ratio = (arrays["log_exact"] - arrays["log_flow"])[:, i].astype(float)
        positive = np.expm1(log_ratio) - log_ratio
        estimates = {"plain": -log_ratio, "positive": positive, "inside": positive * inside}
        for name, values in estimates.items():
            value, error = float(np.mean(values)), float(np.std(values) / np.sqrt(len(values)))
            figures |= {f"{name}_{when}": value, f"{name}_{when}_error": error}
            print(f"{when:<6}{name:<9}{value:9.2e} ± {error:.0e} nats")
    print(
        "{outside:.1%} of {particles} particles outside, {inverted} with det F ≤ 0 in the end".format(
            **figures
        )
    )
    _paper.save_json(figures, options.json)


def compute(score, exact: bd.GridSolution) -> _paper.Arrays:
    """Particles at 0 and π, and the logarithm of both densities there."""
    problem, ts = _paper.chain(_paper.MODES), [0.0, np.pi]
    x0, _ = problem.initial.particles(bd.SobolPoints(PARTICLES), jax.random.key(0))
    solver = bd.BlanesMoan4()
    chunks = [
        bd.propagate(problem, score, x0[i : i + CHUNK], ts=ts, solver=solver, steps=32)
        for i in range(0, len(x0), CHUNK)
    ]
    x, log_flow, deformation = (
        np.concatenate([getattr(flow, name) for flow in chunks])
        for name in ("position", "log_density", "deformation")
    )
    log_exact = [
        jax.lax.map(lambda y, t=t: exact.log_density(t, y), x[:, i], batch_size=256)
        for i, t in enumerate(ts)
    ]
    arrays = {
        "x0": x0,
        "x1": x[:, 1],
        "log_flow": log_flow,
        "log_exact": np.stack(log_exact, axis=1),
        "determinant": np.linalg.det(deformation[:, 1]),
    }
    return {name: np.asarray(array, np.float32) for name, array in arrays.items()}


if __name__ == "__main__":
    _paper.run(main)
