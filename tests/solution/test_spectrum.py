"""Spectra: known signals, an oscillator and a Morse oscillator, whose levels have closed forms."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.unchecked import unchecked_types

import bohmdiff as bd

TS = jnp.linspace(0.0, 40.0, 321)


def spectrum_of(ts, signal, of_levels=False):
    """A spectrum of a signal without a solution, for its lines."""
    nothing, zero = jnp.zeros(1), jnp.zeros(())
    return bd.Spectrum(nothing, nothing, jnp.asarray(ts), jnp.asarray(signal), zero, zero + 1, of_levels)


def harmonic(mean=0.8, momentum=0.0, ts=TS, hbar=1.0, dtype=float, t1=40.0):
    mean, momentum, covariance, omega, mass, hbar = (
        np.asarray(value, dtype) for value in ([mean], [momentum], hbar / 3, 2.25, 1.0, hbar)
    )
    problem = bd.Problem(
        bd.Hamiltonian(bd.Quadratic(omega[None]), mass, hbar),
        bd.GaussianWavePacket(mean, covariance, momentum=momentum),
        t1=t1,
    )
    return bd.solve(problem, bd.GaussianDynamics(steps=1000), ts=ts)


@pytest.fixture(scope="module")
def swinging():
    return harmonic()


def test_fifteen_lines_of_400_femtoseconds_to_a_third_of_a_wavenumber():
    """Where one over the length of the signal is 83 wavenumbers."""
    rng = np.random.default_rng(1)
    wavenumber = np.sort(1000 + 3200 * (np.arange(15) + 0.6 * rng.uniform(size=15)) / 15)
    amplitude, phase = 10 ** rng.uniform(-3, 0, 15), rng.uniform(0, 6, 15)
    ts = np.linspace(0, 400 * bd.units.fs, 401)
    angles = wavenumber * bd.units.inverse_cm * ts[:, None] + phase
    lines = spectrum_of(ts, 0.7 + np.cos(angles) @ amplitude).lines()
    assert lines.frequency.shape == (15,)
    np.testing.assert_allclose(lines.energy / bd.units.inverse_cm, wavenumber, atol=0.01)
    np.testing.assert_allclose(lines.intensity, amplitude, rtol=1e-3)
    np.testing.assert_allclose(lines.damping / bd.units.inverse_cm, 0, atol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("of_levels", [False, True])
def test_the_errors_of_lines_cover_the_truth(of_levels):
    rng, ts = np.random.default_rng(2), 0.5 * np.arange(240)
    frequency, damping = np.array([1.0, 1.3, 2.6]), np.array([0.005, 0.01, 0.0])
    amplitude, noise = np.array([1.0, 0.6, 0.4]), 0.05
    ratios = []
    for _ in range(30):
        phase = np.zeros(3) if of_levels else rng.uniform(0, 6, 3)
        clean = np.exp(-(damping + 1j * frequency) * ts[:, None] + 1j * phase) @ amplitude
        noisy = clean + noise * (rng.standard_normal(240) + 1j * rng.standard_normal(240))
        lines = spectrum_of(ts, noisy if of_levels else noisy.real, of_levels).lines()
        assert lines.frequency.shape == (3,)
        truth = {"frequency": frequency, "intensity": amplitude, "damping": damping}
        ratios.append(
            [
                (getattr(lines, name) - value) / getattr(lines, f"{name}_error")
                for name, value in truth.items()
            ]
        )
    within = np.abs(np.array(ratios))
    one, two = np.mean(within < 1, axis=(0, 2)), np.mean(within < 2, axis=(0, 2))
    assert np.all((one > 0.55) & (one < 0.85)), one
    assert np.all(two > 0.88), two


@pytest.mark.slow
def test_the_errors_of_crowded_lines_cover_the_truth():
    rng, ts = np.random.default_rng(3), np.linspace(0, 400, 401)
    frequency, amplitude = 0.2 + 0.035 * np.arange(8), np.geomspace(1, 0.05, 8)
    ratios = []
    for _ in range(12):
        signal = np.cos(frequency * ts[:, None] + rng.uniform(0, 6, 8)) @ amplitude
        lines = spectrum_of(ts, signal + 1e-3 * rng.standard_normal(401)).lines()
        assert lines.frequency.shape == (8,)
        ratios.append((lines.frequency - frequency) / lines.frequency_error)
    within = np.abs(np.array(ratios))
    assert 0.55 < np.mean(within < 1) < 0.85
    assert np.mean(within < 2) > 0.88


def test_a_signal_that_is_no_sum_of_waves_has_larger_errors():
    """A frequency that drifts: the first three quarters of the signal give another one."""
    rng, ts = np.random.default_rng(0), np.arange(200.0)
    noise = 0.2 * rng.standard_normal(200)
    steady = spectrum_of(ts, np.cos(0.7 * ts) + noise).lines()
    drifting = spectrum_of(ts, np.cos(0.7 * ts + 4e-5 * ts**2) + noise).lines()
    assert steady.frequency.shape == drifting.frequency.shape == (1,)
    # On average it is 0.7 + 4e-5 · 200.
    assert abs(drifting.frequency[0] - 0.708) < 2 * drifting.frequency_error[0]
    assert drifting.frequency_error[0] > 4 * steady.frequency_error[0]


def test_long_signals_are_looked_at_with_a_stride():
    ts = np.arange(4000.0)
    frequency, amplitude = np.array([0.9, 0.9004, 2.9]), np.array([1.0, 0.5, 0.2])
    lines = spectrum_of(ts, np.cos(frequency * ts[:, None]) @ amplitude).lines()
    np.testing.assert_allclose(lines.frequency, frequency, atol=1e-9)
    np.testing.assert_allclose(lines.intensity, amplitude, atol=1e-6)


def test_silence_has_no_lines():
    for signal in (np.zeros(64), np.full(64, 3.0)):
        assert spectrum_of(np.arange(64.0), signal).lines().frequency.shape == (0,)


def test_levels_and_populations_of_an_oscillator(swinging):
    """Those of a coherent state: (n + ½) ħω, and Poisson's distribution."""
    spectrum = bd.spectrum(swinging)
    lines = spectrum.lines()
    mean_number = 1.5 * 0.8**2 / 2
    n = np.arange(6)
    populations = np.exp(-mean_number) * mean_number**n / [math.factorial(k) for k in n]
    np.testing.assert_allclose(lines.energy[:6], 1.5 * (n + 0.5), atol=2e-5)
    np.testing.assert_allclose(lines.intensity[:6], populations, atol=1e-5)
    np.testing.assert_allclose(lines.damping[:4], 0, atol=1e-5)
    assert abs(jnp.sum(lines.intensity) - 1) < 1e-5
    # The peaks of the transform are as high.
    peaks = [np.argmin(np.abs(spectrum.energy - energy)) for energy in 1.5 * (n[:4] + 0.5)]
    np.testing.assert_allclose(spectrum.intensity[np.array(peaks)], populations[:4], atol=5e-3)
    assert spectrum.of_levels


