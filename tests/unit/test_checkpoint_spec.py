"""What a user writes is taken for what it is, and what cannot be is refused with a way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from forgetguard.checkpoints.files import find_weights
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.spec import resolve
from forgetguard.errors import CheckpointError, SpecificationError


def _directory(path: Path, *names: str) -> Path:
    path.mkdir(parents=True)
    for name in names:
        (path / name).write_text("{}")
    return path


def test_a_directory_with_a_configuration_is_a_full_checkpoint(tmp_path: Path) -> None:
    full = _directory(tmp_path / "full", "config.json", "model.safetensors")
    spec = resolve(str(full), "base")
    assert (spec.kind, spec.location, spec.role) == ("directory", str(full), "base")


def test_a_directory_with_an_adapter_configuration_is_an_adapter(tmp_path: Path) -> None:
    adapter = _directory(tmp_path / "adapter", "config.json", "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    spec = resolve(str(adapter), "tuned")
    assert (spec.kind, spec.base) == ("adapter", "org/base")


def test_a_directory_with_both_is_refused_as_ambiguous(tmp_path: Path) -> None:
    both = _directory(tmp_path / "b", "config.json", "model.safetensors", "adapter_config.json")
    with pytest.raises(CheckpointError, match=r"full checkpoint and a peft adapter too.*move one"):
        resolve(str(both), "tuned")


def test_a_directory_without_a_checkpoint_is_told_what_it_holds_and_lacks(tmp_path: Path) -> None:
    other = _directory(tmp_path / "other", "notes.md")
    with pytest.raises(CheckpointError, match=r"notes\.md.*Needed: config\.json.*safetensors"):
        resolve(str(other), "tuned")


def test_a_training_output_directory_is_pointed_to_its_last_checkpoint(tmp_path: Path) -> None:
    inner = _directory(tmp_path / "run" / "checkpoint-500", "config.json")
    with pytest.raises(CheckpointError, match=f"did you mean tuned={inner}"):
        resolve(str(tmp_path / "run"), "tuned")


def test_a_weight_file_is_pointed_to_its_directory(tmp_path: Path) -> None:
    full = _directory(tmp_path / "full", "config.json", "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"is a file.*give base={full}"):
        resolve(str(full / "model.safetensors"), "base")


@pytest.mark.parametrize("inside", ["only", "beside a configuration", "the file itself"])
def test_a_gguf_file_is_called_one_with_the_way_to_convert_it(tmp_path: Path, inside: str) -> None:
    names = ["config.json"] * (inside == "beside a configuration")
    folder = _directory(tmp_path / "quantised", "model-Q4_K_M.gguf", *names)
    given = folder / "model-Q4_K_M.gguf" if inside == "the file itself" else folder
    way = rf"from_pretrained\('{folder}', gguf_file='model-Q4_K_M.gguf'\)"
    with pytest.raises(CheckpointError, match=way):
        spec = resolve(str(given), "base")
        find_weights(spec.directory, adapter=False, allow_pickle=False)


def test_a_models_folder_in_the_hubs_cache_is_pointed_to_the_snapshot_that_main_is(
    tmp_path: Path,
) -> None:
    cache = tmp_path / "hub"
    model = _directory(cache / "models--org--some--name", "blobs")
    current = _directory(model / "snapshots" / "abc", "config.json")
    _directory(model / "snapshots" / "newer", "config.json")
    _directory(model / "refs", "main")
    (model / "refs" / "main").write_text("abc")
    with pytest.raises(CheckpointError, match=rf"tuned={current}, or tuned=org/some--name$"):
        resolve(str(model), "tuned")
    with pytest.raises(CheckpointError, match=r"such as tuned=org/some--name "):
        resolve(str(cache), "tuned")


@pytest.mark.parametrize("given", ["./nope", "../nope", "~/nope-nope", "/nope", "a/b/c", "runs/"])
def test_a_path_that_is_not_there_is_never_taken_for_a_hub_id(given: str) -> None:
    with pytest.raises(CheckpointError, match="no such directory"):
        resolve(given, "tuned")


def test_a_missing_directory_is_answered_with_its_neighbours(tmp_path: Path) -> None:
    _directory(tmp_path / "science-sft", "config.json")
    with pytest.raises(CheckpointError, match="has the directories: science-sft"):
        resolve(str(tmp_path / "sience-sft"), "tuned")


@pytest.mark.parametrize(
    ("given", "location", "revision"),
    [
        ("Qwen/Qwen2.5-3B-Instruct", "Qwen/Qwen2.5-3B-Instruct", None),
        ("org/name@v1.0", "org/name", "v1.0"),
        ("org/name@refs/pr/7", "org/name", "refs/pr/7"),
        ("gpt2", "gpt2", None),
    ],
)
def test_everything_else_that_looks_like_one_is_a_hub_id(
    given: str, location: str, revision: str | None
) -> None:
    spec = resolve(given, "base")
    assert (spec.kind, spec.location, spec.revision) == ("hub", location, revision)


def test_a_directory_of_that_name_wins_over_a_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _directory(tmp_path / "org" / "name", "config.json")
    monkeypatch.chdir(tmp_path)
    assert resolve("org/name", "base").kind == "directory"


@pytest.mark.parametrize("given", ["", "  ", "org/na me", "org/name@", "tiny:nope"])
def test_what_is_neither_is_refused(given: str) -> None:
    with pytest.raises(CheckpointError, match="base="):
        resolve(given, "base")


def test_the_tiny_aliases_name_directories_of_the_package() -> None:
    import forgetguard.checkpoints.spec as module

    tiny = Path(module.__file__).parent / "tiny"
    for name in module.TINY:
        if (tiny / name).is_dir():
            assert resolve(f"tiny:{name}", "base").location == str((tiny / name).resolve())
        else:
            with pytest.raises(CheckpointError, match="install forgetguard again"):
                resolve(f"tiny:{name}", "base")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dtype", "fp32"),
        ("dtype", None),
        ("device", "gpu"),
        ("device", "cuda:x"),
        ("device", 0),
        ("device_map", "balanced"),
        ("trust_remote_code", "yes"),
    ],
)
def test_an_option_that_is_not_known_is_refused_by_its_value(field: str, value: object) -> None:
    with pytest.raises(SpecificationError, match=rf"{field} .*{value}"):
        LoadOptions(**{field: value})  # type: ignore[arg-type]


def test_a_device_and_a_device_map_exclude_each_other() -> None:
    with pytest.raises(SpecificationError, match="leave one of them out"):
        LoadOptions(device="cuda:1", device_map="auto")


@pytest.mark.parametrize("device", [None, "cpu", "cuda", "cuda:3", "mps"])
def test_the_documented_devices_are_accepted(device: str | None) -> None:
    assert LoadOptions(device=device).device == device
