from .nelson import nelson_process as nelson_process
from .velocity import HermiteVelocity as HermiteVelocity
from .velocity import Velocities as Velocities
from .velocity import current_velocity as current_velocity
