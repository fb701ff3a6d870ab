"""Reverse Kullback-Leibler divergence of the trained flow, at t = 0 and t = π, without a picture.

D = E_θ[ln ρ_θ − ln |ψ|²], over particles that move with the flow and know its density, ρ_θ = ρ0/|det F|. ψ
is the exact wave function on a grid, evaluated between its points with spectral accuracy.

Two estimates of the same number: the mean of ln(ρ_θ/|ψ|²), and that of r − 1 − ln r with r = |ψ|²/ρ_θ, whose
terms are never negative and which has less noise, as E_θ[r] = 1. Errors are those of independent draws, an
upper bound for Sobol points.
"""

import jax
import numpy as np

import _paper
import bohmdiff as bd

PARTICLES = 4096
CHUNK = 512
INSIDE = 3.3  # standard deviations; the training has its particles there


def main() -> None:
    options = _paper.parser(__doc__, weights=True, train=True).parse_args()
    if options.train:
        _paper.train()
        return
    arrays = _paper.data("particles.npz", lambda score: compute(score, _paper.solve_exactly()), options)
    figures = {"particles": len(arrays["x0"])}
    for i, when in enumerate(("0", "π")):
        name = "start" if i == 0 else "end"
        log_ratio = (arrays["log_exact"] - arrays["log_flow"])[:, i].astype(float)
        for what, values in (("plain", -log_ratio), ("positive", np.expm1(log_ratio) - log_ratio)):
            value, error = np.mean(values), np.std(values) / np.sqrt(len(values))
            figures |= {f"{what}_{name}": float(value), f"{what}_{name}_error": float(error)}
            print(f"t = {when}: {what:<9} {value:.2e} ± {error:.0e} nats")
    problem = _paper.chain(_paper.MODES)
    start = (arrays["x0"] - problem.initial.mean) / np.sqrt(np.diagonal(problem.initial.covariance))
    far = np.linalg.norm(start, axis=1) > INSIDE
    figures["positive_end_from_tails"] = float(np.sum(values[far]) / len(values))
    figures["inverted"] = int(np.sum(arrays["determinant"] <= 0))
    print(
        f"of it {figures['positive_end_from_tails']:.2e} is from the {np.mean(far):.1%} of particles that start "
        f"beyond {INSIDE} standard deviations; det F ≤ 0 for {figures['inverted']} particles"
    )
    _paper.save_json(figures, options.json)


def compute(score, exact: bd.GridSolution) -> _paper.Arrays:
    """Particles at 0 and π, and the logarithm of both densities there."""
    problem, ts = _paper.chain(_paper.MODES), [0.0, np.pi]
    x0, _ = problem.initial.points(bd.SobolPoints(PARTICLES), jax.random.key(0))
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
