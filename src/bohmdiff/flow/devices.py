"""Ensembles divided among devices."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from .._check import is_concrete
from .._types import Points, Weights

_Result = TypeVar("_Result")

# With fewer particles for each device nothing is gained.
_FEWEST = 64
_PARTICLES, _COPIES = PartitionSpec("particles"), PartitionSpec()


@dataclass(frozen=True)
class Devices:
    """Several devices, over which particles are divided; everything else is on each."""

    mesh: Mesh

    @staticmethod
    def visible() -> "Devices":
        """All that JAX sees."""
        return Devices(Mesh(np.array(jax.devices()), ("particles",)))

    @staticmethod
    def for_particles(x0: Points, tree: PyTree) -> "Devices | None":
        """Those that these particles are to be divided among, if there are several and enough particles for
        each; not where particles are divided already, nor under a transformation of them or of `tree`."""
        devices = Devices.visible()
        if (
            x0.shape[0] >= _FEWEST * devices.number > _FEWEST
            and is_concrete((x0, tree))
            and len(x0.sharding.device_set) == 1
        ):
            return devices
        return None

    @property
    def number(self) -> int:
        """How many there are."""
        return self.mesh.size

    def divide(self, x0: Points, weights: Weights) -> tuple[Points, Weights]:
        """The particles, as many on each device, filled up with some that weigh nothing."""
        missing = -x0.shape[0] % self.number
        if missing:
            x0 = jnp.concatenate([x0, jnp.broadcast_to(x0[-1], (missing, x0.shape[1]))])
            weights = jnp.concatenate([weights, jnp.zeros(missing, weights.dtype)])
        return jax.device_put((x0, weights), NamedSharding(self.mesh, _PARTICLES))

    def copy(self, tree: PyTree) -> PyTree:
        """Every array on every device."""
        return _put(tree, NamedSharding(self.mesh, _COPIES))

    def gather(self, tree: PyTree) -> PyTree:
        """Every array on the first device alone."""
        return _put(tree, jax.devices()[0])

    def apart(self, function: Callable[[Any, Points], _Result], tree: PyTree, x0: Points) -> _Result:
        """`function(tree, x0)` of particles that are divided, on each device of its own ones: it returns arrays
        with the particles first, and no device waits for another."""
        arrays, others = eqx.partition(tree, eqx.is_array)
        return jax.shard_map(
            lambda arrays, x0: function(eqx.combine(arrays, others), x0),
            mesh=self.mesh,
            in_specs=(_COPIES, _PARTICLES),
            out_specs=_PARTICLES,
            check_vma=False,
        )(arrays, x0)


def _put(tree: PyTree, where: Any) -> PyTree:
    arrays, others = eqx.partition(tree, eqx.is_array)
    return eqx.combine(jax.device_put(arrays, where), others)
