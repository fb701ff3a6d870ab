from .method import AbstractMethod as AbstractMethod
from .method import solve as solve