def test_the_line_of_a_dipole(swinging):
    spectrum = bd.spectrum(swinging, lambda x: 5.0 + 2 * x[0])
    lines = spectrum.lines()
    np.testing.assert_allclose(lines.frequency, [1.5], atol=1e-6)
    np.testing.assert_allclose(lines.intensity, [1.6], rtol=1e-5)
    highest = jnp.argmax(spectrum.intensity)
    np.testing.assert_allclose(spectrum.frequency[highest], 1.5, atol=0.02)
    np.testing.assert_allclose(spectrum.intensity[highest], 1.6, rtol=2e-2)
    assert float(jnp.max(spectrum.intensity[spectrum.frequency > 3])) < 1e-3
    assert "frequency" in str(lines)


def test_a_vector_and_another_planck_constant():
    solution = harmonic(mean=0.0, momentum=0.6, hbar=0.5)

    def dipole(x):
        return jnp.stack([x[0], 2 * x[0], 0 * x[0]])

    lines = bd.spectrum(solution, dipole).lines()
    np.testing.assert_allclose(lines.energy, [0.75], atol=1e-6)
    np.testing.assert_allclose(lines.energy_error, 0.5 * lines.frequency_error)
    np.testing.assert_allclose(lines.intensity, [math.sqrt(5) * 0.4], rtol=1e-5)


@pytest.mark.slow
def test_levels_of_a_morse_oscillator():
    problem = bd.Problem(
        bd.Hamiltonian(bd.MorseChain(depth=12.5, width=0.2)),
        bd.GaussianWavePacket([1.0], 0.5),
        t1=240.0,
    )
    method = bd.SplitOperator(points=64, lower=-5.0, upper=9.0, steps=2400)
    solution = bd.solve(problem, method, ts=jnp.linspace(0, 240.0, 1201))
    n = np.arange(7) + 0.5
    exact = n - n**2 / 50
    levels = bd.spectrum(solution).lines()
    np.testing.assert_allclose(levels.energy[:7], exact, atol=1e-5)
    assert abs(jnp.sum(levels.intensity) - 1) < 1e-6
    # Lines of the dipole lie at differences of levels, the strongest between the lowest two.
    dipole = bd.spectrum(solution, lambda x: x[0]).lines()
    found = dipole.frequency[dipole.intensity > 1e-3]
    pairs = np.array([0, 1, 2, 3]), np.array([0, 1])
    differences = [exact[i + k] - exact[i] for k, low in zip((1, 2), pairs, strict=True) for i in low]
    np.testing.assert_allclose(np.sort(found), np.sort(differences), atol=1e-5)


