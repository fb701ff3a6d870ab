"""Which of its arguments a potential depends on."""

from collections.abc import Callable

import equinox as eqx
import jax
from jax.interpreters import partial_eval
from jaxtyping import DTypeLike

from .._check import warn
from .hamiltonian import Hamiltonian
from .potential import PotentialSum, ScaledPotential


def depends_on_time(hamiltonian: Hamiltonian, dimension: int, dtype: DTypeLike) -> bool:
    """Whether the program of the potential uses t.

    The answer comes from the traced program, not from trial values: `False` means that no operation that leads to
    the result reads t. `True` may be wrong (`x + 0 * t`), and costs only time.
    """
    return _uses(hamiltonian.potential, dimension, dtype)[0]


def warn_of_no_force(potential: Callable, dimension: int, dtype: DTypeLike) -> None:
    """Warns of a potential, or a term of one, that depends on t but not on x: most likely it is V(x, t)."""
    if any(_uses(term, dimension, dtype) == (True, False) for term in _terms(potential)):
        what = "A term of the potential" if isinstance(potential, PotentialSum) else "The potential"
        warn(
            f"{what} depends on t but not on x, so that it exerts no force. Potentials are called as V(t, x), "
            "with the time first: if yours is V(x, t), swap its arguments. A term that depends on t alone "
            "changes only the phase of ψ, and can be left out."
        )


def _terms(potential: Callable) -> list[Callable]:
    if isinstance(potential, PotentialSum):
        return [term for one in potential.terms for term in _terms(one)]
    return _terms(potential.potential) if isinstance(potential, ScaledPotential) else [potential]


@eqx.filter_jit  # so that an equal structure is not traced again; what it returns is static
def _uses(potential: Callable, dimension: int, dtype: DTypeLike) -> tuple[bool, bool]:
    """Whether the program of a potential uses t, and whether it uses x."""
    t, x = jax.ShapeDtypeStruct((), dtype), jax.ShapeDtypeStruct((dimension,), dtype)
    # A function of its own, as JAX looks up by equality those that it has traced, which modules with arrays lack.
    closed = jax.make_jaxpr(lambda t, x: potential(t, x))(t, x)
    _, used = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return used[0], used[1]
