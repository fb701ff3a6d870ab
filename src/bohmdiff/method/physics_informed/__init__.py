from .method import PhysicsInformedNetwork as PhysicsInformedNetwork
from .solution import WaveFunctionSolution as WaveFunctionSolution
