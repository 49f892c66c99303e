"""The plugin's options, on the command line and in the ini file; do they ask for a gate?"""

from __future__ import annotations

from typing import Any

import pytest

from pytest_forgetguard.arguments import FLAG

FORM = f"pytest {FLAG} base=CHECKPOINT tuned=CHECKPOINT [reference=CHECKPOINT] [paths]"

_CHECKPOINT = "Hub id, directory, peft adapter directory, or tiny:base, :sft, :rl, :lora"
ROLES = {  # name: help
    "base": f"The checkpoint before. {_CHECKPOINT}.",
    "tuned": f"The checkpoint under test. {_CHECKPOINT}.",
    "reference": f"An optional third checkpoint to compare tuned with. {_CHECKPOINT}.",
}
VALUES = {  # name: (metavar, help)
    "device": ("DEVICE", "cpu, cuda, cuda:1, mps. Default: cuda where there is one, else cpu."),
    "device-map": ("MAP", "Spread one model over devices; 'auto' for sharded checkpoints."),
    "dtype": ("DTYPE", "float32, bfloat16 or float16. Default: float32."),
    "json": ("PATH", "Write all verdicts to this results file."),
    "html": ("PATH", "Write a page to read, one HTML file that needs nothing else."),
    "seed": ("N", "Seed of the prompt pairs' resampling. Default: 0."),
    "family": ("N", "Limits that share the run's false-alarm rate. Default: those collected."),
    "prompt-seed": ("N", "Draw this run's prompts anew, held-out words and templates among them."),
    "controls": ("N", "Patch N random sets of heads, and the other circuits, beside each circuit."),
    "bundled": ("SET", "Which bundled circuits, where no path names any: core (default) or all."),
    "baseline": ("PATH", "Hold this run against the measurements that are recorded there."),
}
SWITCHES = {
    "allow-same": "Run although base and tuned hold the same weights.",
    "trust-remote-code": "Let checkpoints run the code they carry.",
    "allow-pickle": "Load checkpoints that are not safetensors.",
    "merge-adapter": "Merge a LoRA adapter into its base instead of toggling it.",
    "origin": "Where a limit fails, measure which parts of the checkpoint carry the loss.",
    "allow-abstain": "Let limits that cannot be judged abstain; at least one limit must pass.",
}
# Not in the ini file: a gate that records every checkpoint as the accepted one gates nothing.
RECORDING = {
    "update": "Record this run's measurements as the baseline, all of them anew.",
    "update-new-only": "Record circuits that the baseline lacks, and leave the others.",
}


def add_options(parser: pytest.Parser) -> None:
    """Register every option with its ini setting (`--forgetguard-base`: `forgetguard_base`)."""
    group = parser.getgroup("forgetguard", "forgetguard: what did fine-tuning forget?")
    group.addoption(
        FLAG,
        action="append",
        nargs="?",
        const="",
        dest="forgetguard",
        metavar="KEY=VALUE",
        help="Gate a tuned checkpoint: base=CHECKPOINT tuned=CHECKPOINT, and where wanted "
        "reference=CHECKPOINT, directly after the flag.",
    )

    def add(name: str, text: str, ini: Any = "string", **argument: str) -> None:
        group.addoption(f"{FLAG}-{name}", dest=dest(name), default=None, help=text, **argument)
        if ini:
            parser.addini(dest(name), text, type=ini, default=None)

    for name, text in ROLES.items():
        add(name, text, action="append", metavar="CHECKPOINT")
    circuits = (
        "A circuit file, or a folder of them, to run beside those under the paths. Repeatable."
    )
    add("circuits", circuits, "paths", action="append", metavar="PATH")
    for name, (metavar, text) in VALUES.items():
        add(name, text, action="store", metavar=metavar)
    for name, text in SWITCHES.items():
        add(name, text, "bool", action="store_true")
    for name, text in RECORDING.items():
        add(name, text, None, action="store_true")


def dest(name: str) -> str:
    """The option's name in the config and in the ini file."""
    return f"forgetguard_{field_of(name)}"


def field_of(name: str) -> str:
    """The option's name among the settings."""
    return name.replace("-", "_")


def asks_for_gate(config: pytest.Config) -> bool:
    """Whether this run is a gate: by any forgetguard option on the command line (`addopts` and
    PYTEST_ADDOPTS count as command line), or by ini settings for both base and tuned."""
    names = (*ROLES, "circuits", *VALUES, *SWITCHES, *RECORDING)
    given = [config.option.forgetguard, *(config.getoption(dest(name)) for name in names)]
    if any(value is not None for value in given):
        return True
    return bool(config.getini(dest("base")) and config.getini(dest("tuned")))
