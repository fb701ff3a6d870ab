"""Plain functions as modules: one program for all values of their numbers, and never that of other values."""

import enum
import functools
import math
import sys
import types
import warnings
from collections import namedtuple
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bohmdiff as bd
from bohmdiff._closure import ClosedFunction, as_module, settled
from bohmdiff._closure._function import with_constants

pytestmark = pytest.mark.filterwarnings("ignore:This is the third function")

X = jnp.array([0.7, -1.3])
VALUES = [round(0.1 + 0.2 * i, 3) for i in range(20)]


class Counted:
    """A program for every module with the same structure, which counts how often it is traced."""

    def __init__(self):
        self.traces = 0

        def run(module, x):
            self.traces += 1
            return module(0.5, x)

        self.run = jax.jit(run)


def scan(make, values=VALUES):
    """How many programs the values of a scan need; the results must be those of the function itself."""
    program = Counted()
    for value in values:
        function = make(value)
        module = settled(as_module(function), (jnp.array(0.5), X))
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(module))
        np.testing.assert_allclose(program.run(module, X), function(0.5, X), rtol=1e-14)
        np.testing.assert_allclose(module(0.5, X), function(0.5, X), rtol=1e-14)
    return program.traces


def at_top_level(source):
    """Functions of a script, which reads its own global names; each value runs the script again, as a cell is."""

    def make(value):
        namespace = {"__name__": "__main__", "jnp": jnp, "jax": jax, "np": np, "math": math, "c": value}
        exec(compile(source, "script.py", "exec"), namespace)
        return namespace["V"]

    return make


def in_a_loop(source):
    """The same, with one namespace for all values."""
    namespace = {"__name__": "__main__", "jnp": jnp, "jax": jax, "np": np, "math": math}
    code = compile(source, "script.py", "exec")

    def make(value):
        namespace["c"] = value
        exec(code, namespace)
        return namespace["V"]

    return make


def well(t, x, depth, *, width=1.0):
    return depth * jnp.sum(jnp.tanh(x / width) ** 2) + t


def helper(depth):
    def square(y):
        return depth * y**2

    return square


class Well(eqx.Module):
    depth: float
    shape: str = "round"

    def __call__(self, t, x):
        return self.depth * jnp.sum(x**2)

    def twice(self, t, x):
        return 2 * self(t, x)


class Holds(eqx.Module):
    function: object

    def __call__(self, t, x):
        return self.function(t, x)


class Pair(NamedTuple):
    depth: float
    power: int

    def energy(self, x):
        return self.depth * x[0] ** self.power


Plain = namedtuple("Plain", ["depth", "power"])


@dataclass
class Trap:
    depth: object
    width: float = 1.0

    def energy(self, x):
        return self.depth * x[0] ** 2 / self.width


@jax.custom_jvp
def clipped(y):
    return jnp.clip(y, -1.0, 1.0)


clipped.defjvp(lambda primals, tangents: (clipped(*primals), tangents[0]))


class Shape(enum.Enum):
    ROUND = 1
    FLAT = 2


def as_default(value):
    def V(t, x, c=value, *, shift=2 * value):
        return c * jnp.sum(x**2) + shift

    return V


def as_attribute(value):
    def V(t, x):
        return V.c * x[0] ** 2

    V.c = value
    return V


def recursive(value):
    def horner(coefficients, y):
        return coefficients[0] + (y * horner(coefficients[1:], y) if len(coefficients) > 1 else 0.0)

    coefficients = [value, 0.5, -value]
    return lambda t, x: horner(coefficients, x[0])


def with_a_network(value):
    network = eqx.nn.MLP(2, "scalar", 3, 1, activation=jax.nn.tanh, key=jax.random.key(int(10 * value)))
    return lambda t, x: value * network(x)


def with_a_list(value):
    numbers = [value, 2.0, (1.0, value)]
    return lambda t, x: numbers[0] * x[0] ** 2 + numbers[2][1] * x[1]


def with_a_dictionary(value):
    numbers = {"depth": value, "powers": {2: 0.5, 4: value}, "name": "quartic"}
    return lambda t, x: sum(a * x[0] ** n for n, a in numbers["powers"].items()) + numbers["depth"]


def with_a_namespace(value):
    numbers = types.SimpleNamespace(depth=value, power=2)
    return lambda t, x: numbers.depth * x[0] ** numbers.power


