"""The command line before anything is computed: help, tasks, and every kind of misuse."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

import examples.studies.comparison.__main__ as comparison
import examples.studies.sensitivity.__main__ as sensitivity
from forgetguard.capabilities.tasks import find_task, task_names
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.cli import entry, main, tasks
from forgetguard.cli.checkpoints import gate_options
from forgetguard.cli.command import SUMMARIES, whole_imports
from forgetguard.cli.discover import ABLATIONS, FAITHFUL
from forgetguard.cli.progress import Bar, progress_bar
from forgetguard.discovery.circuit import FAITHFUL as THEIR_FAITHFUL
from forgetguard.errors import CapabilityError
from forgetguard.measures.ablation import ABLATIONS as THEIR_ABLATIONS

ROOT = Path(__file__).parents[2]
PROMPTS = ROOT / "circuits" / "prompts" / "tiny-ioi.jsonl"
DISCOVER = ("discover", "base=tiny:base", "--task", "ioi")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty folder, with a cache of its own."""
    monkeypatch.setenv("FORGETGUARD_CACHE", str(tmp_path / "cache"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def status(*arguments: str) -> int:
    """The exit status, argparse's own included."""
    try:
        return main(arguments)
    except SystemExit as end:
        return int(end.code or 0)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--help",), 0),
        (("tasks",), 0),
        (("discover", "--help"), 0),
        (("check", "--help"), 0),
        (("report", "--help"), 0),
        (("verify", "--help"), 0),
        (("discover", "base=tiny:base", "--taks", "ioi"), 2),
        ((*DISCOVER, "--method", "magic"), 2),
        (("discover", "base=./not-there", "--task", "ioi"), 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_help_tasks_and_typos_are_told_without_torch(
    arguments: tuple[str, ...], expected: int
) -> None:
    code = (
        "import sys\nfrom forgetguard.cli import main\n"
        f"try:\n    status = main({list(arguments)!r})\n"
        "except SystemExit as end:\n    status = end.code\n"
        "heavy = [name for name in ('torch', 'transformers', 'scipy') if name in sys.modules]\n"
        "sys.exit(99 if heavy else status)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert done.returncode == expected, done.stderr.decode()


def test_the_list_of_commands_imports_none_of_them() -> None:
    code = (
        "import sys\nfrom forgetguard.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([one for one in ('torch', 'numpy', 'pydantic', 'yaml') if one in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.endswith("\n[]\n")
    assert done.stdout.count("tuned checkpoints") == 1


def test_every_command_of_the_list_is_there_with_options_and_its_own_help() -> None:
    shown = {name: own for one in entry.parser()._actions if isinstance(one.choices, dict)
             for name, own in one.choices.items()}  # fmt: skip
    assert shown.keys() == SUMMARIES.keys()
    for name, own in shown.items():
        assert (own.get_default("chosen").name, own.get_default("chosen").summary) == (
            name,
            SUMMARIES[name],
        )
        assert "exit status" in own.format_help()
    for name in ("check", "init", "inspect", "doctor"):
        assert f"examples:\n  forgetguard {name}" in shown[name].format_help()
        assert "--json" in shown[name].format_help()


def test_the_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("--version") == 0
    assert capsys.readouterr().out == f"forgetguard {metadata.version('forgetguard')}\n"


def test_a_mistyped_command_is_told_which_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("chek", "tiny:base", "tiny:sft") == 2
    assert "'chek': did you mean 'check'?" in capsys.readouterr().err


def test_python_dash_m_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "forgetguard", "tasks"], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("induction ")


def test_the_defaults_that_need_no_torch_are_those_of_discovery() -> None:
    assert FAITHFUL == THEIR_FAITHFUL
    assert ABLATIONS == THEIR_ABLATIONS


MISUSE = {
    "no base": (("discover", "--task", "ioi"), "base=CHECKPOINT"),
    "base given twice": ((*DISCOVER, "base=tiny:sft"), "base was given twice"),
    "empty base": (("discover", "base=", "--task", "ioi"), "base="),
    "another role": ((*DISCOVER, "tuned=tiny:sft"), "'tuned'"),
    "no KEY=VALUE": ((*DISCOVER, "tiny:base"), "'tiny:base' KEY=VALUE"),
    "unknown option": ((*DISCOVER, "--fast"), "--fast"),
    "missing checkpoint": (
        ("discover", "base=./not-there", "--task", "ioi"),
        "base=./not-there",
    ),
    "unknown alias": (("discover", "base=tiny:bass", "--task", "ioi"), "no such alias"),
    "unknown task": (
        ("discover", "base=tiny:base", "--task", "io"),
        "'io' 'ioi'",
    ),
    "neither task nor prompts": (("discover", "base=tiny:base"), "--task NAME --prompts"),
    "both task and prompts": ((*DISCOVER, "--prompts", str(PROMPTS)), "not both"),
    "missing prompts": (
        ("discover", "base=tiny:base", "--prompts", "gone.jsonl"),
        "gone.jsonl",
    ),
    "too few pairs": ((*DISCOVER, "--pairs", "15"), "--pairs 15 16"),
    "too few pairs of a file": (
        ("discover", "base=tiny:base", "--prompts", str(PROMPTS), "--pairs", "8"),
        "--pairs 8",
    ),
    "no pairs": ((*DISCOVER, "--pairs", "0"), "--pairs 0"),
    "too few pairs to gate on": ((*DISCOVER, "--gate-pairs", "7"), "--gate-pairs 7"),
    "pairs are no number": ((*DISCOVER, "--pairs", "many"), "'many'"),
    "gate pairs of a file": (
        ("discover", "base=tiny:base", "--prompts", str(PROMPTS), "--gate-pairs", "9"),
        "--gate-pairs --task",
    ),
    "bad seed": ((*DISCOVER, "--seed", "-1"), "--seed '-1' 0"),
    "unknown readout": ((*DISCOVER, "--readout", "logits"), "--readout 'logits'"),
    "unknown method": ((*DISCOVER, "--method", "magic"), "'magic'"),
    "unknown setting": (
        (*DISCOVER, "--method", "activation", "--set", "steps=3"),
        "'steps'",
    ),
    "a setting that is no number": (
        (*DISCOVER, "--method", "eap-ig", "--set", "steps=many"),
        "5 'many'",
    ),
    "a setting that is no switch": (
        (*DISCOVER, "--method", "atp", "--set", "qk_fix=1"),
        "qk_fix 1",
    ),
    "a setting of too few numbers": (
        (*DISCOVER, "--method", "dbm", "--set", "temperature=[1.0]"),
        "2 [1.0 0.05] [1.0]",
    ),
    "a setting for Python only": (
        (*DISCOVER, "--method", "dcm", "--set", "desiderata=[keep]"),
        "desiderata must be given from Python",
    ),
    "a setting without a method": ((*DISCOVER, "--set", "steps=3"), "belong to a method"),
    "a setting without a value": ((*DISCOVER, "--set", "steps"), "'steps' KEY=VALUE"),
    "a setting given twice": ((*DISCOVER, "--set", "a=1", "--set", "a=2"), "a is given twice"),
    "a setting that is no YAML": ((*DISCOVER, "--set", "a=[1"), "YAML"),
    "too faithful": ((*DISCOVER, "--faithful", "1.2"), "0 1 '1.2'"),
    "not faithful": ((*DISCOVER, "--faithful", "0"), "above 0 and at most 1"),
    "faithful is no number": ((*DISCOVER, "--faithful", "very"), "'very'"),
    "faithful is nan": ((*DISCOVER, "--faithful", "nan"), "'nan'"),
    "unknown ablation": ((*DISCOVER, "--ablation", "noise"), "--ablation 'noise'"),
    "unknown dtype": ((*DISCOVER, "--dtype", "float8"), "--dtype 'float8' float32"),
    "empty dtype": ((*DISCOVER, "--dtype", ""), "--dtype"),
    "unknown device": ((*DISCOVER, "--device", "tpu"), "'tpu'"),
    "no such folder": ((*DISCOVER, "-o", "gone/a.circuit.yaml"), "there is no folder"),
    "not a circuit file": ((*DISCOVER, "-o", "a.yaml"), ".circuit.yaml"),
    "a file without a name": ((*DISCOVER, "-o", ".circuit.yaml"), "after a name"),
    "a name no test can have": ((*DISCOVER, "-o", "a b.circuit.yaml"), "'a b'"),
    "force without a file": ((*DISCOVER, "--force"), "--force -o"),
    "tasks takes nothing": (("tasks", "ioi"), "takes no arguments, got ioi"),
}


@pytest.mark.parametrize(("arguments", "message"), MISUSE.values(), ids=MISUSE)
def test_misuse_is_told_before_anything_is_computed(
    arguments: tuple[str, ...],
    message: str,
    nothing_computed: None,
    capsys: pytest.CaptureFixture[str],
    folder: Path,
) -> None:
    assert status(*arguments) == 2
    out, err = capsys.readouterr()
    assert all(word in err for word in message.split())
    assert "Traceback" not in err
    assert out == ""
    assert list(folder.iterdir()) == []


def test_a_file_that_is_there_is_not_replaced(
    nothing_computed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    there = Path("ioi.circuit.yaml")
    there.write_text("reviewed by hand")
    assert status(*DISCOVER, "-o", str(there)) == 2
    assert "is there already; replace it with --force" in capsys.readouterr().err
    assert there.read_text() == "reviewed by hand"


def test_a_prompt_file_too_short_for_two_halves_is_refused(
    nothing_computed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    short = Path("short.jsonl")
    short.write_text("\n".join(PROMPTS.read_text().splitlines()[:12]))
    assert status("discover", "base=tiny:base", "--prompts", "short.jsonl") == 2
    assert "short.jsonl: 12 pairs; give between 16 and" in capsys.readouterr().err


def test_checkpoints_may_stand_anywhere_among_the_options(
    capsys: pytest.CaptureFixture[str], nothing_computed: None
) -> None:
    for arguments in (
        ("base=./not-there", "--task", "ioi"),
        ("--task", "ioi", "base=./not-there"),
        ("--task", "ioi", "base=./not-there", "--mlps"),
        ("--mlps", "base=./not-there", "--task", "ioi"),
    ):
        assert status("discover", *arguments) == 2
        assert "base=./not-there: no such directory" in capsys.readouterr().err


def test_help_says_what_the_exit_statuses_mean(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (("--help",), ("discover", "--help")):
        assert status(*arguments) == 0
        out = capsys.readouterr().out
        assert all(f"\n  {code}" in out for code in (0, 1, 2, 130))


def test_every_task_is_listed_on_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("tasks") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(task_names())
    said = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}
    assert said["ioi"].startswith("indirect object identification")
    assert all(len(text) > 10 for text in said.values())


def test_a_task_of_another_distribution_is_listed_and_a_broken_one_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def mine(rng: object, fits: object) -> None:
        """Count sheep.

        At length."""

    def find(name: str) -> object:
        if name == "broken":
            raise CapabilityError("task 'broken' of theirs cannot be loaded")
        return mine if name == "mine" else find_task(name)

    monkeypatch.setattr(tasks, "task_names", lambda: ("ioi", "mine", "broken"))
    monkeypatch.setattr(tasks, "find_task", find)
    assert status("tasks") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == ["mine    Count sheep.", "broken  task 'broken' of theirs cannot be loaded"]


def test_ctrl_c_waits_for_imports_to_be_whole() -> None:
    handler, reached = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with whole_imports():
            signal.raise_signal(signal.SIGINT)
            reached.append("the end")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached == ["the end"]
    assert signal.getsignal(signal.SIGINT) is handler
    with whole_imports():
        pass


def test_load_options_reach_the_gate_under_pytests_names() -> None:
    assert gate_options(LoadOptions()) == []
    assert gate_options(LoadOptions(dtype="bfloat16", device="cpu", allow_pickle=True)) == [
        "--forgetguard-dtype=bfloat16",
        "--forgetguard-device=cpu",
        "--forgetguard-allow-pickle",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_progress_is_shown_at_once_on_a_terminal_and_not_in_a_log(
    stream: type[io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = stream()
    monkeypatch.setattr(sys, "stderr", shown)
    with progress_bar() as bar:
        for done in range(1, 4):
            bar("patching", done, 3)
        bar("drawing", 1, 2)
        bar("drawing", 1, 2)
    assert ("patching" in shown.getvalue()) == shown.isatty()
    assert ("drawing" in shown.getvalue()) == shown.isatty()


def test_a_log_gets_whole_lines_ever_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    now, log = [0.0], io.StringIO()
    monkeypatch.setattr("forgetguard.cli.progress.time.monotonic", lambda: now[0])
    monkeypatch.setattr(sys, "stderr", log)
    with progress_bar() as bar:
        bar("sft", 1, 1000)
        for done in range(2, 1001):
            now[0] += 1.0
            bar("sft", done, 1000)
    lines = log.getvalue().split("\n")
    assert "\r" not in log.getvalue()
    assert lines[0] == "sft: 6 of 1000 in 5 s"
    assert [int(line.split()[1]) - 1 for line in lines[:-1]] == [5 * 2**n for n in range(8)]
    assert lines[-1] == ""


def test_a_bar_that_starts_again_counts_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[SimpleNamespace] = []

    def fake(**settings: object) -> SimpleNamespace:
        one = SimpleNamespace(n=0, close=lambda: None, **settings)
        one.update = lambda step: setattr(one, "n", one.n + step)
        made.append(one)
        return one

    monkeypatch.setattr("forgetguard.cli.progress.tqdm", fake)
    monkeypatch.setattr(sys, "stderr", Terminal())
    bar = Bar()
    for done in (1, 2, 1, 2):
        bar("curve", done, 2)
    assert [one.n for one in made] == [2, 2]


def test_prompts_of_a_file_must_suit_the_readout(
    nothing_computed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [json.loads(line) for line in PROMPTS.read_text().splitlines()]
    for pair in pairs:
        del pair["distractor"]
    Path("p.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    assert status("discover", "base=tiny:base", "--prompts", "p.jsonl") == 2
    assert "readout logit_diff needs a distractor" in capsys.readouterr().err


TRAIN = ("train", str(ROOT / "examples" / "training" / "sft.yaml"))


@pytest.mark.usefixtures("nothing_computed")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train",), "the settings file comes first, got ''"),
        (("train", "steps=3"), "'steps=3'"),
        (("train", "absent.yaml", "--data", "x"), "absent.yaml"),
        (TRAIN, "--data"),
        ((*TRAIN, "--data", "absent.jsonl"), "absent.jsonl"),
        ((*TRAIN, "--data", "tiny:substances", "stepps=3"), "'steps'"),
        ((*TRAIN, "--data", "tiny:substances", "--data", "x"), "cannot be mixed with files"),
        ((*TRAIN, "--data", "tiny:substances", "--count", "-1"), "--count"),
        ((*TRAIN, "--data", "tiny:substances", "base=nope"), "base=nope"),
        ((*TRAIN, "--data", "tiny:substances", "base=./nope"), "base=./nope"),
        ((*TRAIN, "--data", "tiny:substances", "base=tiny:lora"), "tiny:lora is an adapter"),
        ((*TRAIN, "--data", "tiny:substances", "--replay", str(PROMPTS)), "tiny-ioi.jsonl:1"),
    ],
)
def test_training_that_is_asked_for_wrongly_is_misuse(
    capsys: pytest.CaptureFixture[str], folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert status(*arguments) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in message.split())
    assert not list(folder.iterdir())


@pytest.mark.usefixtures("nothing_computed")
def test_a_gpu_that_is_not_there_is_told_before_anything_is_written(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    arguments = ("--data", "tiny:substances", "--count", "8", "device=cuda", "output=run")
    assert status(*TRAIN, *arguments) == 2
    assert "there is no CUDA device here" in capsys.readouterr().err
    assert not list(folder.iterdir())


@pytest.mark.usefixtures("nothing_computed")
@pytest.mark.parametrize(
    ("run", "command"), [(comparison.main, ["--task", "ioi"]), (main, ["calibrate"])]
)
def test_the_same_model_twice_is_refused_without_an_option_that_there_is_not(
    run: Callable[[list[str]], int], command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command, "base=tiny:base", "tuned=tiny:base"]) == 2
    told = capsys.readouterr().err
    assert "are the same checkpoint" in told
    assert "allow" not in told


@pytest.mark.usefixtures("nothing_computed")
@pytest.mark.parametrize("head", ["L9H9", "L4H0", "L0H6"])  # tiny:base: 4 layers of 6 heads
def test_heads_that_the_base_does_not_have_are_misuse(
    head: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sensitivity.main(["base=tiny:base", "--heads", f"L3H5,{head}"]) == 2
    assert f"--heads: base=tiny:base has no {head}" in capsys.readouterr().err
