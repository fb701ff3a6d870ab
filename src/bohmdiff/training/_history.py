"""What a training has logged, as labelled data."""

import json

import numpy as np
import xarray


def read_history(lines: str) -> xarray.Dataset:
    """The log of a training, over `epoch`."""
    records = [json.loads(line) for line in lines.splitlines() if line]
    names = dict.fromkeys(name for record in records for name in record if name != "epoch")
    return xarray.Dataset(
        {
            name: (
                "epoch",
                np.array([record.get(name, np.nan) for record in records], dtype=float),
                _about(name),
            )
            for name in names
        },
        coords={
            "epoch": (
                "epoch",
                np.array([record["epoch"] for record in records]),
                {"long_name": "number of updates", "units": "1"},
            )
        },
    )


def _about(name: str) -> dict[str, str]:
    long_name, units = _HISTORY.get(name, (name.replace("_", " "), "1"))
    return {"long_name": long_name, "units": units}


# What a log has that is not a number or a share. The problem's own units are not known here.
_HISTORY = {
    "loss": ("loss, by the objective", "a.u."),
    "gradient_norm": ("norm of the gradient of the loss", "a.u."),
    "skipped": ("updates that were skipped so far", "1"),
    "seconds": ("wall time since the start", "s"),
    "residual": ("mean square of the residuals on particles that stay the same", "1"),
    "fisher": ("Fisher divergence", "a.u."),
    "energy": ("mean energy, averaged over time", "a.u."),
    "energy_drift": ("largest change of the mean energy since the start", "a.u."),
}
