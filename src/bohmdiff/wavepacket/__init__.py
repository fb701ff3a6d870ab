from .gaussian import GaussianWavePacket as GaussianWavePacket
from .points import AbstractPoints as AbstractPoints
from .points import GaussHermitePoints as GaussHermitePoints
from .points import RandomPoints as RandomPoints
from .points import SobolPoints as SobolPoints
from .points import default_points as default_points
from .state import AbstractInitialState as AbstractInitialState
