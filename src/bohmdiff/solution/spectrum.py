"""Spectra: the frequencies in a signal of a solution, by a Fourier transform and as lines."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Complex, Float
from scipy.fft import next_fast_len

from .._check import describe, is_concrete, require, warn
from .._errors import NotFiniteError
from .._precision import in_full_precision
from .._types import Scalar, Times, Vector
from ..hamiltonian import depends_on_time
from ._pencil import waves
from .solution import Solution, as_solution, check_observable

# How many times longer the signal is made by zeros, so that peaks are smooth.
_PADDING = 8
_FEWEST_TIMES = 8
_UNEQUAL = 1e-6
# Lines that are weaker than this, relative to the strongest, are left out.
_WEAKEST = 1e-6
# Frequencies next to the largest one, and how strong they may be.
_OUTERMOST = 0.05
_FOLDED = 1e-2


class Lines(eqx.Module):
    r"""The lines of a [`Spectrum`][bohmdiff.Spectrum], by frequency; each array has the shape `(L,)`.

    ```python
    lines = bd.spectrum(exact, lambda x: x[0]).lines()
    lines.frequency, lines.frequency_error
    print(lines)
    ```

    - `frequency`: $\omega$, an angle per time. `energy` is $\hbar\omega$.
    - `intensity`: as in the spectrum.
    - `damping`: $\gamma$, by which the wave decays as $e^{-\gamma t}$; $2\gamma$ is the width of the line
        at half its height. Zero up to its error for a system without losses.
    - `frequency_error`, `intensity_error`, `damping_error`: one standard deviation.
    - `hbar`: that of the problem.
    """

    frequency: Float[Array, " L"]
    intensity: Float[Array, " L"]
    damping: Float[Array, " L"]
    frequency_error: Float[Array, " L"]
    intensity_error: Float[Array, " L"]
    damping_error: Float[Array, " L"]
    hbar: Scalar

    @property
    def energy(self) -> Float[Array, " L"]:
        r"""$\hbar\omega$, shape `(L,)`."""
        return self.hbar * self.frequency

    @property
    def energy_error(self) -> Float[Array, " L"]:
        r"""The error of $\hbar\omega$, shape `(L,)`."""
        return self.hbar * self.frequency_error

    def __str__(self) -> str:
        columns = ("frequency", "intensity", "damping")
        rows = ["".join(f"{name:>14}{'±':>10}" for name in columns)]
        values = [np.asarray(getattr(self, name + end)) for name in columns for end in ("", "_error")]
        for line in zip(*values, strict=True):
            pairs = zip(line[::2], line[1::2], strict=True)
            rows.append("".join(f"{value:>14.8g}{error:>10.1e}" for value, error in pairs))
        return "\n".join(rows)


class Spectrum(eqx.Module):
    r"""What [`spectrum`][bohmdiff.spectrum] returns.

    ```python
    spectrum = bd.spectrum(exact, lambda x: x[0])
    spectrum.frequency, spectrum.intensity
    spectrum.lines().energy / bd.units.inverse_cm
    ```

    - `frequency`: $\omega$, an angle per time, shape `(F,)`. `energy` is $\hbar\omega$.
    - `intensity`: at each frequency, shape `(F,)`.
    - `ts`, `signal`: the saved times, shape `(K,)`, and the signal there, `(K,)` or `(K, C)`.
    - `centre`: the frequency in the middle.
    - `hbar`: that of the problem.
    - `of_levels`: whether the lines are energy levels, since the signal is an autocorrelation.
    """

    frequency: Float[Array, " F"]
    intensity: Float[Array, " F"]
    ts: Times
    signal: Array
    centre: Scalar
    hbar: Scalar
    of_levels: bool = eqx.field(static=True)

    @property
    def energy(self) -> Float[Array, " F"]:
        r"""$\hbar\omega$, shape `(F,)`."""
        return self.hbar * self.frequency

    def lines(self) -> Lines:
        r"""The lines as such, far sharper than the peaks, whose width is that of the window.

        ```python
        lines = bd.spectrum(exact, lambda x: x[0] - x[1]).lines()
        lines.energy / bd.units.inverse_cm, lines.energy_error
        ```

        The signal is fitted by damped waves $\sum_j a_j e^{-(\gamma_j + i\omega_j)t}$: first by a matrix
        pencil, then by least squares. Their number is the one with the least Bayesian information
        criterion. Lines that are closer than the noise allows to tell become one, and lines weaker than
        1e-6 of the strongest are left out.

        The error is the bound of Cramér and Rao, by what the fit leaves. Where the first three quarters of the
        signal give another value than this bound explains, as they do if the signal is no such sum, the
        difference is added in squares. What is wrong with the solution itself is not in it.

        **Returns:** [`Lines`][bohmdiff.Lines], of an observable those of positive frequency.

        **Raises:** `ValueError` for fewer than eight saved times, or under a transformation of JAX.
        """
        if not is_concrete(self):
            raise ValueError(
                "lines() compares numbers to find how many lines there are, which it cannot under jit, grad or "
                "vmap. Return the spectrum from the transformed function, and call lines() outside."
            )
        if self.ts.size < _FEWEST_TIMES:
            raise ValueError(
                f"lines() needs at least {_FEWEST_TIMES} saved times, but the signal has {self.ts.size}. "
                "Pass more ts to solve."
            )
        ts, centre = np.asarray(self.ts, float), float(self.centre)
        step, signal = (ts[-1] - ts[0]) / (ts.size - 1), np.asarray(self.signal)
        if self.of_levels:
            signal = signal * np.exp(1j * centre * (ts - ts[0]))
        signal = signal.reshape(ts.size, -1)
        found = waves(signal.astype(complex if self.of_levels else float))
        parts = np.real(found.amplitude), np.imag(found.amplitude)
        variance = np.einsum("aibi->iab", found.covariance)
        errors = np.sqrt(np.diagonal(variance, axis1=1, axis2=2).T + found.change**2)
        if self.of_levels:
            intensity, intensity_error = parts[0][:, 0], errors[2]
            kept = np.ones(intensity.size, bool)
        else:
            intensity = np.linalg.norm(found.amplitude, axis=1)
            gradient = np.concatenate(parts, axis=1) / np.where(intensity > 0, intensity, 1)[:, None]
            own = np.einsum("ia,iab,ib->i", gradient, variance[:, 2:, 2:], gradient)
            intensity_error = np.sqrt(
                np.maximum(own, 0) + np.sum((gradient.T * found.change[2:]) ** 2, axis=0)
            )
            # What does not oscillate is no line.
            kept = np.sin(found.frequency) > 1e-14
        kept &= intensity > _WEAKEST * np.max(np.where(kept, intensity, 0), initial=0)
        order = np.flatnonzero(kept)[np.argsort(found.frequency[kept])]
        columns = (
            centre + found.frequency / step,
            intensity,
            found.damping / step,
            errors[1] / step,
            intensity_error,
            errors[0] / step,
        )
        one, two, three, four, five, six = (jnp.asarray(column[order], self.ts.dtype) for column in columns)
        return Lines(one, two, three, four, five, six, self.hbar)


@in_full_precision
def spectrum(
    solution: Solution, observable: Callable[[Vector], Float[ArrayLike, "..."]] | None = None
) -> Spectrum:
    r"""The frequencies in an observable, or the energy levels in the initial state.

    ```python
    well = bd.Hamiltonian(bd.MorseChain(depth=12.5, width=0.2))
    displaced = bd.GaussianWavePacket([1.0], 0.5)
    ringing = bd.solve(
        bd.Problem(well, displaced, t1=60.0),
        bd.SplitOperator(points=64, lower=-5.0, upper=9.0),
        ts=jnp.linspace(0.0, 60.0, 301),
    )
    bd.spectrum(ringing).lines().energy  # levels
    bd.spectrum(ringing, lambda x: x[0]).lines()  # of a dipole
    ```

    The spectrum of an observable, such as a dipole, has a line at each difference of two levels. Its mean
    over time is taken off. `intensity` is the amplitude: a wave $A\cos(\omega t + \varphi)$ has a peak of
    the height $A$. For a vector it is $\sqrt{\sum_c A_c^2}$. After a weak kick $e^{i k\cdot x/\hbar}$
    along the dipole this is proportional to the strength of absorption.

    Without an observable, the signal is the [`autocorrelation`][bohmdiff.Solution.autocorrelation], whose
    lines are the energy levels. `intensity` is the population $|\langle n|\psi\rangle|^2$.

    The transform has a window of Hann, so that peaks have a width at half their height of $4\pi/T$ in
    $\omega$ for a signal of the length $T$, $2\pi/T$ for an autocorrelation, and is made smooth by zeros.
    `lines()` of the result are far sharper.

    **Arguments:**

    - `solution`: any solution, saved at equally spaced times: `ts=jnp.linspace(t0, t1, K)`. The largest angular
        frequency that can be seen is $\pi$ over their spacing. Levels must lie within $\pi\hbar$ over it
        around the mean energy.
    - `observable`: a function `f(x)` of one position, shape `(d,)`, that returns a real number or a vector
        of shape `(C,)`; the autocorrelation if not given.

    **Units:** frequencies in 1 / time, intensities in those of the observable, populations without.

    **Returns:** a [`Spectrum`][bohmdiff.Spectrum].

    **Raises:** `ValueError` for times that are not equally spaced, an observable of another shape, or an
    autocorrelation that does not start at `t0`; [`UnavailableError`][bohmdiff.UnavailableError] if the
    solution has no autocorrelation; [`NotFiniteError`][bohmdiff.NotFiniteError] for a signal that is not
    finite. It warns of strong lines at the largest frequency, which may be those of higher ones, and of levels of
    a Hamiltonian that depends on time.

    ??? cite "Reference"

        Y. Hua, T. K. Sarkar, IEEE Trans. Acoust. Speech Signal Process. 38, 814 (1990).
    """
    solution = as_solution(solution, "solution")
    problem, ts = solution.problem, _equally_spaced(solution)
    hbar = problem.hamiltonian.hbar
    if observable is None:
        _check_levels(solution)
        signal, centre = solution.autocorrelation(), solution.energy()[0] / hbar
    else:
        _check_dipole(solution, observable)
        signal, centre = solution.expectation(observable), jnp.zeros((), ts.dtype)
    _require_finite(ts, signal)
    frequency, intensity = _levels(ts, signal, centre) if observable is None else _transform(ts, signal)
    _warn_of_folding(frequency, intensity, observable is None)
    return Spectrum(frequency, intensity, ts, signal, centre, hbar, observable is None)


@jax.jit
def _levels(ts: Times, signal: Complex[Array, " K"], centre: Scalar) -> tuple[Array, Array]:
    """The real part of a one-sided transform, with one half of a window: a peak for each level."""
    phase = centre * (ts - ts[0])
    window = jnp.cos(0.5 * jnp.pi * (ts - ts[0]) / (ts[-1] - ts[0])) ** 2
    window = window.at[0].set(0.5)
    turned = signal * jax.lax.complex(jnp.cos(phase), jnp.sin(phase)) * window
    n, step = _padded(ts), (ts[-1] - ts[0]) / (ts.size - 1)
    intensity = n * jnp.fft.ifft(turned, n).real / jnp.sum(window)
    frequency = centre + 2 * jnp.pi * jnp.fft.fftfreq(n).astype(ts.dtype) / step
    return jnp.fft.fftshift(frequency), jnp.fft.fftshift(intensity)


@jax.jit
def _transform(ts: Times, signal: Float[Array, "..."]) -> tuple[Array, Array]:
    """The amplitudes, with a whole window."""
    window = jnp.sin(jnp.pi * (ts - ts[0]) / (ts[-1] - ts[0])) ** 2
    each = (signal.reshape(ts.size, -1) - jnp.mean(signal, axis=0).reshape(1, -1)) * window[:, None]
    n, step = _padded(ts), (ts[-1] - ts[0]) / (ts.size - 1)
    squares = jnp.sum(jnp.abs(jnp.fft.rfft(each, n, axis=0)) ** 2, axis=1)
    # The derivative of a root of zero is infinite.
    intensity = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
    frequency = 2 * jnp.pi * jnp.fft.rfftfreq(n).astype(ts.dtype) / step
    return frequency, 2 * intensity / jnp.sum(window)


def _padded(ts: Times) -> int:
    return int(next_fast_len(_PADDING * ts.size) or 0)


def _equally_spaced(solution: Solution) -> Times:
    ts = solution.ts
    if ts.size < 3:
        raise ValueError(
            f"A spectrum needs equally spaced saved times, but the solution has {ts.size}. Pass "
            "ts=jnp.linspace(t0, t1, 401) to solve."
        )
    steps = jnp.diff(ts)
    slack = _UNEQUAL * jnp.mean(steps) + 8 * jnp.finfo(ts.dtype).eps * jnp.max(jnp.abs(ts))
    return require(
        ts,
        jnp.max(steps) - jnp.min(steps) <= slack,
        "A spectrum needs equally spaced saved times, but their spacings range from "
        f"{describe(jnp.min(steps))} to {describe(jnp.max(steps))}. Pass "
        f"ts=jnp.linspace(t0, t1, {ts.size}) to solve.",
    )


def _check_levels(solution: Solution) -> None:
    problem, ts = solution.problem, solution.ts
    start = problem.t0.astype(ts.dtype)
    if is_concrete((start, ts)) and float(ts[0]) != float(start):
        raise ValueError(
            f"The saved times must start at t0 = {describe(start)} for a spectrum of levels, but the first is "
            f"{describe(ts[0])}. Pass ts=jnp.linspace(t0, t1, {ts.size}) to solve, or an observable."
        )
    if depends_on_time(problem.hamiltonian, problem.dimension, problem.dtype):
        warn(
            "The Hamiltonian depends on time, so that the lines of the autocorrelation are no energy levels "
            "and no populations. Pass an observable, such as a dipole, or solve without the drive."
        )


def _check_dipole(solution: Solution, observable: Callable[[Vector], Float[ArrayLike, "..."]]) -> None:
    if not callable(observable):
        raise ValueError(
            f"observable must be a function of one position, such as a dipole, but {observable!r} was given."
        )
    out = check_observable(solution, lambda t, x: observable(x), "observable(x)")
    if len(getattr(out, "shape", (0, 0))) > 1 or not jnp.issubdtype(out.dtype, jnp.floating):
        raise ValueError(
            f"observable(x) must return a real number or a vector for one position x of shape "
            f"({solution.problem.dimension},), such as x[0], but it returned {out}."
        )


def _require_finite(ts: Times, signal: Array) -> None:
    if not is_concrete((ts, signal)):
        return
    finite = np.isfinite(np.asarray(signal)).reshape(ts.size, -1).all(axis=1)
    if not finite.all():
        raise NotFiniteError(
            f"The signal is not finite at t = {describe(ts[int(np.argmin(finite))])}, so that it has no "
            "spectrum. Look at the diagnostics of the solution, or pass ts that end before."
        )


def _warn_of_folding(frequency: Array, intensity: Array, both: bool) -> None:
    if not is_concrete(intensity):
        return
    values, n = np.abs(np.asarray(intensity)), frequency.size
    outer = int(_OUTERMOST * n)
    edge = max(np.max(values[-outer:], initial=0), np.max(values[:outer], initial=0) if both else 0)
    share = edge / np.max(values, initial=np.finfo(float).tiny)
    if share > _FOLDED:
        warn(
            f"The spectrum reaches its largest frequency, {float(frequency[-1]):.5g}, with {share:.1e} of its "
            "height: lines beyond appear as lower ones. Pass more ts to solve."
        )