def with_pairs(value):
    pairs = np.array([[0, 1]])
    mask = np.array([True, False])
    return lambda t, x: sum(value * x[i] * x[j] for i, j in pairs) + x[mask][0]


def with_a_decorator(value):
    @functools.wraps(well)
    def decorated(*arguments):
        return value * well(*arguments, 0.5)

    return decorated


def with_jit(value):
    @functools.partial(jax.jit, static_argnums=1)
    def power(y, n):
        return value * y**n

    return lambda t, x: power(x[0], 2)


def with_jit_of_a_decorator(value):
    @jax.jit
    @functools.wraps(well)
    def decorated(t, x):
        return value * well(t, x, 0.5)

    return jax.jit(functools.cache(lambda: decorated)())


def with_a_derivative(value):
    slope = jax.grad(lambda y: value * y**3)
    return lambda t, x: slope(x[0]) + jnp.sum(jax.vmap(lambda y: value * y)(x))


def with_an_enum(value):
    shape = Shape.ROUND
    return lambda t, x: value * x[0] if shape is Shape.ROUND else x[1]


ONE_PROGRAM = {
    "a lambda": lambda c: lambda t, x: 0.5 * jnp.sum(x**2) + c * x[0] * x[1],
    "a number of NumPy": lambda c: (lambda c: lambda t, x: c * x[0] ** 2)(np.float64(c)),
    "a number of JAX": lambda c: (lambda c: lambda t, x: c * x[0] ** 2)(jnp.asarray(c)),
    "a complex number": lambda c: (lambda z: lambda t, x: jnp.real(z * jnp.exp(1j * x[0])))(1.0 + c * 1j),
    "an array of NumPy": lambda c: (lambda a: lambda t, x: a @ x)(np.array([c, 1.0])),
    "an array of JAX": lambda c: (lambda a: lambda t, x: a @ x)(jnp.array([c, 1.0])),
    "a global name": at_top_level("V = lambda t, x: c * x[0] ** 2"),
    "a global name in a loop": in_a_loop("V = lambda t, x: c * x[0] ** 2"),
    "a helper at top level": in_a_loop(
        "def square(y):\n    return c * y ** 2\ndef V(t, x):\n    return square(x[0]) + c"
    ),
    "a comprehension": in_a_loop("V = lambda t, x: sum([c * x[i] for i in range(2)])"),
    "default arguments": as_default,
    "an attribute of a function": as_attribute,
    "nested functions": lambda c: (lambda square: lambda t, x: square(x[0]) + c)(helper(c)),
    "a partial": lambda c: functools.partial(well, depth=c, width=2.0),
    "a partial of JAX": lambda c: jax.tree_util.Partial(well, depth=c),
    "a recursive function": recursive,
    "a module": lambda c: (lambda m: lambda t, x: m(t, x) + c)(Well(c)),
    "a method of a module": lambda c: (lambda f: lambda t, x: f(t, x) + c)(Well(c).twice),
    "a network": with_a_network,
    "a list": with_a_list,
    "a dictionary": with_a_dictionary,
    "a namespace": with_a_namespace,
    "a named tuple": lambda c: (lambda p: lambda t, x: p.depth * x[0] ** p.power)(Plain(c, 2)),
    "a named tuple with a method": lambda c: (lambda p: lambda t, x: p.energy(x))(Pair(c, 2)),
    "indices": with_pairs,
    "a decorator": with_a_decorator,
    "a jitted function": with_jit,
    "a jitted decorator": with_jit_of_a_decorator,
    "derivatives and maps": with_a_derivative,
    "an enum": with_an_enum,
    "a class of modules": lambda c: lambda t, x: Well(c)(t, x) + Well(2.0).twice(t, x),
    "a class with data": lambda c: lambda t, x: Trap(c, 2.0).energy(x),
    "a derivative of its own": lambda c: lambda t, x: c * clipped(x[0]),
    "a function in a module": lambda c: Holds(lambda t, x: c * x[0]),
    "a function of a library": lambda c: (lambda f: lambda t, x: jnp.sum(f(c * x)))(jax.nn.softplus),
    "a conditional of whole numbers": lambda c: (lambda n: lambda t, x: c * x[0] if n > 1 else x[1])(2),
}


TWENTY = ("a lambda", "a global name in a loop", "default arguments", "nested functions", "a partial")


