"""A real model and its copies, made once; all tests here are marked `real`, skipped without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from record.copies import byte_copy
from record.real_runs import COPIES, MODEL

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.real)


@pytest.fixture(scope="session")
def base() -> Path:
    """The directory of the real model."""
    if not (MODEL / "model.safetensors").exists():
        pytest.skip(f"{MODEL} is not there: `make real` makes it")
    return MODEL.resolve()


@pytest.fixture(scope="session")
def copied(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A changed copy of the base by its name in `COPIES`, or a "byte copy"; each made once."""
    folder, made = tmp_path_factory.mktemp("copies"), {}

    def copy(name: str) -> Path:
        if name not in made:
            make = byte_copy if name == "byte copy" else COPIES[name]
            made[name] = make(base, folder / name.replace(" ", "-"))
        return made[name]

    return copy
