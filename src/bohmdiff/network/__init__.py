from .frame import SpreadingFrame as SpreadingFrame
from .velocity import NeuralVelocity as NeuralVelocity
from .velocity import velocity_networks as velocity_networks
from .wave_function import NeuralWaveFunction as NeuralWaveFunction
