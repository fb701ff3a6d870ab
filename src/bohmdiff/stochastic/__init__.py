from .equations import residuals_at as residuals_at
from .equations import velocity_residuals as velocity_residuals
from .nelson import nelson_process as nelson_process
from .nelson import process_paths as process_paths
from .velocity import HermiteVelocity as HermiteVelocity
from .velocity import Velocities as Velocities
