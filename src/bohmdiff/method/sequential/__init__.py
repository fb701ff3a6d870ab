from .method import SequentialScoreMatching as SequentialScoreMatching
from .solution import EnsembleSolution as EnsembleSolution
