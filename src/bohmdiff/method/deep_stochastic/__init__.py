from .method import DeepStochasticMechanics as DeepStochasticMechanics
from .solution import VelocitySolution as VelocitySolution
