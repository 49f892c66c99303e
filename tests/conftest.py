"""What all tests share: pytest's own fixture for testing plugins, and garbage not looked for."""

import gc

pytest_plugins = ["pytester"]


def pytest_collection_finish() -> None:
    """What was imported lives as long as the process, and looking for garbage in it takes a
    twentieth of the time of the tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)
