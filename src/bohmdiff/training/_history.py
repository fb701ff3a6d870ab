"""The log of a training as arrays, and as labelled data."""

import json
from collections.abc import Iterable, Mapping

import jax.numpy as jnp
import numpy as np
import xarray
from jaxtyping import Array


def history_of(lines: Iterable[str]) -> dict[str, Array]:
    """The figures of a log by name, each over its lines, and `epoch`; NaN in lines that lack a figure."""
    records = [json.loads(line) for line in lines]
    names = dict.fromkeys(name for record in records for name in record if name != "epoch")
    epochs = {"epoch": jnp.array([record["epoch"] for record in records], int)}
    return epochs | {
        # A figure that was not finite is null in the log.
        name: jnp.asarray(np.array([record.get(name, np.nan) for record in records], float))
        for name in names
    }


def history_dataset(history: Mapping[str, Array]) -> xarray.Dataset:
    """The same as labelled data over `epoch`."""
    return xarray.Dataset(
        {
            name: ("epoch", np.asarray(values), _about(name))
            for name, values in history.items()
            if name != "epoch"
        },
        coords={
            "epoch": (
                "epoch",
                np.asarray(history["epoch"]),
                {"long_name": "number of updates", "units": "1"},
            )
        },
    )


def _about(name: str) -> dict[str, str]:
    long_name, units = _HISTORY.get(name, (name.replace("_", " "), "1"))
    return {"long_name": long_name, "units": units}


# The figures that are not plain counts or shares. The units of the problem are not known here.
_HISTORY = {
    "loss": ("loss, by the objective", "a.u."),
    "gradient_norm": ("norm of the gradient of the loss", "a.u."),
    "skipped": ("updates that were skipped so far", "1"),
    "seconds": ("wall time since the start", "s"),
    "residual": ("mean square of the residuals on the validation particles", "1"),
    "fisher": ("Fisher divergence", "a.u."),
    "energy": ("mean energy, averaged over time", "a.u."),
    "energy_drift": ("largest change of the mean energy since the start", "a.u."),
}
