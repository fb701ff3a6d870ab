from .normal_modes import NormalModes as NormalModes
