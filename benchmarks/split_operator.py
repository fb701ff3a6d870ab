"""How long SplitOperator takes, compared with a bare loop of scipy.fft on the same grid and with the same steps.

Both propagate the d = 4 Morse chain by Strang's splitting. The bare loop is `fftn`, multiply by a phase,
`ifftn`, multiply by a phase, in place, with all factors precomputed. Three ratios are printed: of the
propagation alone, of all of `solve` with one saved time (second call), and of all of `solve` with its
compilation (first call).
"""

import argparse
import itertools
import json
import time

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import scipy.fft  # noqa: E402

import bohmdiff as bd  # noqa: E402
from bohmdiff.method.split_operator._propagator import Propagator, advance  # noqa: E402

LOWER, UPPER, DIMENSION = -5.5, 7.5, 4


def bare_loop(psi, kinetic, kick, half_kick, steps, workers):
    psi *= half_kick
    for step in range(steps):
        psi = scipy.fft.fftn(psi, workers=workers, overwrite_x=True)
        psi *= kinetic
        psi = scipy.fft.ifftn(psi, workers=workers, overwrite_x=True)
        psi *= kick if step < steps - 1 else half_kick
    return psi


def seconds(function):
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--points", type=int, default=44, help="grid points per axis (default 44)")
    parser.add_argument("--steps", type=int, default=40, help="steps to t = π/4 (default 40)")
    parser.add_argument("--repeats", type=int, default=3, help="number of timed runs; the fastest counts")
    parser.add_argument("--workers", type=int, default=1, help="threads of scipy.fft (its default, 1)")
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args()

    hamiltonian = bd.Hamiltonian(bd.MorseChain(depth=12.5, width=0.2, coupling=0.3))
    initial = bd.GaussianWavePacket(mean=[1.0, 0.0, 0.0, 0.0], covariance=0.5)
    problem = bd.Problem(hamiltonian, initial, t1=np.pi / 4)
    method = bd.SplitOperator(options.points, LOWER, UPPER, order=2, steps=options.steps)

    # The bare loop, written without the library.
    n, dt = options.points, np.pi / 4 / options.steps
    x = LOWER + (UPPER - LOWER) / n * np.arange(n)
    k = 2 * np.pi * np.fft.fftfreq(n, (UPPER - LOWER) / n)
    axes = np.meshgrid(*[x] * DIMENSION, indexing="ij", sparse=True)
    potential = sum(12.5 * (1 - np.exp(-0.2 * q)) ** 2 for q in axes)
    potential = potential + 0.3 * sum(p * q for p, q in itertools.pairwise(axes))
    squares = sum(np.meshgrid(*[k**2] * DIMENSION, indexing="ij", sparse=True))
    kinetic, kick, half = (np.exp(-1j * a * dt) for a in (squares / 2, potential, potential / 2))
    psi0 = np.pi ** (-DIMENSION / 4) * np.exp(-0.5 * sum((q - c) ** 2 for q, c in zip(axes, (1, 0, 0, 0))))  # noqa: B905
    psi0 = psi0.astype(complex)

    solve = lambda: bd.solve(problem, method, ts=[np.pi / 4])  # noqa: E731
    first, solution = seconds(solve)
    propagator = Propagator(solution.fourier, problem.hamiltonian, method.order)
    operators = propagator.operators(jnp.asarray(dt))
    bare, propagation, whole = [], [], []
    for _ in range(options.repeats):
        took, reference = seconds(
            lambda: bare_loop(psi0.copy(), kinetic, kick, half, options.steps, options.workers)
        )
        bare.append(took)
        psi = jnp.asarray(psi0)
        took, _ = seconds(
            lambda psi=psi: jax.block_until_ready(
                advance(propagator, psi, 0.0, np.pi / 4, dt, operators)[0]
            )
        )
        propagation.append(took)
        whole.append(seconds(solve)[0])
    difference = float(np.max(np.abs(solution.wave_function_on_grid(np.pi / 4) - reference)))
    figures = {
        "points": n,
        "steps": options.steps,
        "device": jax.devices()[0].device_kind,
        "bare_seconds": min(bare),
        "propagation_seconds": min(propagation),
        "solve_seconds": min(whole),
        "first_solve_seconds": first,
        "propagation_ratio": min(propagation) / min(bare),
        "solve_ratio": min(whole) / min(bare),
        "first_solve_ratio": first / min(bare),
        "largest_difference_of_psi": difference,
    }
    print(f"{n}^{DIMENSION} points, {options.steps} steps, largest difference of ψ {difference:.1e}")
    print(f"scipy.fft, {options.workers} workers  {min(bare):8.2f} s")
    print(f"propagation           {min(propagation):8.2f} s   ratio {figures['propagation_ratio']:.2f}")
    print(f"solve                 {min(whole):8.2f} s   ratio {figures['solve_ratio']:.2f}")
    print(f"first solve           {first:8.2f} s   ratio {figures['first_solve_ratio']:.2f}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(figures, file, indent=2)


if __name__ == "__main__":
    main()
