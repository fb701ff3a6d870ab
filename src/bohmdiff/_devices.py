"""Ensembles divided among devices, including those of other processes."""

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

# The fewest particles per device for which dividing them saves time.
_FEWEST = 64
_PARTICLES, _COPIES = PartitionSpec("particles"), PartitionSpec()


@dataclass(frozen=True)
class Devices:
    """Several devices: the particles are divided among them, and everything else is copied to each."""

    mesh: Mesh

    @staticmethod
    def visible() -> "Devices":
        """All devices visible to JAX, in all processes joined by `jax.distributed`."""
        return Devices(Mesh(np.array(jax.devices()), ("particles",)))

    @staticmethod
    def for_training() -> "Devices":
        """All devices visible to JAX; on CPU, only one per process. More CPU devices save no time, and sums
        across the devices of one CPU gave wrong results in large programs (four modes, second order)."""
        devices = jax.devices()
        if jax.default_backend() == "cpu":
            devices = [next(d for d in devices if d.process_index == p) for p in range(jax.process_count())]
        return Devices(Mesh(np.array(devices), ("particles",)))

    @staticmethod
    def for_particles(x0: Points, tree: PyTree) -> "Devices | None":
        """The devices among which to divide these particles. `None` with a single device, with too few particles
        per device, if the particles are divided already, or under a transformation of them or of `tree`."""
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
        """The number of devices."""
        return self.mesh.size

    @property
    def lead(self) -> bool:
        """Whether this process writes the output for all processes."""
        return jax.process_index() == 0

    def any_process(self, here: bool) -> bool:
        """Whether `here` is true in any process; waits until all processes have called this."""
        return bool(np.any(_of_all_processes(here)))

    def agree(self, here: int) -> bool:
        """Whether the number `here` is the same in all processes; waits until all have called this."""
        return bool(np.all(_of_all_processes(here) == here))

    def divide(self, x0: Points, weights: Weights) -> tuple[Points, Weights]:
        """The particles in equal numbers on each device, padded with particles of zero weight."""
        missing = -x0.shape[0] % self.number
        if missing:
            x0 = jnp.concatenate([x0, jnp.broadcast_to(x0[-1], (missing, x0.shape[1]))])
            weights = jnp.concatenate([weights, jnp.zeros(missing, weights.dtype)])
        return _place((x0, weights), NamedSharding(self.mesh, _PARTICLES))

    def copy(self, tree: PyTree) -> PyTree:
        """Copies every array of the first process to every device: other processes may differ by rounding."""
        return _place(tree, NamedSharding(self.mesh, _COPIES))

    def gather(self, tree: PyTree) -> PyTree:
        """Every array on the first device only; with several processes, on the first device of each."""
        arrays, others = eqx.partition(tree, eqx.is_array)
        if jax.process_count() > 1:
            # Arrays of other processes are fetched from there; then each process keeps its own copy.
            everywhere = jax.jit(lambda tree: tree, out_shardings=NamedSharding(self.mesh, _COPIES))(arrays)
            arrays = jax.tree.map(lambda leaf: leaf.addressable_data(0), everywhere)
        return eqx.combine(jax.device_put(arrays, jax.local_devices()[0]), others)

    def apart(self, function: Callable[[Any, Points], _Result], tree: PyTree, x0: Points) -> _Result:
        """`function(tree, x0)` of divided particles, evaluated by each device for its own particles. The function
        returns arrays whose first axis counts particles, and no device waits for another."""
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
    """Places arrays that every process holds according to `sharding`."""
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
