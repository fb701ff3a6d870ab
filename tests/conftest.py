"""Every test runs in double precision, with the shapes in our signatures checked at run time."""

import gc
import os
import subprocess
import sys
from pathlib import Path

# Most of the time would go into making programs fast that run once. In the environment, so that processes which
# tests start compile to the same bits.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"


def knows(flag: str) -> bool:
    """Whether this version of XLA knows a flag, by a process that tries it: XLA ends one in which it does not."""
    tried = os.environ | {"XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"}
    start = [sys.executable, "-c", "import jax; jax.devices()"]
    return subprocess.run(start, env=tried, capture_output=True, check=False).returncode == 0


# Twice the time to compile, for faster programs. Workers inherit the flags of the process that starts them.
FLAG = "--xla_cpu_use_fusion_emitters=false"
flags = os.environ.get("XLA_FLAGS", "")
if FLAG not in flags and knows(FLAG):
    os.environ["XLA_FLAGS"] = f"{flags} {FLAG}"

# Tracing makes millions of objects that stay; looking through them again and again takes an eighth of the time.
gc.set_threshold(200_000, 50, 1000)

import jax  # noqa: E402

jax.config.update("jax_enable_x64", True)

from jaxtyping import install_import_hook  # noqa: E402

with install_import_hook("bohmdiff", "beartype.beartype"):
    import bohmdiff  # noqa: F401

from hypothesis import settings  # noqa: E402

settings.register_profile("bohmdiff", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("bohmdiff")


def pytest_collection_modifyitems(items):
    """The longest files first: at the end the other workers would wait for them."""
    items.sort(key=lambda item: item.path.name not in ("test_docs.py", "test_reference.py"))


def pytest_runtest_teardown():
    """A process may map so many regions of memory, on Linux 65,530 unless told otherwise, and every compiled
    program takes some: beyond that XLA crashes."""
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_text().count("\n") > 40_000:
        jax.clear_caches()
        gc.collect()