@pytest.mark.parametrize("name", ONE_PROGRAM)
def test_a_scan_compiles_once(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scan(ONE_PROGRAM[name], VALUES if name in TWENTY else VALUES[:4]) == 1


def with_an_if(value):
    return lambda t, x: value * x[0] if value > 1.0 else x[1]


def looks_at_types(value):
    return lambda t, x: (value if isinstance(value, float) else 7.0) * x[0]


def catches(value):
    def V(t, x):
        try:
            return math.sqrt(value) * x[0]
        except Exception:
            return 7.0 * x[0]

    return V


NEEDS_VALUES = {
    "if": with_an_if,
    "the module math": lambda c: lambda t, x: math.sqrt(c) * x[0] ** 2,
    "NumPy": lambda c: lambda t, x: np.exp(np.array([c]))[0] * x[0],
    "an index": lambda c: lambda t, x: x[int(c) % 2] + c,
    "the type": looks_at_types,
    "the type, by NumPy": lambda c: lambda t, x: (c if np.isscalar(c) else 7.0) * x[0],
    "an error that is caught": catches,
    "a text": lambda c: lambda t, x: {str(c): 1.0}.get(str(c), 0.0) * c * x[0],
    "a table of names": lambda c: (lambda table: lambda t, x: table[c] * x[0])({c: 2 * c}),
    "an array in an if": lambda c: (lambda a: lambda t, x: x[0] if a.sum() > 2 else a @ x)(
        np.array([c, 1.0])
    ),
}


@pytest.mark.parametrize("name", NEEDS_VALUES)
def test_what_needs_the_values_gets_them(name):
    assert scan(NEEDS_VALUES[name], VALUES[3:7]) == 4
    # The same values share a program here too.
    assert scan(NEEDS_VALUES[name], [0.5, 0.5, 0.5]) == 1


def test_whole_numbers_stay_what_they_are():
    def make(n):
        return lambda t, x: x[0] ** n + sum(x[i] for i in range(n % 2)) + x[n % 2]

    assert scan(make, [1, 2, 3, 2, 1]) == 3
    powers = np.arange(3)
    text = str(jax.make_jaxpr(as_module(lambda t, x: x[0] ** int(powers[2])))(0.0, X))
    assert "integer_pow" in text or "square" in text


@settings(max_examples=15)
@given(
    st.lists(st.sampled_from([*ONE_PROGRAM, "if", "the module math", "the type"]), min_size=2, max_size=4)
)
def test_functions_do_not_mix(names):
    """All kinds through one program, in any order."""
    program = Counted()
    for i, name in enumerate(names):
        function = {**ONE_PROGRAM, **NEEDS_VALUES}[name](VALUES[i])
        module = settled(as_module(function), (jnp.array(0.5), X))
        np.testing.assert_allclose(program.run(module, X), function(0.5, X), rtol=1e-14)


class Parameters:
    def __init__(self, depth):
        self.depth = depth


class Settings:
    depth = 1.0


class Wall:
    steepness = 3.0

    def __init__(self, depth):
        self.depth = depth

    def __call__(self, t, x):
        return self.depth * jnp.sum(x**4) + self.steepness


def same_program(one, other):
    return jax.tree.structure(one) == jax.tree.structure(other)


def test_values_are_those_at_the_time_the_module_was_made():
    numbers, array = [1.0, 2.0], np.array([1.0, 2.0])
    namespace = {"__name__": "__main__", "c": 1.0}
    exec("V = lambda t, x: c * x[0]", namespace)
    cases = [
        (lambda t, x: numbers[1] * x[0], lambda: numbers.__setitem__(1, 5.0)),
        (lambda t, x: array[1] * x[0], lambda: array.__setitem__(1, 5.0)),
        (namespace["V"], lambda: namespace.update(c=5.0)),
    ]
    program = Counted()
    for function, mutate in cases:
        before, value = as_module(function), function(0.0, X)
        for module in (before, with_constants(before, "")):
            np.testing.assert_allclose(program.run(module, X), value)
        mutate()
        assert abs(function(0.0, X) - value) > 0.1
        fixed = with_constants(as_module(function), "")
        for module in (before, with_constants(before, "")):
            np.testing.assert_allclose(program.run(module, X), value)
            np.testing.assert_allclose(module(0.0, X), value)
        for module in (as_module(function), fixed):
            np.testing.assert_allclose(program.run(module, X), function(0.0, X))


def test_objects_of_the_user_are_compared_by_what_they_hold():
    parameters = Parameters(1.0)

    def V(t, x):
        return parameters.depth * x[0]

    program = Counted()
    first = as_module(V)
    assert same_program(first, as_module(V))
    for depth in (1.0, 2.0, 3.0):
        parameters.depth = depth
        for function in (V, lambda t, x: parameters.depth * x[0]):
            np.testing.assert_allclose(program.run(as_module(function), X), depth * X[0])
    assert program.traces == 6
    # Another object of the same contents is another: the function could change it.
    parameters = Parameters(3.0)
    assert not same_program(as_module(V), first)


def test_objects_in_objects():
    inner = Parameters([1.0, {"a": np.array([2.0])}])
    outer = Parameters(inner)

    def V(t, x):
        return outer.depth.depth[1]["a"][0] * x[0]

    first = as_module(V)
    assert same_program(first, as_module(V))
    inner.depth[1]["a"][0] = 3.0
    assert not same_program(first, as_module(V))
    outer.itself = outer
    assert same_program(as_module(V), as_module(V))


def test_attributes_of_classes(monkeypatch):
    def V(t, x):
        return Settings.depth * x[0]

    wall = Wall(1.0)
    first, of_wall = as_module(V), as_module(wall)
    assert same_program(first, as_module(V))
    assert same_program(of_wall, as_module(wall))
    monkeypatch.setattr(Settings, "depth", 2.0)
    monkeypatch.setattr(Wall, "steepness", 2.0)
    assert not same_program(first, as_module(V))
    assert not same_program(of_wall, as_module(wall))
    again = as_module(wall)
    wall.depth = 2.0
    assert not same_program(again, as_module(wall))
    np.testing.assert_allclose(Counted().run(as_module(wall), X), wall(0.0, X))


def test_modules_of_the_user(monkeypatch):
    module = types.ModuleType("my_parameters")
    module.depth, module.other = 1.0, 1.0
    module.inner = types.ModuleType("my_parameters.inner")
    module.inner.width = 2.0
    exec("def energy(y):\n    return depth * y ** 2", vars(module))
    namespace = {"__name__": "__main__", "p": module}
    exec("def V(t, x):\n    return p.energy(x[0]) + p.inner.width + p.depth", namespace)
    V, program = namespace["V"], Counted()
    for name, value in (("depth", 1.0), ("depth", 2.0), ("other", 2.0)):
        setattr(module, name, value)
        np.testing.assert_allclose(program.run(as_module(V), X), V(0.5, X))
    assert program.traces == 2
    module.inner.width = 3.0
    np.testing.assert_allclose(program.run(as_module(V), X), V(0.5, X))
    assert program.traces == 3
    # A module that is passed on as a whole may be asked for anything.
    exec("def V(t, x):\n    return getattr(p, 'depth') * x[0]", namespace)
    assert not same_program(as_module(namespace["V"]), as_module(namespace["V"]))


def test_what_can_not_be_looked_into_is_never_shared():
    opaque = [iter([1.0]), np.random.default_rng(0), memoryview(b"a"), object.__new__]
    for thing in opaque:

        def V(t, x, thing=thing):
            return x[0]

        assert not same_program(as_module(V), as_module(V))
        np.testing.assert_allclose(as_module(V)(0.0, X), X[0])


def test_names_that_come_later_or_by_text():
    namespace = {"__name__": "__main__", "c": 2.0}
    exec("def V(t, x):\n    return later(x) * c", namespace)
    exec("def W(t, x):\n    return globals()['c'] * x[0]", namespace)
    exec("def G(t, x):\n    global count\n    count = 1\n    return c * x[0]", namespace)
    modules = [as_module(namespace[name]) for name in "VWG"]
    namespace["later"] = lambda x: x[0]
    for module in modules:
        np.testing.assert_allclose(module(0.0, X), 2.0 * X[0])
    assert namespace["count"] == 1


def test_records_of_the_function_itself_are_kept():
    calls, count = [], 0

    def make(c):
        def V(t, x):
            nonlocal count
            count += 1
            calls.append(c)
            return c * x[0]

        return V

    program = Counted()
    for value in VALUES:
        np.testing.assert_allclose(program.run(as_module(make(value)), X), value * X[0])
    assert program.traces == count == len(calls) == 1


def test_an_array_that_the_function_writes_to_is_told():
    table = np.zeros(2, int)

    def V(t, x):
        table[0] = 1
        return x[0]

    with pytest.raises(ValueError, match="read-only"):
        as_module(V)(0.0, X)


def test_gradients_and_maps_over_coefficients():
    def energy(c, d):
        array = jnp.array([c, d])
        module = settled(as_module(lambda t, x: c * x[0] ** 2 + array @ x), (jnp.array(0.5), X))
        assert len(jax.tree.leaves(module)) == 2
        return jax.jit(lambda m, x: m(0.5, x))(module, X)

    slopes = jax.grad(energy, argnums=(0, 1))(0.5, 2.0)
    np.testing.assert_allclose(slopes, [X[0] ** 2 + X[0], X[1]])
    values = jax.vmap(energy)(jnp.array([0.5, 1.0]), jnp.array([2.0, 3.0]))
    np.testing.assert_allclose(values, [energy(0.5, 2.0), energy(1.0, 3.0)])
    module = as_module((lambda c: lambda t, x: c * x[0] ** 2)(0.5))
    gradient = jax.grad(lambda m: m(0.0, X))(module)
    np.testing.assert_allclose(gradient.values[0], X[0] ** 2)


def test_a_number_that_is_traced_beside_one_that_must_be_known():
    def value(c):
        return (lambda n: settled(as_module(lambda t, x: c * x[0] * math.sqrt(n)), (0.5, X)))(4.0)(0.5, X)

    np.testing.assert_allclose(jax.grad(value)(1.0), 2.0 * X[0])


def test_functions_made_under_a_transformation():
    """There too numbers of Python have values."""

    @jax.jit
    def value(x):
        c, d = 2.0, np.array([1.0, 2.0])
        function = lambda t, x: math.sqrt(c) * x[0] if c > d.min() else x[1]  # noqa: E731
        return settled(as_module(function), (jnp.array(0.5), x))(0.5, x)

    np.testing.assert_allclose(value(X), math.sqrt(2.0) * X[0])


traces = []


def position(frequency, shift):
    """Where a packet in a displaced trap ends, and how often solving traced the potential."""

    def V(t, x):
        traces.append(1)
        return 0.5 * frequency**2 * jnp.sum(x**2) - shift * x[0]

    problem = bd.Problem(bd.Hamiltonian(V), bd.GaussianWavePacket([1.0], 0.5), t1=1.0)
    before = len(traces)
    solution = bd.solve(problem, bd.GaussianDynamics(steps=20), ts=[0.5, 1.0])
    return solution.mean()[-1, 0], len(traces) - before


def test_a_scan_by_a_method_compiles_once():
    for i, frequency in enumerate(np.linspace(0.5, 1.5, 20)):
        end, traced = position(float(frequency), 0.3)
        assert (traced > 0) == (i == 0)
        centre = 0.3 / frequency**2
        np.testing.assert_allclose(end, centre + (1 - centre) * np.cos(frequency), atol=1e-6)


@pytest.mark.slow
def test_gradients_through_a_method():
    slopes = jax.grad(lambda *a: position(*a)[0], argnums=(0, 1))(1.2, 0.3)
    h = 1e-4
    for slope, step in zip(slopes, ((h, 0.0), (0.0, h)), strict=True):
        up, down = (position(1.2 + s * step[0], 0.3 + s * step[1])[0] for s in (1, -1))
        np.testing.assert_allclose(slope, (up - down) / (2 * h), rtol=1e-6)


def test_precision():
    single = X.astype(jnp.float32)
    table = np.array([1.0, 2.0])
    number, scalar, imaginary = 0.3, np.float64(0.3), 0.3j
    functions = [
        lambda t, x: number * x[0],
        lambda t, x: scalar * x[0],
        lambda t, x: jnp.real(imaginary * jnp.exp(1j * x[0])),
        lambda t, x: number + jnp.exp(number) * x[0],
    ]
    for function in functions:
        module = as_module(function)
        for call in (module, jax.jit(lambda m, *a: m(*a)).__call__):
            arguments = (jnp.float32(0.5), single) if call is module else (module, jnp.float32(0.5), single)
            assert call(*arguments).dtype == jnp.float32
        assert jax.jit(lambda m, x: m(0.5, x))(module, X).dtype == jnp.float64
    assert as_module(lambda t, x: table @ x)(0.0, X).dtype == jnp.float64


def test_numbers_that_single_precision_can_not_multiply_stay_constants():
    hbar, mass = 1.054571817e-34, 9.1093837e-31

    def V(t, x):
        return hbar**2 / mass * 1e38 * x[0]

    single = X.astype(jnp.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        in_single = settled(as_module(V), (jnp.float32(0.0), single))
        in_double = settled(as_module(V), (jnp.array(0.0), X))
    assert not in_single.values
    assert len(in_double.values) == 2
    run = jax.jit(lambda m, x: m(0.0, x))
    np.testing.assert_allclose(run(in_single, single), V(0.0, X), rtol=1e-6)
    np.testing.assert_allclose(run(in_double, X), V(0.0, X), rtol=1e-14)
    with jax.enable_x64(False):
        assert not as_module(V).values
        assert len(as_module((lambda c: lambda t, x: c * x[0])(0.5)).values) == 1


def test_settling_takes_the_first_option_that_works():
    c = 0.5

    def V(t, x):
        return c * x.reshape(-1, 3)[0, 0]

    def W(t, x):
        return V(t, x) if c > 0 else x[0]

    options = [(jnp.array(0.0), jnp.zeros(d)) for d in (1, 2, 3)]
    assert settled(as_module(V), *options).values
    assert settled(as_module(W), *options[:2]).values
    assert not settled(as_module(W), *options).values
    # An error of the function itself is left to others to tell.
    zero = 0.0
    division = settled(as_module(lambda t, x: x[0] / zero + 1 / zero), (jnp.array(0.0), X))
    with pytest.raises(ZeroDivisionError):
        division(0.0, X)


def test_a_result_of_another_kind_settles_for_constants():
    c = -2.0
    module = settled(as_module(lambda t, x: c**0.5 * x[0]), (jnp.array(0.0), X))
    np.testing.assert_allclose(jax.jit(lambda m: m(0.0, X))(module), 1j * 2**0.5 * X[0], atol=1e-12)


def messages(make, values):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for value in values:
            settled(as_module(make(value)), (jnp.array(0.5), X))
    return [str(one.message) for one in caught]


def test_a_hint_where_the_third_compiles_anew():
    def with_object(value):
        parameters = Parameters(value)
        return lambda t, x: parameters.depth * x[0]

    def with_iterator(value):
        items = iter([value])
        return lambda t, x: next(items) * x[0]

    def with_condition(value):
        return lambda t, x: value * x[0] if value > 0 else x[0]

    for make, reason in (
        (with_object, "it uses an object of type Parameters"),
        (with_iterator, "it uses an object of type list_iterator"),
        (with_condition, "it needs their values"),
    ):
        assert messages(make, VALUES[:2]) == []
        (message,) = messages(make, VALUES[2:])
        assert reason in message
        assert "equinox.Module" in message
        assert messages(make, VALUES) == []


def test_no_hint_for_one_function_or_for_whole_numbers():
    parameters = Parameters(1.0)

    def V(t, x):
        return parameters.depth * x[0]

    assert messages(lambda value: V, VALUES) == []
    assert messages(lambda value: lambda t, x: value * parameters.depth * x[0], VALUES) == []
    assert messages(lambda n: lambda t, x: x[0] ** n, range(5)) == []


def test_modules_stay_what_they_are():
    module = Well(1.0)
    assert as_module(module) is module
    held = as_module(Holds(lambda t, x: x[0]))
    assert type(held) is Holds
    assert isinstance(held.function, ClosedFunction)


def test_text():
    def morse(t, x):
        return depth * x[0]

    depth = 1.0
    assert "morse" in repr(as_module(morse))
    assert "0x" not in repr(as_module(morse))
    assert as_module(functools.partial(well, depth=1.0)).name == "well"
    assert as_module(Wall(1.0)).name == "Wall"
    assert jax.jit(as_module(morse))(0.0, X) == X[0]


def test_large_things_end():
    chain = None
    for _ in range(20_000):
        chain = [chain]
    sys_limit = sys.getrecursionlimit()
    wide = Parameters([Parameters(i) for i in range(4_000)])
    assert not same_program(as_module(lambda t, x: wide), as_module(lambda t, x: wide))
    assert sys.getrecursionlimit() == sys_limit
    assert not same_program(as_module(lambda t, x: chain), as_module(lambda t, x: chain))
