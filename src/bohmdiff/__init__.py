"""Quantum dynamics with Bohmian trajectories and score matching."""

from .hamiltonian import Hamiltonian as Hamiltonian
from .method import AbstractMethod as AbstractMethod
from .method import solve as solve
from .problem import Problem as Problem
from .solution import Solution as Solution
from .solution import UnavailableError as UnavailableError
from .solver import AbstractSymplecticSolver as AbstractSymplecticSolver
from .solver import BlanesMoan4 as BlanesMoan4
from .solver import BlanesMoan6 as BlanesMoan6
from .solver import SymplecticTableau as SymplecticTableau
from .solver import VelocityVerlet as VelocityVerlet
from .solver import Yoshida4 as Yoshida4
from .wavepacket import AbstractInitialState as AbstractInitialState
from .wavepacket import AbstractPoints as AbstractPoints
from .wavepacket import GaussHermitePoints as GaussHermitePoints
from .wavepacket import GaussianWavePacket as GaussianWavePacket
from .wavepacket import RandomPoints as RandomPoints
from .wavepacket import SobolPoints as SobolPoints
