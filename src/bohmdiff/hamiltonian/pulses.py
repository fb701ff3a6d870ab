"""Electric fields of light pulses."""

import math
from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._check import as_real_array, describe, require
from .._precision import in_full_precision
from .._types import Numbers, Scalar, Time
from .potential import positive, scalar


class AbstractPulse(eqx.Module):
    r"""A field $E(t) = E_0\, s(t) \cos(\omega (t - t_c) + \varphi)\, e$, where the envelope $s$ is at most one.

    - `amplitude`, `frequency`, `centre`, `duration`, `phase`: $E_0$, $\omega$, $t_c$, the duration and
        $\varphi$, numbers.
    - `polarisation`: the unit vector $e$, shape `(3,)`, or `None` for a field that is a number.
    """

    amplitude: eqx.AbstractVar[Scalar]
    frequency: eqx.AbstractVar[Scalar]
    centre: eqx.AbstractVar[Scalar]
    duration: eqx.AbstractVar[Scalar]
    phase: eqx.AbstractVar[Scalar]
    polarisation: eqx.AbstractVar[Float[Array, "3"] | None]

    @abstractmethod
    def envelope(self, t: Time) -> Scalar:
        """The envelope at time `t`, between zero and one."""

    def __call__(self, t: Time) -> Array:
        """The field at time `t`: shape `(3,)` with a polarisation, `()` without."""
        carrier = jnp.cos(self.frequency * (t - self.centre) + self.phase)
        strength = self.amplitude * self.envelope(t) * carrier
        return strength if self.polarisation is None else strength * self.polarisation


class GaussianPulse(AbstractPulse):
    r"""A pulse with the envelope $s(t) = e^{-2 \ln 2\, (t - t_c)^2 / T^2}$.

    $E(t) = E_0\, s(t) \cos(\omega (t - t_c) + \varphi)\, e$.

    ```python
    pulse = bd.GaussianPulse(
        amplitude=0.01,
        frequency=3935 * bd.units.inverse_cm,
        centre=50 * bd.units.fs,
        duration=30 * bd.units.fs,
        polarisation=[0.0, 0.0, 1.0],
    )
    pulse(50 * bd.units.fs)
    ```

    **Arguments:**

    - `amplitude`: $E_0$, the largest field.
    - `frequency`: $\omega$, an angular frequency.
    - `centre`: $t_c$, when the envelope is largest.
    - `duration`: $T > 0$, the full width at half maximum of the *intensity*, that is of $s^2$; $s$ itself is
        wider by $\sqrt 2$.
    - `phase`: $\varphi$, in radians; with zero the field itself is largest at $t_c$.
    - `polarisation`: the direction $e$ of the field, shape `(3,)`; its length does not count. Without it the
        field is a number.

    All are differentiable.

    **Units:** `amplitude` in energy / dipole moment, `frequency` in 1 / time, `centre` and `duration` in time.
    In atomic units, $E_0 = 1$ is 5.14 × 10¹¹ V/m.

    **Raises:** `ValueError` for a wrong shape, a duration that is not positive, or a polarisation of zero.
    """

    amplitude: Scalar
    frequency: Scalar
    centre: Scalar
    duration: Scalar
    phase: Scalar
    polarisation: Float[Array, "3"] | None

    @in_full_precision
    def __init__(
        self,
        amplitude: Numbers,
        frequency: Numbers,
        centre: Numbers,
        duration: Numbers,
        phase: Numbers = 0.0,
        polarisation: Numbers | None = None,
    ):
        self.amplitude = scalar(amplitude, "amplitude")
        self.frequency = scalar(frequency, "frequency")
        self.centre = scalar(centre, "centre")
        self.duration = positive(scalar(duration, "duration"), "duration")
        self.phase = scalar(phase, "phase")
        self.polarisation = _direction(polarisation)

    def envelope(self, t: Time) -> Scalar:
        return jnp.exp(-2 * math.log(2) * ((t - self.centre) / self.duration) ** 2)


class SineSquaredPulse(AbstractPulse):
    r"""A pulse that lasts from $t_c - T/2$ to $t_c + T/2$, with the envelope $s(t) = \cos^2(\pi (t - t_c) / T)$.

    Counted from its start, the envelope is the square of a sine. Outside, the field is zero.
    $E(t) = E_0\, s(t) \cos(\omega (t - t_c) + \varphi)\, e$.

    ```python
    pulse = bd.SineSquaredPulse(
        amplitude=0.01, frequency=0.02, centre=1000.0, duration=2000.0
    )
    pulse(1000.0), pulse(2500.0)
    ```

    At both ends the field and its slope are zero; the second derivative jumps.

    **Arguments:**

    - `amplitude`: $E_0$, the largest field.
    - `frequency`: $\omega$, an angular frequency.
    - `centre`: $t_c$, when the envelope is largest.
    - `duration`: $T > 0$, from start to end. The full width at half maximum of the intensity is $0.364\,T$.
    - `phase`: $\varphi$, in radians; with zero the field itself is largest at $t_c$.
    - `polarisation`: the direction $e$ of the field, shape `(3,)`; its length does not count. Without it the
        field is a number.

    All are differentiable.

    **Units:** `amplitude` in energy / dipole moment, `frequency` in 1 / time, `centre` and `duration` in time.

    **Raises:** `ValueError` for a wrong shape, a duration that is not positive, or a polarisation of zero.
    """

    amplitude: Scalar
    frequency: Scalar
    centre: Scalar
    duration: Scalar
    phase: Scalar
    polarisation: Float[Array, "3"] | None

    @in_full_precision
    def __init__(
        self,
        amplitude: Numbers,
        frequency: Numbers,
        centre: Numbers,
        duration: Numbers,
        phase: Numbers = 0.0,
        polarisation: Numbers | None = None,
    ):
        self.amplitude = scalar(amplitude, "amplitude")
        self.frequency = scalar(frequency, "frequency")
        self.centre = scalar(centre, "centre")
        self.duration = positive(scalar(duration, "duration"), "duration")
        self.phase = scalar(phase, "phase")
        self.polarisation = _direction(polarisation)

    def envelope(self, t: Time) -> Scalar:
        # The clip has no slope outside, where cos² has none either.
        share = jnp.clip((t - self.centre) / self.duration, -0.5, 0.5)
        return jnp.cos(math.pi * share) ** 2


def _direction(polarisation: Any) -> Array | None:
    if polarisation is None:
        return None
    vector = as_real_array(polarisation, "polarisation")
    if vector.shape != (3,):
        raise ValueError(
            f"polarisation must be a direction in space, shape (3,), but shape {vector.shape} was given."
        )
    largest = jnp.max(jnp.abs(vector))
    vector = require(
        vector, largest > 0, f"polarisation must not be zero, but {describe(polarisation)} was given."
    )
    vector = vector / largest  # so that no square of it is out of range
    return vector / jnp.sqrt(jnp.sum(vector**2))
