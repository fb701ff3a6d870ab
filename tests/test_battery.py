"""A short form of benchmarks/battery.py: whatever is wrong says so, and what is right does not."""

import importlib.util
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[1] / "benchmarks" / "battery.py"
# One of each kind, harmless and wrong; the names begin so.
CHOSEN = [
    "oscillator 1.0, covariance 0.3, t = 100",
    "slope 0.2",
    "quartic 0.03, t = 1",
    "quartic 0.3, t = 3",
    "Morse 12.5, 0.2, from 1.0, t = 2",
    "Morse 12.5, 0.2, from 1.0, t = 31.4",
    "Eckart 0.02",
    "Eckart 1.0, momentum 2.5",
    "double well 0.1, from 0.0, t = 5",
    "pulse 0.3 on Morse 12.5",
    "mixture 0.5, 2.5",
]
METHODS = ["degree 4", "Gaussian"]


@pytest.fixture(scope="module")
def battery():
    specification = importlib.util.spec_from_file_location("battery", FILE)
    module = importlib.util.module_from_spec(specification)
    sys.modules["battery"] = module  # its dataclass looks itself up
    specification.loader.exec_module(module)
    yield module
    del sys.modules["battery"]


@pytest.mark.slow
def test_wrong_solutions_say_so(battery):
    cases = [case for case in battery.cases() if case.name.startswith(tuple(CHOSEN))]
    assert len(cases) == len(CHOSEN)
    rows = [row for case in cases for row in battery.run(case, METHODS) if row.get("error") is not None]
    wrong = [row for row in rows if row["error"] > battery.WRONG]
    harmless = [row for row in rows if row["error"] < battery.HARMLESS]
    assert len(wrong) > 8
    assert len(harmless) > 5
    assert all(row["told"] for row in wrong)
    assert not any(row["told"] for row in harmless)
    # Up to the time until which a solution says that it can be trusted, it can.
    assert all(row["trusted"] < battery.WRONG for row in rows if row["told"])
