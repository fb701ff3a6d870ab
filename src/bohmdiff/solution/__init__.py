from .solution import Solution as Solution
from .solution import UnavailableError as UnavailableError
