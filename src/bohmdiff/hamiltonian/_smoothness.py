"""Steps and kinks of a potential, which automatic derivatives do not contain."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._check import describe, is_concrete, warn
from .._types import Scalar, Time, Vector
from .hamiltonian import Hamiltonian
from .potential import PotentialSum, ScaledPotential
from .potentials import DoubleWell, Eckart, HenonHeiles, InteractingBosons, MorseChain
from .quadratic import Quadratic
from .tabulated import TabulatedPotential

_LINES = 8
_INTERVALS = 64  # of a line
_REACH = (-3.0717, 2.9318)  # in widths; not symmetric, as kinks are often right at the centre
_LARGEST_SHARE = 0.02  # of a change that may happen in jumps
_ZOOMS = 2
_KEPT = 0.5  # of a jump, when its interval is divided by `_INTERVALS`
# Looking at these would only take time.
_SMOOTH = (DoubleWell, Eckart, HenonHeiles, InteractingBosons, MorseChain, Quadratic, TabulatedPotential)
_ROUNDING = 64  # times the precision: smaller jumps are none

_MESSAGES = (
    "The potential jumps near x = {place}, or its automatic gradient is wrong: {share:.0%} of its change along "
    "a line of six standard deviations through the packet is missing in the force. ",
    "The potential has a kink near x = {place}, or its automatic second derivatives are wrong: {share:.0%} of "
    "the change of the force along a line of six standard deviations through the packet is missing in them. ",
)
_ADVICE = (
    "Linear interpolation (jnp.interp, map_coordinates of order 1), jnp.where, jnp.abs and jnp.round can cause "
    "this. Use TabulatedPotential for a table, or a smooth formula."
)


def warn_of_kinks(hamiltonian: Hamiltonian, t: Time, mean: Vector, width: Vector, order: int) -> None:
    """Warns if the automatic derivatives of a potential miss steps or kinks around a packet.

    - `mean`, `width`: of the packet at the time `t`, shape `(d,)`.
    - `order`: 1 for a method that uses forces, 2 for one that uses second derivatives.

    Does nothing under a transformation of JAX that traces one of them.
    """
    if _is_known(hamiltonian.potential):
        return
    message = check_smoothness(hamiltonian.potential, t, mean, width, order)
    if message is not None:
        warn(message)


def _is_known(potential: Callable) -> bool:
    if isinstance(potential, PotentialSum):
        return all(map(_is_known, potential.terms))
    if isinstance(potential, ScaledPotential):
        return _is_known(potential.potential)
    return isinstance(potential, _SMOOTH)


def check_smoothness(
    potential: Callable[[Time, Vector], Scalar], t: Time, mean: Vector, width: Vector, order: int = 2
) -> str | None:
    """A message if the automatic derivatives of a potential miss steps or kinks around a packet, else `None`.

    Along a few lines, the change of the potential over short intervals is compared with the integral of its
    automatic derivative, and the change of the force with that of the second derivative. The difference is the
    sum of the jumps. It is not zero either for a smooth potential that changes within one interval. So the
    intervals with the largest differences are divided further: jumps stay as they are, and smooth changes are
    resolved.
    """
    if not is_concrete((potential, t, mean, width)):
        return None
    # Also inside a function that jit traces.
    with jax.ensure_compile_time_eval():
        mean, width = jnp.asarray(mean), jnp.asarray(width, jnp.result_type(mean))
        start, direction = _lines(mean, width)
        length = jnp.ones(_LINES, mean.dtype)
        t = jnp.asarray(t, mean.dtype)
        sampled = _sample(potential, t, start, direction, length, order)
        if not is_concrete(sampled):  # a function that closes over traced values
            return None
        for k in range(order):
            jumps, change = _jumps(sampled[k], sampled[k + 1], length)
            # Jumps that are small compared with the force itself do no harm; a potential has no zero.
            change = change + 0.05 * k * _largest(sampled[k])
            shares = np.sum(jumps, axis=1) / np.where(change > 0, change, 1)
            if np.max(shares) > _LARGEST_SHARE:
                place = _persisting(potential, t, start, direction, jumps, order, k)
                if place is not None:
                    share = min(np.max(shares), 1)
                    return _MESSAGES[k].format(place=describe(place), share=share) + _ADVICE
    return None


def _persisting(
    potential: Callable,
    t: Time,
    start: jax.Array,
    direction: jax.Array,
    jumps: np.ndarray,
    order: int,
    k: int,
) -> np.ndarray | None:
    """Where the largest jump is, or `None` if the changes are smooth on shorter intervals."""
    length = 1.0
    for _ in range(_ZOOMS):
        line, interval = np.unravel_index(np.argsort(jumps, axis=None)[-_LINES:], jumps.shape)
        before = np.sum(jumps[line, interval])
        offset = jnp.asarray(length / _INTERVALS * interval, start.dtype)
        start = start[line] + offset[:, None] * direction[line]
        direction, length = direction[line], length / _INTERVALS
        lengths = jnp.full(_LINES, length, start.dtype)
        sampled = _sample(potential, t, start, direction, lengths, order)
        jumps, _ = _jumps(sampled[k], sampled[k + 1], lengths)
        if np.sum(jumps) < _KEPT * before:
            return None
    return np.asarray(start[np.argmax(np.sum(jumps, axis=1))])


def _lines(mean: Vector, width: Vector) -> tuple[jax.Array, jax.Array]:
    """Where lines through the packet start, and the vectors to their ends: `(_LINES, d)` each. The first lines
    follow the coordinates, the others have random directions."""
    d, rng = mean.size, np.random.default_rng(0)
    along = rng.normal(size=(_LINES, d))
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    centre = 0.5 * rng.normal(size=(_LINES, d))
    straight = min(d, _LINES // 2)
    along[:straight] = np.eye(d)[np.linspace(0, d - 1, straight).astype(int)]
    centre[:straight] = 0
    low, high = _REACH
    mean, width = mean[None], width[None]
    start = mean + width * jnp.asarray(centre + low * along, mean.dtype)
    return start, width * jnp.asarray((high - low) * along, mean.dtype)


@eqx.filter_jit
def _sample(
    potential: Callable, t: Time, start: jax.Array, direction: jax.Array, length: jax.Array, order: int
) -> tuple[jax.Array, ...]:
    """The potential and its derivatives at the ends of the intervals: each `(_LINES, _INTERVALS + 1)`."""
    steps = jnp.linspace(0, 1, _INTERVALS + 1, dtype=start.dtype)
    force = jax.value_and_grad(potential, argnums=1)

    def at(x, along):
        if order == 1:
            value, gradient = force(t, x)
            return value, gradient @ along
        (value, gradient), (_, change) = jax.jvp(lambda y: force(t, y), (x,), (along,))
        return value, jnp.sum(gradient * along), jnp.sum(change * along)

    def on(start, along, length):
        return jax.vmap(lambda s: at(start + s * length * along, along))(steps)

    return jax.vmap(on)(start, direction, length)


def _jumps(values: jax.Array, slopes: jax.Array, length: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """By how much the change of `values` over each interval differs from the integral of `slopes`; and the sum of
    the changes along each line."""
    v, s = np.asarray(values, float), np.asarray(slopes, float)
    h = np.asarray(length, float)[:, None] / _INTERVALS
    with np.errstate(all="ignore"):
        changes = np.diff(v, axis=1)
        jumps = np.abs(changes - 0.5 * h * (s[:, 1:] + s[:, :-1]))
    finite = np.isfinite(jumps)  # a singularity, or a place beyond a table
    rounding = _ROUNDING * float(jnp.finfo(values.dtype).eps) * _largest(values)
    jumps = np.where(finite & (jumps > rounding[:, None]), jumps, 0.0)
    return jumps, np.sum(np.abs(np.where(finite, changes, 0.0)), axis=1)


def _largest(values: jax.Array) -> np.ndarray:
    """On each line."""
    array = np.abs(np.asarray(values, float))
    return np.max(np.where(np.isfinite(array), array, 0.0), axis=1)
