"""Quantum dynamics with Bohmian trajectories and score matching."""

from .hamiltonian import Hamiltonian as Hamiltonian
from .method import AbstractMethod as AbstractMethod
from .method import solve as solve
from .problem import Problem as Problem
from .solution import Solution as Solution
from .solution import UnavailableError as UnavailableError
from .wavepacket import AbstractInitialState as AbstractInitialState
from .wavepacket import AbstractPoints as AbstractPoints
from .wavepacket import GaussHermitePoints as GaussHermitePoints
from .wavepacket import GaussianWavePacket as GaussianWavePacket
from .wavepacket import RandomPoints as RandomPoints
from .wavepacket import SobolPoints as SobolPoints
