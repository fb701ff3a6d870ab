from .interpolation import CubicHermite as CubicHermite
from .interpolation import QuinticHermite as QuinticHermite
from .symplectic import AbstractSymplecticSolver as AbstractSymplecticSolver
from .symplectic import BlanesMoan4 as BlanesMoan4
from .symplectic import BlanesMoan6 as BlanesMoan6
from .symplectic import VelocityVerlet as VelocityVerlet
from .symplectic import Yoshida4 as Yoshida4
from .tableau import SymplecticTableau as SymplecticTableau
