"""Sums of damped waves in equally spaced samples: a matrix pencil, and least squares from there. With NumPy.

The signal is Σ_j a_j z_j^k, z_j = exp(−(γ_j + iω_j) dt), or the real part of such a sum.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy import linalg

# At most so many rows and columns of the matrix; longer signals are looked at with a stride.
_ROWS, _COLUMNS = 800, 400
_MOST_WAVES = 128
# An order is accepted once this many larger ones in a row were no better.
_PATIENCE = 24
# What is left counts as rounding below this share of the signal.
_ROUNDING = 1e-12
_ITERATIONS, _HALVINGS = 30, 5
# Steps end where the squared residual falls by less than this share of the variance of one sample.
_CONVERGED = 1e-3
# A wave that grows by more than the exponential of this is noise.
_GROWTH = 10.0
# A wave of a real signal that turns by less than this angle is a drift.
_SLOWEST = 1.0
# The part of the signal that is fitted again, and how many standard deviations the change may have.
_SHORTER = 0.75
_EXPECTED = 2.0


class Waves(NamedTuple):
    """The waves of a signal, in units of the spacing of its samples.

    `damping`, `frequency` have the shape `(J,)`, `amplitude` `(J, C)`; `covariance` is that of the real
    parameters: damping, frequency, and real and imaginary parts of the amplitudes, each for all waves, `(2
    + 2C, J, 2 + 2C, J)`. `change` is by how much more the parameters change than they should if the signal
    is shortened, `(2 + 2C, J)`.
    """

    damping: np.ndarray
    frequency: np.ndarray
    amplitude: np.ndarray
    covariance: np.ndarray
    change: np.ndarray


def waves(y: np.ndarray) -> Waves:
    """The waves in samples of shape `(K, C)`, real or complex. Of a real signal, those with a positive
    frequency."""
    scale = float(np.max(np.abs(y))) or 1.0
    y = y / scale
    z = _poles(y)
    if not np.iscomplexobj(y):
        # One of each pair. Real poles stay real: they are a constant, a drift or noise.
        z = z[np.imag(z) <= 0]
        slow = np.abs(np.angle(z)) * len(y) < _SLOWEST
        z = np.where(slow, np.abs(z), z)
    fit = _Fit.of(y, -np.log(np.abs(z)), -np.angle(z))
    fit = fit.refined(y)
    covariance = fit.covariance(y)
    short = y[: max(int(_SHORTER * len(y)), min(len(y), fit.parameters.size + 1))]
    again = _Fit.of(short, fit.damping, fit.frequency).refined(short)
    # The shorter signal is part of the longer one: the variance of the difference is the difference of the
    # variances.
    own = np.diagonal(covariance)
    expected = np.maximum(np.diagonal(again.covariance(short)) - own, 0)
    change = again.parameters - fit.parameters
    # Frequencies are angles.
    angle = slice(fit.damping.size, 2 * fit.damping.size)
    change[angle] = (change[angle] + np.pi) % (2 * np.pi) - np.pi
    excess = np.sqrt(np.maximum(change**2 - _EXPECTED**2 * expected, 0))
    units = np.concatenate([np.ones(2 * fit.damping.size), np.full(fit.amplitude.size * 2, scale)])
    shape = (2 + 2 * y.shape[1], fit.damping.size)
    return Waves(
        fit.damping,
        fit.frequency,
        fit.amplitude * scale,
        (covariance * units[:, None] * units[None, :]).reshape(*shape, *shape),
        (excess * units).reshape(shape),
    )


def _poles(y: np.ndarray) -> np.ndarray:
    """The z_j, as many as the signal tells from noise.

    Hua & Sarkar, IEEE Trans. Acoust. Speech Signal Process. 38, 814 (1990). The order is that with the least
    Bayesian information criterion of the residual.
    """
    count, channels = y.shape
    half = count // 2
    stride = max(1, -(-half // _COLUMNS))
    first = np.arange(0, half, stride)
    delays = np.union1d(first, first + 1)
    rows = np.arange(0, count - delays[-1], max(1, -(-(count - delays[-1]) * channels // (2 * _ROWS))))
    matrix = np.concatenate([y[rows[:, None] + delays[None, :], c] for c in range(channels)])
    _, singular, right = linalg.svd(matrix, full_matrices=False, lapack_driver="gesdd")
    before, after = np.searchsorted(delays, first), np.searchsorted(delays, first + 1)
    # Each wave has four real parameters, or two and two for each channel.
    samples = y[::stride]
    numbers = samples.size * (2 if np.iscomplexobj(y) else 1)
    each = (2 + 2 * channels) / (1 if np.iscomplexobj(y) else 2)
    floor = (_ROUNDING * np.linalg.norm(samples)) ** 2
    most = min(_MOST_WAVES, (numbers - 1) // int(np.ceil(each) + 1), first.size - 1)
    most = min(most, int(np.sum(singular > _ROUNDING * singular[0])))
    best, found, since = np.linalg.norm(samples) ** 2, np.zeros(0, complex), 0
    best = numbers * np.log(max(best, floor, np.finfo(float).tiny))
    for order in range(1, most + 1):
        signal = right[:order]
        z = linalg.eigvals(signal[:, after] @ linalg.pinv(signal[:, before]))
        z = z[(np.abs(z) > 0) & (count * np.log(np.abs(np.where(z == 0, 1, z))) < _GROWTH)]
        left = _residual(samples, z**stride)
        value = numbers * np.log(max(left, floor, np.finfo(float).tiny)) + each * z.size * np.log(numbers)
        if value < best:
            best, found, since = value, z, 0
        elif (since := since + 1) >= _PATIENCE:
            break
    return found


def _residual(samples: np.ndarray, z: np.ndarray) -> float:
    """The squared norm of what a sum of the waves leaves."""
    if z.size == 0:
        return float(np.linalg.norm(samples) ** 2)
    powers = z[None, :] ** np.arange(len(samples))[:, None]
    amplitudes = _least_squares(powers, samples.astype(complex))
    return float(np.linalg.norm(samples - powers @ amplitudes) ** 2)


class _Fit(NamedTuple):
    """A least-squares fit. In a real signal, waves of frequency 0 or π have real amplitudes and no other
    frequency."""

    damping: np.ndarray
    frequency: np.ndarray
    amplitude: np.ndarray
    real: bool

    @staticmethod
    def of(y: np.ndarray, damping: np.ndarray, frequency: np.ndarray) -> "_Fit":
        """With the best amplitudes for given waves."""
        real, channels = not np.iscomplexobj(y), y.shape[1]
        start = _Fit(damping, frequency, np.zeros((damping.size, channels), complex), real)
        if damping.size == 0:
            return start
        powers, free = start._powers(len(y)), start._free()
        columns = _as_real(np.concatenate([powers, 1j * powers], axis=1), real)
        # A wave that does not oscillate has no imaginary part.
        columns = columns * np.concatenate([np.ones(free.size), free])
        parts = _least_squares(columns, _as_real(y.astype(complex), real))
        return start._replace(amplitude=parts[: damping.size] + 1j * parts[damping.size :])

    @property
    def parameters(self) -> np.ndarray:
        """Damping, frequency, and the parts of the amplitudes."""
        parts = np.real(self.amplitude).T.ravel(), np.imag(self.amplitude).T.ravel()
        return np.concatenate([self.damping, self.frequency, *parts])

    def _free(self) -> np.ndarray:
        """Whether each wave oscillates."""
        fixed = np.abs(np.sin(self.frequency)) < 1e-14
        return np.where(self.real & fixed, 0.0, 1.0)

    def _sound(self, damping: np.ndarray, frequency: np.ndarray, count: int) -> bool:
        """Whether no wave has become noise, or one that cannot be told from a drift."""
        drifts = self.real & (self._free() > 0) & (np.abs(frequency) * count < 0.5 * _SLOWEST)
        return not np.any(drifts | (damping * count < -_GROWTH))

    def _powers(self, count: int) -> np.ndarray:
        return np.exp(-np.outer(np.arange(count), self.damping + 1j * self.frequency))

    def residual(self, y: np.ndarray) -> np.ndarray:
        """`(R, C)`, real."""
        return _as_real(y - self._powers(len(y)) @ self.amplitude, self.real)

    def _jacobian(self, count: int) -> np.ndarray:
        """Of the model with respect to the parameters, `(C R, P)`."""
        powers, free = self._powers(count), self._free()
        number, channels = self.amplitude.shape
        k = np.arange(count)[:, None]
        blocks = []
        for c in range(channels):
            slope = -k * powers * self.amplitude[:, c]
            parts = np.zeros((count, 2, channels, number), complex)
            parts[:, 0, c], parts[:, 1, c] = powers, 1j * powers * free
            row = [slope, 1j * slope * free, parts.reshape(count, -1)]
            blocks.append(_as_real(np.concatenate(row, axis=1), self.real))
        return np.concatenate(blocks)

    def refined(self, y: np.ndarray) -> "_Fit":
        """Gauss-Newton steps for the waves, each with its best amplitudes."""
        fit, number = self, self.damping.size
        if number == 0:
            return fit
        residual = fit.residual(y)
        left, count = float(np.sum(residual**2)), len(y)
        floor = residual.size * (np.finfo(float).eps * float(np.max(np.abs(y)))) ** 2
        for _ in range(_ITERATIONS):
            step = _solve(fit._jacobian(count), residual.T.ravel())[: 2 * number]
            # The model is linear only within one over the length of the signal.
            step = step / max(1.0, count * float(np.max(np.abs(step))))
            for halving in range(_HALVINGS):
                part = 0.5**halving * step
                damping, frequency = fit.damping + part[:number], fit.frequency + part[number:]
                if fit._sound(damping, frequency, count):
                    tried = _Fit.of(y, damping, frequency)
                    now = float(np.sum((residual := tried.residual(y)) ** 2))
                    if now < left:
                        break
            else:
                return fit
            gain, fit, left = left - now, tried, now
            if gain < _CONVERGED * left / residual.size or left < floor:
                return fit
        return fit

    def covariance(self, y: np.ndarray) -> np.ndarray:
        """Of the parameters, from the residual: the bound of Cramér and Rao for white noise."""
        if self.damping.size == 0:
            return np.zeros((0, 0))
        jacobian, left = self._jacobian(len(y)), self.residual(y)
        free = left.size - jacobian.shape[1]
        # No residual is smaller than the rounding of the signal.
        floor = np.finfo(float).eps * float(np.max(np.abs(y)))
        variance = np.sum(left**2) / free + floor**2 if free > 0 else np.inf
        size = np.linalg.norm(jacobian, axis=0)
        size = np.where(size > 0, size, 1)
        _, singular, right = linalg.svd(jacobian / size, full_matrices=False)
        keep = singular > np.finfo(float).eps * singular[0] * len(jacobian)
        root = right[keep] / singular[keep, None] / size
        return variance * root.T @ root


def _least_squares(columns: np.ndarray, values: np.ndarray) -> np.ndarray:
    result: Any = linalg.lstsq(columns, values, lapack_driver="gelsy")
    return result[0]


def _solve(jacobian: np.ndarray, residual: np.ndarray) -> np.ndarray:
    size = np.linalg.norm(jacobian, axis=0)
    size = np.where(size > 0, size, 1)
    return _least_squares(jacobian / size, residual) / size


def _as_real(array: np.ndarray, real: bool) -> np.ndarray:
    """Real numbers for a least-squares problem: the real parts alone for a real signal."""
    return np.real(array) if real else np.concatenate([np.real(array), np.imag(array)])
