"""What all tests share: pytest's own fixture for testing plugins, torch on one thread where a file
asks for it, hypothesis without a deadline, and garbage not looked for."""

import gc
from collections.abc import Iterator

import pytest
from hypothesis import settings

# Beside other work an example takes as long as it takes.
settings.register_profile("forgetguard", deadline=None)
settings.load_profile("forgetguard")

pytest_plugins = ["pytester"]


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small models are faster so, and two workers do not fight for the cores."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pytest_collection_finish() -> None:
    """What was imported lives as long as the process, and looking for garbage in it takes a
    twentieth of the time of the tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)
