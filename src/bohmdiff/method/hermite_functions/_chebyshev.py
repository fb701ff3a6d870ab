"""exp(−iHτ/ħ) on coefficients, by an expansion in Chebyshev polynomials of H. In NumPy or JAX, as the
coefficients are."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ._index import module_of
from ._operator import Operator

# The largest phase of one expansion, and the number of its terms, which leave an error below rounding.
PHASE = 24.0
_TERMS = 60
_LANCZOS = 24
# So many polynomials are kept at once.
_CHUNK = 16
# The bounds of the spectrum are widened by this share.
_MARGIN = 0.02


class Bounds(NamedTuple):
    """The middle of the spectrum and half its width."""

    middle: Any
    radius: Any


def spectrum_bounds(operator: Operator, c: Any) -> Bounds:
    """An interval that holds all eigenvalues, by the Lanczos method with its error bound; `c` is a state."""
    xp = module_of(c)
    steps = min(_LANCZOS, c.shape[1])
    start = np.random.default_rng(0).standard_normal(c.shape)
    now = xp.asarray(start / np.linalg.norm(start), c.dtype)
    before, beta = xp.zeros_like(c), xp.zeros((), c.dtype)
    tiny = np.finfo(c.dtype).tiny

    def step(before: Any, now: Any, beta: Any) -> tuple[Any, Any, Any, Any]:
        after = operator(now) - beta * before
        alpha = xp.sum(now * after)
        after = after - alpha * now
        norm = xp.linalg.norm(after)
        return now, after / xp.maximum(norm, tiny), norm, alpha

    if xp is np:
        alphas, betas = [], []
        for _ in range(steps):
            before, now, beta, alpha = step(before, now, beta)
            alphas.append(alpha)
            betas.append(beta)
        alphas, betas = np.array(alphas), np.array(betas)
    else:

        def scanned(state: tuple, _: None) -> tuple[tuple, tuple]:
            before, now, beta, alpha = step(*state)
            return (before, now, beta), (alpha, beta)

        _, (alphas, betas) = jax.lax.scan(scanned, (before, now, beta), None, length=steps)
    matrix = xp.diag(alphas) + xp.diag(betas[:-1], 1) + xp.diag(betas[:-1], -1)
    values, vectors = xp.linalg.eigh(matrix)
    error = betas[-1] * xp.abs(vectors[-1])
    return _interval(xp.min(values - error), xp.max(values + error), 1 + _MARGIN, xp)


def widest(bounds: list[Bounds]) -> Bounds:
    """One interval for several."""
    low = np.min([one.middle - one.radius for one in bounds])
    high = np.max([one.middle + one.radius for one in bounds])
    return _interval(low, high, 1.0, np)


def _interval(low: Any, high: Any, factor: float, xp: Any) -> Bounds:
    radius = xp.maximum(0.5 * (high - low) * factor, np.finfo(np.float32).tiny)
    bounds = Bounds(0.5 * (low + high), radius)
    return bounds if xp is np else jax.lax.stop_gradient(bounds)


def blocks_for(bounds: Bounds, length: Any, hbar: Any) -> Any:
    """How many expansions a length of time takes."""
    phase = abs(length) / hbar * bounds.radius / PHASE
    if isinstance(phase, jax.Array):
        return jnp.maximum(jnp.ceil(phase), 1).astype(int)
    return max(int(np.ceil(phase)), 1)


def expanded(
    operator: Operator, bounds: Bounds, c: Any, lengths: Any, hbar: Any, *, all_terms: bool = False
) -> Any:
    """exp(−iHτ/ħ) c for several τ, shape `(T, 2, N)`; none has a phase beyond `PHASE`. With all terms, rather
    than as many as a τ needs, it can be differentiated in reverse."""
    xp = module_of(c)
    phases = lengths / hbar * bounds.radius
    real, imaginary = _weights(phases, xp)
    # The middle of the spectrum is a phase factor.
    turn = lengths / hbar * bounds.middle
    cosine, sine = xp.cos(turn)[:, None], xp.sin(turn)[:, None]
    real, imaginary = (
        xp.asarray(a, c.dtype) for a in (real * cosine + imaginary * sine, imaginary * cosine - real * sine)
    )
    middle, radius = xp.asarray(bounds.middle, c.dtype), xp.asarray(bounds.radius, c.dtype)

    total = xp.zeros((lengths.shape[0], *c.shape), c.dtype)
    state = (xp.zeros_like(c), c, total)
    phase = xp.max(xp.abs(phases))
    # So many terms leave an error of about 1e-15.
    last = xp.minimum(xp.ceil(phase + 9 * xp.cbrt(phase) + 9), _TERMS).astype(int)
    if xp is np:
        return _summed(operator, c, total, real, imaginary, int(last), middle, radius)

    def step(n: Any, state: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        before, now, total = state
        turned = jnp.stack([-now[1], now[0]])
        total = total + real[:, n, None, None] * now[None] + imaginary[:, n, None, None] * turned[None]
        factor = jnp.where(n == 0, 1, 2).astype(c.dtype) / radius
        return now, factor * (operator(now) - middle * now) - before, total

    if all_terms:
        return jax.lax.scan(lambda s, n: (step(n, s), None), state, jnp.arange(_TERMS))[0][2]
    return jax.lax.fori_loop(jnp.asarray(0), last, step, state)[2]


def _summed(
    operator: Operator, c: Any, total: Any, real: Any, imaginary: Any, last: int, middle: Any, radius: Any
) -> Any:
    """The sum of the polynomials, a chunk of them at a time as a matrix product."""
    before, now = np.zeros_like(c), c
    for first in range(0, last, _CHUNK):
        ns = slice(first, min(first + _CHUNK, last))
        chunk = []
        for n in range(ns.start, ns.stop):
            chunk.append(now.ravel())
            # T_1 = x T_0, then T_{n+1} = 2x T_n − T_{n−1}.
            after = operator(now)
            after -= middle * now
            after *= c.dtype.type((1 if n == 0 else 2) / radius)
            after -= before
            before, now = now, after
        polynomials = np.stack(chunk)
        by_real = (real[:, ns] @ polynomials).reshape(total.shape)
        by_imaginary = (imaginary[:, ns] @ polynomials).reshape(total.shape)
        total += by_real
        total[:, 0] -= by_imaginary[:, 1]
        total[:, 1] += by_imaginary[:, 0]
    return total


def _weights(phases: Any, xp: Any) -> tuple[Any, Any]:
    """The coefficients of exp(−i φ x) in Chebyshev polynomials, real and imaginary parts, for several φ."""
    nodes = 2 * _TERMS
    angles = (np.arange(nodes) + 0.5) * np.pi / nodes
    transform = 2 / nodes * np.cos(np.outer(angles, np.arange(_TERMS)))
    transform[:, 0] /= 2
    waves = phases[:, None] * xp.asarray(np.cos(angles), phases.dtype)[None]
    transform = xp.asarray(transform, phases.dtype)
    return xp.cos(waves) @ transform, -xp.sin(waves) @ transform


def advanced(
    operator: Operator, bounds: Bounds, c: Any, length: Any, hbar: Any, parts: int | None = None
) -> Any:
    """exp(−iHτ/ħ) c for any τ, in as many parts as it needs, or in a given number."""
    if parts is not None:
        part = jnp.asarray(length / parts)[None]

        def one(now: Any, _: None) -> tuple[Any, None]:
            return expanded(operator, bounds, now, part, hbar, all_terms=True)[0], None

        return jax.lax.scan(jax.checkpoint(one), c, None, length=parts)[0]
    count = blocks_for(bounds, length, hbar)
    if isinstance(c, np.ndarray):
        part = np.array([length / count])
        for _ in range(count):
            c = expanded(operator, bounds, c, part, hbar)[0]
        return c
    part = (length / count)[None]
    return jax.lax.fori_loop(
        jnp.asarray(0), count, lambda _, now: expanded(operator, bounds, now, part, hbar)[0], c
    )
