"""The command `python -m examples.studies.tiny`: rebuild the tiny family, or parts of it."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import forgetguard

MEMBERS = ("base", "sft", "rl", "lora")
PROMPTS = 64
PROMPT_SEED = 64
EVALUATION_SEEDS = (1, 2)
EVALUATION_COUNT = 500


def main(arguments: Sequence[str] | None = None) -> int:
    """Build what is asked for, then print the scores of every member that is there."""
    asked = _options().parse_args(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # Heavy imports wait until the options are known to be right.
    from examples.studies.tiny import building, preset, tuned

    started = time.monotonic()

    def say(line: str) -> None:
        sys.stdout.write(f"{time.monotonic() - started:6.0f} s  {line}\n")
        sys.stdout.flush()

    building.one_thread()
    settings = preset.load()
    wanted = MEMBERS if asked.only is None else (asked.only,)
    if "base" in wanted:
        building.build_base(settings.base, asked.out, say)
    for name in wanted:
        if name in settings.runs:
            tuned.build_run(settings.runs[name], name, asked.out, say)
    if "lora" in wanted:
        building.build_adapter("lora", settings.lora, asked.out, say)
    if asked.prompts is not None:
        _write_prompts(asked.prompts)
    if asked.circuits is not None:
        from examples.studies.tiny.circuits import write_circuits

        write_circuits(asked.out / "base", asked.circuits, say)
    _table(asked.out)
    return 0


def _options() -> argparse.ArgumentParser:
    package = Path(forgetguard.__path__[0])
    parser = argparse.ArgumentParser(
        prog="python -m examples.studies.tiny", description=main.__doc__
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=package / "checkpoints" / "tiny",
        metavar="DIR",
        help="where the checkpoints are (default: the installed package's own)",
    )
    parser.add_argument(
        "--only",
        choices=(*MEMBERS, "scores"),
        help="build this one only, or nothing and just print the scores",
    )
    parser.add_argument(
        "--prompts",
        type=Path,
        metavar="DIR",
        help="also write the held-out prompt files tiny-<capability>.jsonl to DIR",
    )
    parser.add_argument(
        "--circuits",
        type=Path,
        metavar="DIR",
        help="also find the base's circuits and write tiny-<capability>.circuit.yaml to DIR, "
        "beside DIR/prompts",
    )
    return parser


def _write_prompts(folder: Path) -> None:
    from examples.studies.tiny.saving import save_pairs
    from examples.studies.tiny_prompts import TASKS_OF_TINY, held_out_pairs

    for task in TASKS_OF_TINY:
        save_pairs(
            islice(held_out_pairs(task, PROMPT_SEED), PROMPTS), folder / f"tiny-{task}.jsonl"
        )


def _table(out: Path) -> None:
    from examples.studies.tiny import building, evaluation, vocabulary

    tokenizer = vocabulary.tokenizer()
    lines = [f"{'':6}{'seed':>6}  accuracy, mean logit difference"]
    for name in MEMBERS:
        if not (out / name).is_dir():
            continue
        model = building.load(out, name)
        for seed in EVALUATION_SEEDS:
            scores = evaluation.measure(model, tokenizer, count=EVALUATION_COUNT, seed=seed)
            cells = [
                f"{task} {one.accuracy:.3f}"
                + ("" if one.logit_diff is None else f" ({one.logit_diff:.2f})")
                for task, one in scores.items()
            ]
            lines.append(f"{name:6}{seed:6}  " + "  ".join(cells))
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
