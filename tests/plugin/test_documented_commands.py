"""Every command of README.md and docs/ is run as it stands there, or listed with why not."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from gate_process import QUIET
from markdown_it import MarkdownIt
from results_documents import LIMITS, document, verdict
from warm_python import warm_python

from forgetguard.anatomy.members import Head
from forgetguard.report import json_file

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = "accelerate forgetguard make mkdir pip pytest python shtab torchrun uv uvx".split()

NOT_RUN = {
    r"make (gate|test|docs|dist)\b": "continuous integration runs them; this is one of their tests",
    r"(make real|.*\breal/|.*/real_runs.py)": "needs a pretrained model, and minutes",
    r"(uv|uvx|pip) ": "installs",
    r"python -m examples\.studies\.": "a study that wrote a page of docs: minutes to days",
    r"\.venv/bin/python -m examples\.studies\.tiny": "makes the tiny family: hours",
    r"forgetguard calibrate .* --out docs": "writes a page's numbers: minutes; its synopsis is run",
    r"(forgetguard train|accelerate launch|torchrun) ": "trains: test_train_command.py does, by "
    "the same files",
}
# What a synopsis leaves to the reader. Brackets go, what may be given is given.
GIVEN = {
    r"(Qwen\S+|BASE) (\./checkpoints/science-sft|TUNED\S*)( \[PATH\.\.\.\])?": "tiny:base tiny:sft",
    r"\[DIR\]": "mine",
    r"origin \.\.\.": "origin base=tiny:base tuned=tiny:sft circuits",
    r"FILE\.circuit\.yaml": "circuits/tiny-induction.circuit.yaml",
    r"\[reference=CHECKPOINT\]": "reference=tiny:rl",
    r"\bbase=(BASE|CHECKPOINT|Qwen/[\w.-]+|\.\.\.)": "base=tiny:base",
    r"\btuned=(TUNED|CHECKPOINT|\.\.\.)": "tuned=tiny:sft",
    r"tuned=\./checkpoints/science-sft$": "tuned=tiny:sft circuits",
    r"inspect CHECKPOINT": "inspect tiny:lora",
    r"\bNAME\b": "ioi",
    r"CIRCUIT FILES or folders|\bpaths\b": "circuits",
    r"(--forgetguard-origin|\$RELEASE_NUMBER)$": r"\1 circuits",
    r"--draws 20": "--draws 2",
    r"FILE\.json": "calibration.json",
    r"[][]": "",
}
VARIABLES = {"BASE": "tiny:base", "CHECKPOINT": "tiny:sft", "RELEASE_NUMBER": "3"}
VARIABLES |= {"ACCEPTED": "tiny:lora", "CANDIDATE": "tiny:sft"}
SHOWN = (".md", ".ipynb", ".yml", ".yaml", ".py", ".toml")  # files that tell how to install
BREAKS = r"(pytest|forgetguard check) .*(tiny:sft|\$CHECKPOINT|\$CANDIDATE| gate$)"
VARIES = r"\.\.\.|estimated time|under a second|declared in"  # lines of output


@dataclass(frozen=True)
class Documented:
    place: str
    text: str
    output: tuple[str, ...] = ()  # lines that the page shows of it

    @property
    def not_run(self) -> bool:
        return any(re.match(what, self.text) for what in NOT_RUN)

    @property
    def as_run(self) -> str:
        text = self.text
        for what, given in GIVEN.items():
            text = re.sub(what, given, text)
        return text


def documented(page: Path) -> list[Documented]:
    """Of fenced and indented blocks: lines after `$ ` where there are some, with what is printed
    below (in the next block, where that follows at once); else all that begin with a program."""
    found: list[Documented] = []
    end = -9  # of a block with `$ `
    for token in MarkdownIt().parse(page.read_text("utf-8")):
        if token.type not in ("fence", "code_block") or token.info.strip() not in ("", "sh"):
            continue
        first, last = token.map or (0, 0)
        lines = token.content.replace("\\\n", " ").splitlines()
        asked = [line[2:] for line in lines if line.startswith("$ ")]
        output = tuple(line for line in lines if not line.startswith("$ "))
        if first - end < 2:
            found[-1] = replace(found[-1], output=found[-1].output + output)
        end = last if asked else -9
        for line in asked or lines:
            text = re.sub(" +", " ", re.split(r"\s+# ", line)[0].rstrip())
            if line.lstrip() == line and Path(text.partition(" ")[0]).name in PROGRAMS:
                found.append(Documented(f"{page.name}:{first + 1}", text, output if asked else ()))
    return found


COMMANDS = {page.name: documented(page) for page in PAGES}
RUN = {
    page: list({one.as_run: one for one in commands if not one.not_run}.values())
    for page, commands in COMMANDS.items()
}


def test_each_reason_why_one_is_not_run_is_of_a_command_that_is_there() -> None:
    every = [one.text for commands in COMMANDS.values() for one in commands]
    assert len(every) > 50
    for what in NOT_RUN:
        assert any(re.match(what, one) for one in every), what


def test_nothing_tells_to_install_from_an_index_that_lacks_forgetguard() -> None:
    starter = ROOT / "forgetguard" / "cli" / "starter"
    files = [*PAGES, *(ROOT / "examples").rglob("*.*"), *starter.iterdir()]
    read = {file: file.read_text("utf-8") for file in files if file.suffix in SHOWN}
    assert len(read) > 40
    wrong = r"pip install (\S+ )*forgetguard\b"
    assert [file.name for file, text in read.items() if re.search(wrong, text)] == []


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the programs, each of which begins with other people's packages imported."""
    folder = tmp_path_factory.mktemp("bin")
    for name, way in (("python", ""), ("forgetguard", "-m forgetguard"), ("pytest", "-m pytest")):
        options = shlex.join(QUIET) if name == "pytest" else ""
        (folder / name).write_text(f'#!/bin/sh\nexec {warm_python()} {way} {options} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def done_before() -> dict[str, subprocess.CompletedProcess[str]]:
    """By command: what several pages show is run once."""
    return {}


def prepare(folder: Path) -> None:
    """A reader's folder: one circuit, and the results of earlier runs."""
    (folder / "circuits" / "prompts").mkdir(parents=True)
    for name in ("tiny-induction.circuit.yaml", "prompts/tiny-induction.jsonl"):
        (folder / "circuits" / name).write_bytes((ROOT / "circuits" / name).read_bytes())
    for number in (100, 200, 300):
        limits = [verdict("pass", "c", limit, (Head(0, 1),)) for limit in LIMITS]
        prints = {"base": {"weights": "b" * 64}, "tuned": {"weights": str(number)}}
        made = document(*limits, heads=(Head(0, 1),), tuned=f"step-{number}", fingerprints=prints)
        json_file.write(folder / f"step-{number}.json", made)
    scores = {"lm_eval.score": {"tuned": {"arc_easy acc": [1.0]}}}
    scored = {"units": [["arc_easy #0 (00000000): x", "", ""]], "arrays": scores}
    made["circuits"][0]["measured"] = scored
    json_file.write(folder / "forgetguard.json", made)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page, commands in RUN.items() if commands])
def test_the_commands_of_a_page_do_what_it_says(
    page: str,
    tmp_path: Path,
    programs: Path,
    done_before: dict[str, subprocess.CompletedProcess[str]],
) -> None:
    prepare(tmp_path)
    path = (str(programs), str(Path(sys.executable).parent), os.environ["PATH"])
    own = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    own |= VARIABLES | {"HOME": str(tmp_path), "PATH": os.pathsep.join(path)}
    own |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    own |= {"FORGETGUARD_CACHE": str(programs / "cache")}
    for one in RUN[page]:
        if one.as_run not in done_before:
            done_before[one.as_run] = subprocess.run(
                ["bash", "-e", "-c", one.as_run],
                cwd=tmp_path,
                env=own,
                check=False,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        done = done_before[one.as_run]
        told = f"{one.place}: {one.as_run}\n{done.stdout}"
        assert done.returncode == bool(re.match(BREAKS, one.as_run)), told
        for line in one.output:
            assert re.search(VARIES, line) or line in done.stdout.splitlines(), f"{line}\n{told}"
