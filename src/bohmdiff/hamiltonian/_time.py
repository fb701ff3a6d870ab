"""Whether a potential depends on time."""

import equinox as eqx
import jax
from jax.interpreters import partial_eval
from jaxtyping import DTypeLike

from .hamiltonian import Hamiltonian


@eqx.filter_jit  # so that an equal structure is not traced again; what it returns is static
def depends_on_time(hamiltonian: Hamiltonian, dimension: int, dtype: DTypeLike) -> bool:
    """Whether the program of the potential uses t.

    The answer comes from the traced program, not from trial values: `False` means that no operation that leads to
    the result reads t. `True` may be wrong (`x + 0 * t`), and costs only time.
    """
    t, x = jax.ShapeDtypeStruct((), dtype), jax.ShapeDtypeStruct((dimension,), dtype)
    # A function of its own, as JAX looks up by equality those that it has traced, which modules with arrays lack.
    closed = jax.make_jaxpr(lambda t, x: hamiltonian.potential(t, x))(t, x)
    _, used = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return used[0]