@pytest.mark.slow
def test_single_precision():
    solution = harmonic(dtype=np.float32)
    assert solution.ts.dtype == jnp.float32
    lines = bd.spectrum(solution, lambda x: x[0]).lines()
    assert lines.frequency.dtype == lines.damping_error.dtype == jnp.float32
    np.testing.assert_allclose(lines.frequency[jnp.argmax(lines.intensity)], 1.5, atol=1e-4)
    levels = bd.spectrum(solution)
    assert levels.intensity.dtype == levels.frequency.dtype == jnp.float32
    found = levels.lines()
    np.testing.assert_allclose(found.energy[found.intensity > 2e-2], [0.75, 2.25, 3.75], atol=1e-3)


@pytest.mark.slow
def test_transformations(swinging):

    def dipole(x):
        return x[0]

    inside = eqx.filter_jit(lambda solution: bd.spectrum(solution, dipole))(swinging)
    outside = bd.spectrum(swinging, dipole)
    np.testing.assert_allclose(inside.intensity, outside.intensity, atol=1e-12)
    np.testing.assert_allclose(inside.lines().frequency, outside.lines().frequency)
    with pytest.raises(ValueError, match="under jit"):
        eqx.filter_jit(lambda spectrum: spectrum.lines().frequency)(outside)

    def height(mean):
        return jnp.max(bd.spectrum(harmonic_at(mean), dipole).intensity)

    def harmonic_at(mean):
        problem = bd.Problem(
            bd.Hamiltonian(bd.Quadratic([2.25])), bd.GaussianWavePacket(mean[None], 1 / 3), t1=40.0
        )
        return bd.solve(problem, bd.GaussianDynamics(steps=200), ts=TS[::4])

    # The amplitude is proportional to the displacement.
    np.testing.assert_allclose(
        jax.grad(height)(jnp.asarray(0.8)), height(jnp.asarray(0.8)) / 0.8, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("ts", "observable", "message"),
    [
        ([0.0, 1.0, 2.5, 4.0], None, r"spacings range from 1\.?0* to 1\.5"),
        ([0.0, 1.0], None, "equally spaced"),
        ([1.0, 2.0, 3.0], None, "must start at t0 = 0"),
        (TS, 3.0, "must be a function"),
        (TS, lambda x: jnp.outer(x, x), "a real number or a vector"),
        (TS, lambda x: x[0] + 1j, "a real number or a vector"),
        (TS, lambda x: {"x": x[0]}, "a real number or a vector"),
        (TS, lambda x: x[0] @ x, "could not be evaluated"),
    ],
)
def test_bad_input(ts, observable, message):
    solution = harmonic(ts=ts)
    with unchecked_types(), pytest.raises(ValueError, match=message):
        bd.spectrum(solution, observable)


def test_too_few_times_for_lines():
    solution = harmonic(ts=jnp.linspace(0, 4.0, 7))
    with pytest.raises(ValueError, match="at least 8 saved times"):
        bd.spectrum(solution, lambda x: x[0]).lines()


def test_a_signal_that_is_not_finite(swinging):
    with pytest.raises(bd.NotFiniteError, match="not finite at t = 0"):
        bd.spectrum(swinging, lambda x: jnp.log(-1 - x[0] ** 2))


def test_times_that_are_too_far_apart_are_told(swinging):
    with pytest.warns(UserWarning, match="largest frequency"):
        bd.spectrum(harmonic(ts=jnp.linspace(0, 40.0, 20)), lambda x: x[0])


@pytest.mark.slow
def test_levels_of_a_drive_are_told():

    def drive(t, x):
        return 1.125 * x[0] ** 2 - 0.1 * jnp.sin(t) * x[0]

    problem = bd.Problem(bd.Hamiltonian(drive), bd.GaussianWavePacket([0.0], 1 / 3), t1=20.0)
    solution = bd.solve(problem, bd.GaussianDynamics(steps=400), ts=jnp.linspace(0, 20.0, 101))
    with pytest.warns(UserWarning, match="no energy levels"):
        bd.spectrum(solution)
