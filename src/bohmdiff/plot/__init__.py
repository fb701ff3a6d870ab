"""Pictures of solutions, with matplotlib. Every function returns a new `Figure`, or a movie."""

from ._style import TRAJECTORY_COLOUR as TRAJECTORY_COLOUR
from ._style import Units as Units
from .density import density as density
from .moments import energy as energy
from .moments import moments as moments
from .movie import movie as movie
from .spectrum import spectrum as spectrum
from .training import training as training
