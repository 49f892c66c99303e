"""`forgetguard inspect`: what it says of a checkpoint is what other readers find in it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from forgetguard.checkpoints.spec import resolve
from forgetguard.cli import main


@pytest.fixture
def inspected(capsys: pytest.CaptureFixture[str], nothing_computed: None):
    def run(checkpoint: str | Path) -> dict[str, Any]:
        assert main(["inspect", str(checkpoint), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of tiny:base."""
    return Path(shutil.copytree(resolve("tiny:base", "base").location, tmp_path / "copy"))


def rewrite(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_full_checkpoint(inspected, copy: Path) -> None:
    found = inspected(copy)
    config = json.loads((copy / "config.json").read_text())
    with safe_open(copy / "model.safetensors", "pt") as weights:
        shapes = [weights.get_slice(name).get_shape() for name in weights.keys()]  # noqa: SIM118
    numbers = sum(rows[0] * (rows[1] if len(rows) > 1 else 1) for rows in shapes)
    assert found["parameters"] == numbers
    assert found["bytes"] == (copy / "model.safetensors").stat().st_size
    assert (found["layers"], found["heads"], found["key_value_heads"], found["width"]) == tuple(
        config[key] for key in ("num_hidden_layers", "num_attention_heads", "num_key_value_heads",
                                "hidden_size")
    )  # fmt: skip
    assert found["architecture"] == config["architectures"][0]
    assert found["tied_embeddings"] is config["tie_word_embeddings"]
    vocabulary = json.loads((copy / "tokenizer.json").read_text())["model"]["vocab"]
    assert found["vocabulary"] == len(vocabulary)
    assert (found["quantisation"], found["dtype"], found["chat_template"]) == ("none", "F32", False)
    assert len(found["fingerprint"]["weights"]) == 64
    assert found["gate"][-1].endswith("5 bundled circuits were made for it")


def test_an_adapter_is_told_with_its_base(inspected) -> None:
    found = inspected("tiny:lora")
    config = json.loads(
        (Path(resolve("tiny:lora", "").location) / "adapter_config.json").read_text()
    )
    assert (found["adapter"], found["rank"]) == ("LORA", config["r"])
    assert (found["base"], found["switched"]) == (config["base_model_name_or_path"], True)
    assert "heads" not in found


def test_a_template_whose_replies_think_first_is_told(inspected, copy: Path) -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}{% if false %}<think>{% endif %}"
    (copy / "chat_template.jinja").write_text(template)
    found = inspected(copy)
    assert (found["chat_template"], found["replies_open_with"]) == (True, "<think>")
    (copy / "chat_template.jinja").write_text(template.replace("<think>", "..."))
    assert "replies_open_with" not in inspected(copy)


def test_what_the_gate_would_refuse_is_told_and_the_rest_shown(inspected, copy: Path) -> None:
    rewrite(copy / "config.json", quantization_config={"quant_method": "gptq"})
    found = inspected(copy)
    assert found["quantisation"] == "gptq"
    assert found["gate"][-1].startswith("refused: ")
    assert found["layers"] == 4


def test_an_adapter_whose_base_is_gone_is_told(inspected, tmp_path: Path) -> None:
    adapter = Path(shutil.copytree(resolve("tiny:lora", "").location, tmp_path / "lora"))
    rewrite(adapter / "adapter_config.json", base_model_name_or_path="./gone")
    assert inspected(adapter)["gate"][-1].startswith("refused: ")


def test_the_lines_say_what_the_json_says(inspected, capsys: pytest.CaptureFixture[str]) -> None:
    found = inspected("tiny:base")
    assert main(["inspect", "tiny:base"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"parameters       {found['parameters']:,}" in lines
    assert f"fingerprint      weights {found['fingerprint']['weights']}" in lines


@pytest.mark.parametrize(
    "arguments", [(), ("tiny:base", "tiny:sft"), ("./gone",), (".",)], ids=" ".join
)
def test_misuse(arguments: tuple[str, ...], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", *arguments]) == 2


def test_a_checkpoint_that_is_cut_short_is_no_traceback(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (copy / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    assert main(["inspect", str(copy)]) == 1
    assert "truncated or corrupt" in capsys.readouterr().err
