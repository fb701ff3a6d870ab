"""Every test runs in double precision, with the shapes in our signatures checked at run time."""

import gc
import mmap
import os
from importlib.util import find_spec
from pathlib import Path

# Most of the time would go into making programs fast that run once. In the environment, so that processes which
# tests start compile to the same bits.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"


def in_jaxlib(flag: str) -> bool:
    """Whether this version of XLA has a flag: it ends the process where it is given one that it does not know."""
    library = next(Path(find_spec("jaxlib").origin).parent.glob("libjax_common*"), None)
    if library is None:
        return False
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(flag.encode()) >= 0


# Twice the time to compile, for faster programs.
if in_jaxlib("xla_cpu_use_fusion_emitters"):
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_use_fusion_emitters=false"

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
