"""Ensembles divided among devices, those of other processes included."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from ._check import is_concrete
from ._types import Points, Weights

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
        """All that JAX sees, in all processes that `jax.distributed` has joined."""
        return Devices(Mesh(np.array(jax.devices()), ("particles",)))

    @staticmethod
    def for_training() -> "Devices":
        """All that JAX sees, but of processors one in each process. More gain nothing there, and sums between
        the devices of one processor were seen to come out wrong in large programs (four modes, second order)."""
        devices = jax.devices()
        if jax.default_backend() == "cpu":
            devices = [next(d for d in devices if d.process_index == p) for p in range(jax.process_count())]
        return Devices(Mesh(np.array(devices), ("particles",)))

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

    @property
    def lead(self) -> bool:
        """Whether this is the process that writes for all."""
        return jax.process_index() == 0

    def any_process(self, here: bool) -> bool:
        """Whether it is true in any of the processes; waits until all have asked."""
        return bool(np.any(_of_all_processes(here)))

    def agree(self, here: int) -> bool:
        """Whether a number is the same in all processes; waits until all have asked."""
        return bool(np.all(_of_all_processes(here) == here))

    def divide(self, x0: Points, weights: Weights) -> tuple[Points, Weights]:
        """The particles, as many on each device, filled up with some that weigh nothing."""
        missing = -x0.shape[0] % self.number
        if missing:
            x0 = jnp.concatenate([x0, jnp.broadcast_to(x0[-1], (missing, x0.shape[1]))])
            weights = jnp.concatenate([weights, jnp.zeros(missing, weights.dtype)])
        return _place((x0, weights), NamedSharding(self.mesh, _PARTICLES))

    def copy(self, tree: PyTree) -> PyTree:
        """Every array on every device, as the first process has it: others may differ by rounding."""
        return _place(tree, NamedSharding(self.mesh, _COPIES))

    def gather(self, tree: PyTree) -> PyTree:
        """Every array on the first device alone; with several processes, on the first of each."""
        arrays, others = eqx.partition(tree, eqx.is_array)
        if jax.process_count() > 1:
            # What lies in other processes has to come from there; a copy of our own is at hand.
            everywhere = jax.jit(lambda tree: tree, out_shardings=NamedSharding(self.mesh, _COPIES))(arrays)
            arrays = jax.tree.map(lambda leaf: leaf.addressable_data(0), everywhere)
        return eqx.combine(jax.device_put(arrays, jax.local_devices()[0]), others)

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


def _of_all_processes(here: int) -> np.ndarray:
    if jax.process_count() == 1:
        return np.array([here])
    return multihost_utils.process_allgather(np.int32(here))


def _place(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """Arrays that every process has, where a sharding wants them."""
    arrays, others = eqx.partition(tree, eqx.is_array)
    if jax.process_count() == 1:
        return eqx.combine(jax.device_put(arrays, sharding), others)

    def place(leaf: Array) -> Array:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = place(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        values = np.asarray(leaf)
        if sharding.is_fully_replicated:
            values = np.asarray(multihost_utils.broadcast_one_to_all(values))
        return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

    return eqx.combine(jax.tree.map(place, arrays), others)
