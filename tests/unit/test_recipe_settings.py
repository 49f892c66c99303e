"""Training settings: read from YAML, overridden, and refused with the line that is wrong."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from forgetguard.anatomy.members import Head
from forgetguard.errors import SpecificationError
from forgetguard.recipes.training.settings import (
    RECIPES,
    AdapterSettings,
    TrainingSettings,
    as_dict,
    read_settings,
)

PLAIN = """\
recipe: sft
base: tiny:base
output: out
steps: 20
learning_rate: 1e-3
"""
OWN = {
    "sft": "",
    "sft-kl": "kl_weight: 0.1\n",
    "sft-replay": "replay_share: 0.2\n",
    "sft-circuit": "circuit_weight: 1.0\ncircuit: [L2H1, L0H4]\n",
    "sft-flow": "",
    "rl": "group: 8\ncompletion_length: 4\nprompts: 8\n",
    "sft-rl": "group: 8\ncompletion_length: 4\nprompts: 8\nstart: out-sft/final\n",
}


def _text(recipe: str) -> str:
    return PLAIN.replace("recipe: sft\n", f"recipe: {recipe}\n") + OWN[recipe]


def _refusal(text: str, *overrides: str) -> str:
    with pytest.raises(SpecificationError) as refused:
        read_settings(text, overrides, file="science.yaml")
    return str(refused.value)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_read_and_says_what_belongs_to_it(recipe: str) -> None:
    settings = read_settings(_text(recipe))
    plain = as_dict(settings)
    assert plain["recipe"] == recipe
    assert ("kl_weight" in plain) == (recipe == "sft-kl")
    assert ("batch" in plain) == recipe.startswith("sft") - (recipe == "sft-rl")
    assert settings.learning_rate == 1e-3


def test_a_file_is_read_with_its_lines(tmp_path: Path) -> None:
    file = tmp_path / "sft.yaml"
    file.write_text(PLAIN + "batch: 0\n")
    with pytest.raises(SpecificationError, match=rf"{file}:6: batch: .* 0"):
        read_settings(file)


def test_an_override_takes_the_place_of_what_the_file_says() -> None:
    settings = read_settings(PLAIN, ["steps=7", "schedule=cosine", "output=/else where"])
    assert (settings.steps, settings.schedule, settings.output) == (7, "cosine", "/else where")


def test_every_setting_can_be_overridden() -> None:
    everything = {
        "recipe": "sft-kl", "base": "b", "output": "o", "steps": "3", "learning_rate": "0.5",
        "seed": "4", "batch": "8", "micro_batch": "2", "warmup": "1", "schedule": "linear",
        "weight_decay": "0.1", "max_grad_norm": "2", "max_length": "9", "dtype": "bfloat16",
        "device": "cpu", "gradient_checkpointing": "true", "save_every": "4", "log_every": "2",
        "kl_weight": "0.3", "kl_direction": "reverse",
        "adapter": "{rank: 2, alpha: 4, modules: [q_proj]}",
    }  # fmt: skip
    settings = read_settings(PLAIN, [f"{key}={value}" for key, value in everything.items()])
    assert settings == TrainingSettings(
        "sft-kl", "b", "o", 3, 0.5, 4, 8, 2, 1, "linear", 0.1, 2.0, 9, "bfloat16", "cpu", True,
        AdapterSettings(2, 4, ("q_proj",)), 4, 2, kl_weight=0.3, kl_direction="reverse",
    )  # fmt: skip


def test_one_setting_of_the_adapter_is_overridden_and_the_adapter_taken_away() -> None:
    text = PLAIN + "adapter: {rank: 8, alpha: 16, modules: [q_proj]}\n"
    assert read_settings(text, ["adapter.rank=2"]).adapter == AdapterSettings(2, 16, ("q_proj",))
    assert read_settings(text, ["adapter=null"]).adapter is None
    both = ["adapter={rank: 4, alpha: 4, modules: [o_proj]}", "adapter.rank=2"]
    assert read_settings(PLAIN, both).adapter == AdapterSettings(2, 4, ("o_proj",))


def test_an_override_makes_another_recipe_of_the_file() -> None:
    settings = read_settings(_text("sft-kl"), ["recipe=sft", "kl_weight=null"])
    assert (settings.recipe, settings.kl_weight) == ("sft", None)


def test_a_circuit_is_read_from_its_file_beside_the_settings(tmp_path: Path) -> None:
    (tmp_path / "c.circuit.yaml").write_text(
        "forgetguard: 1\ncapability: c\nreadout: logit_diff\ncircuit: [L1H2, L0H0]\n"
        "pairs:\n"
        "  - {clean: a b, counterfactual: c d, answer: ' x', distractor: ' y'}\n"
        "  - {clean: e b, counterfactual: c d, answer: ' x', distractor: ' y'}\n"
        "limits: {dcv.circuit: {max: 0.1}}\n"
    )
    file = tmp_path / "s.yaml"
    file.write_text(_text("sft-circuit").replace("[L2H1, L0H4]", "c.circuit.yaml"))
    assert read_settings(file).heads == (Head(1, 2), Head(0, 0))


def test_all_that_is_wrong_is_said_at_once_each_with_its_line() -> None:
    said = _refusal("recipe: sft\nbase: 3\nsteps: many\nlearning_rate: 1e-3\nadaptor: null\n")
    assert said.splitlines() == [
        "science.yaml:1: 'output' is missing: add it",
        "science.yaml:2: base must be text, got 3 (put it in quotes: '3')",
        "science.yaml:3: steps must be a whole number, got 'many' (write e.g. steps: 8)",
        "science.yaml:5: unknown key 'adaptor': did you mean 'adapter'?",
    ]


def test_what_is_wrong_with_file_and_overrides_is_said_at_once() -> None:
    said = _refusal(PLAIN + "adaptor: null\n", "steps", "sede=1", "batch=x", "warmup=1", "warmup=2")
    assert [line.partition(": ")[0] for line in said.splitlines()] == [
        "science.yaml:6",
        "override 'steps'",
        "override 'sede=1'",
        "override 'batch=x'",
        "override 'warmup=2'",
    ]


@pytest.mark.parametrize(
    ("recipe", "override", "said"),
    [
        ("sft", "recipe=stf", "recipe 'stf' 'sft'"),
        ("sft", "steps=0", "steps 1 0"),
        ("sft", "steps=1.5", "steps must be a whole number"),
        ("sft", "steps= ", "steps must be a whole number, got nothing"),
        ("sft", "steps=# 1", "steps must be a whole number, got nothing"),
        ("sft", "learning_rate=0", "learning_rate 0"),
        ("sft", "learning_rate=.inf", "learning_rate"),
        ("sft", "warmup=21", "warmup 20"),
        ("sft", "save_every=15", "save_every log_every 10"),
        ("sft", "schedule=cos", "schedule 'cos'"),
        ("sft", "dtype=float16", "dtype 'float16'"),
        ("sft", "device=tpu", "device 'tpu'"),
        ("sft", "gradient_checkpointing=2", "gradient_checkpointing"),
        ("sft", "max_grad_norm=0", "max_grad_norm 0"),
        ("sft", "kl_weight=1", "'kl_weight' sft-kl"),
        ("sft", "group=8", "'group' sft-rl"),
        ("sft", "adapter.rank=8", "adapter"),
        ("sft", "adapter={rank: 0, alpha: 1, modules: [q]}", "adapter.rank 1"),
        ("sft", "adapter={rank: 1, alpha: 1, modules: []}", "adapter.modules"),
        ("sft-kl", "kl_weight=-1", "kl_weight 0"),
        ("sft-kl", "kl_weight=null", "kl_weight sft-kl"),
        ("sft-kl", "kl_direction=up", "kl_direction 'up'"),
        ("sft-replay", "replay_share=1", "replay_share 1"),
        ("sft-circuit", "circuit=[]", "circuit"),
        ("sft-circuit", "circuit=[L2MLP]", "'L2MLP'"),
        ("sft-circuit", "circuit=[L2H1, L2H1]", "circuit L2H1"),
        ("sft-circuit", "circuit=no.circuit.yaml", "no such circuit file"),
        ("sft-flow", "flow_tau=0", "flow_tau 0"),
        ("rl", "group=1", "group 2"),
        ("rl", "temperature=0", "temperature 0"),
        ("rl", "batch=8", "'batch'"),
        ("sft-rl", "start=null", "start sft-rl"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_where_it_was_written(
    recipe: str, override: str, said: str
) -> None:
    refusal = _refusal(_text(recipe), override)
    told = refusal.removeprefix(f"override {override!r}: ")
    assert all(word in told for word in said.split())
    # A value is refused where it was given; one that was taken away, where it is missed.
    assert refusal.startswith((f"override {override!r}: ", "science.yaml:1: "))


@pytest.mark.parametrize(
    ("override", "said"),
    [("steps", "key=value"), ("stepz=1", "'steps'"), ("=1", "unknown key ''")],
)
def test_an_override_that_is_none_is_refused(override: str, said: str) -> None:
    assert said in _refusal(PLAIN, override)


def test_an_override_given_twice_is_refused() -> None:
    assert "given twice" in _refusal(PLAIN, "steps=1", "steps=2")


@pytest.mark.parametrize("text", ["", "[1]", "recipe: sft\n- x\n", "a: b: c"])
def test_text_that_is_no_mapping_is_refused(text: str) -> None:
    assert "science.yaml:" in _refusal(text)


def test_changing_settings_in_python_is_checked_too() -> None:
    settings = read_settings(PLAIN)
    assert replace(settings, seed=3).seed == 3
    with pytest.raises(SpecificationError, match="sft: steps: "):
        replace(settings, steps=0)


def test_rows_an_update_are_completions_where_they_are_sampled() -> None:
    assert (read_settings(PLAIN).rows, read_settings(_text("rl")).rows) == (32, 64)


def test_nothing_heavy_is_imported_before_there_is_something_to_train() -> None:
    code = (
        "import sys; from forgetguard.recipes.training import rl, run_card, running, saved_states, "
        "settings, sft; "
        "sys.exit(bool({'trl', 'datasets', 'accelerate'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
