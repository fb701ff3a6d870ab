"""How far a quartic force field can be followed before it falls below the minimum of the molecule."""

import numpy as np

_DIRECTIONS = 20_000
_KEPT = 50
_ROUNDS = 20
# The search finds the end to a few parts in a thousand.
_MARGIN = 0.98


def largest_reach(frequencies: np.ndarray, cubic: np.ndarray, quartic: np.ndarray) -> float:
    r"""The half width of the largest box around $q = 0$ in which the quartic polynomial is positive, or infinity.

    With a reach up to this, the force field is positive everywhere: for coordinates $u$ in the box, it is the
    polynomial plus $\tfrac12 \omega (q^2 - u^2) \ge 0$ for each mode.
    """
    rng = np.random.default_rng(0)
    d = frequencies.size
    # On the faces of a box, with many in corners and on edges, where the polynomial falls fastest.
    directions = np.clip(rng.uniform(-2, 2, size=(_DIRECTIONS, d)), -1, 1)
    ends = _ends(_on_box(directions), frequencies, cubic, quartic)
    best = np.inf
    for round in range(_ROUNDS):
        order = np.argsort(ends)[:_KEPT]
        directions, ends = directions[order], ends[order]
        best = min(best, float(ends[0]))
        width = 0.5 * 0.7**round
        moved = np.repeat(directions, 10, axis=0)
        moved = np.clip(moved + width * rng.normal(size=moved.shape), -1, 1)
        directions = np.concatenate([directions, moved])
        ends = _ends(_on_box(directions), frequencies, cubic, quartic)
    return _MARGIN * min(best, float(np.min(ends)))


def _on_box(directions: np.ndarray) -> np.ndarray:
    return directions / np.max(np.abs(directions), axis=1, keepdims=True)


def _ends(
    directions: np.ndarray, frequencies: np.ndarray, cubic: np.ndarray, quartic: np.ndarray
) -> np.ndarray:
    """Where the polynomial is zero again along each direction, on either side."""
    second = 0.5 * directions**2 @ frequencies
    third, fourth = (
        np.tensordot(directions, cubic, axes=1) / 6,
        np.tensordot(directions, quartic, axes=1) / 24,
    )
    # The remaining indices one by one, since products of all of them would need much memory.
    for _ in range(2):
        third = np.einsum("n...a,na->n...", third, directions)
        fourth = np.einsum("n...a,na->n...", fourth, directions)
    fourth = np.einsum("na,na->n", fourth, directions)
    # s² (second + third s + fourth s²) = 0. The root next to zero on the better side, without cancellation:
    inside = third**2 - 4 * second * fourth
    slope = np.abs(third) + np.sqrt(np.maximum(inside, 0))
    with np.errstate(divide="ignore"):
        return np.where(
            (inside >= 0) & (slope > 0) & ((third != 0) | (fourth < 0)), 2 * second / slope, np.inf
        )
