"""What all tests share. Shapes in signatures are checked while they run.

`TUTELAGE_NO_SHAPE_HOOK=1` leaves the check out: `torch.compile` cannot take checked functions, so
tests of compilation start a process with it.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

# As PEP 484 and pyright have it, an int may stand where a float is asked for.
CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"

if os.environ.get("TUTELAGE_NO_SHAPE_HOOK") != "1":
    install_import_hook("tutelage", CHECKER)

# The same examples everywhere and every time; no test asserts a time.
settings.register_profile("house", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("house")

NUM_THREADS = 2
"""The suite is made for two cores; more threads would sum in another order."""


@pytest.fixture(autouse=True)
def _same_start() -> Iterator[None]:
    """Thread count and global generator do not depend on the tests that ran before."""
    torch.set_num_threads(NUM_THREADS)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(NUM_THREADS)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Without checked signatures, as in use."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the repository: CIFAR pictures and public weights."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real data is not here: {folder} is no folder")
    return folder
