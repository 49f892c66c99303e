"""`--forgetguard-baseline`: later checkpoints beside a recorded one; nothing is lost in silence."""

from __future__ import annotations

import json

import pytest
from exit_table import documented

BASELINE = "--forgetguard-baseline=accepted.json"
UPDATE = "--forgetguard-update"
NEW_ONLY = "--forgetguard-update-new-only"
JSON = "--forgetguard-json=out.json"
OVER = "  dcv.circuit.over_baseline: {max: 0.05}\n"
LACKS = "a circuit that the baseline lacks: new, or renamed"
OTHER = (
    "a circuit that is not what the baseline recorded (other base, heads, prompts, readout); the "
    "others get their verdicts"
)
UNREADABLE = "the baseline is missing, unreadable or edited by hand"


@pytest.fixture
def recorded(project):
    """Two circuits, and a baseline of both."""
    project.circuit("good-a.circuit.yaml", dcv_circuit=0.1, dcv_head=0.2)
    project.circuit("good-b.circuit.yaml")
    assert project.run("--forgetguard", "base=b", "tuned=before", BASELINE, UPDATE).ret == 0
    return project


def over_baseline(project, name: str = "good-a.circuit.yaml") -> None:
    file = project.path / name
    file.write_text(file.read_text() + OVER)


def entries(project) -> dict:
    return project.results("accepted.json")["circuits"]


# --- holding a run against it ----------------------------------------------------------------


def test_another_checkpoint_of_the_same_circuits_is_gated(recorded, workers: int) -> None:
    before = (recorded.path / "accepted.json").read_bytes()
    result = recorded.gate(BASELINE, JSON, workers=workers)
    assert result.ret == 0
    assert (recorded.path / "accepted.json").read_bytes() == before
    results = recorded.results()
    assert results["baseline"]["path"] == str(recorded.path / "accepted.json")
    for circuit in results["circuits"]:
        assert "baseline" in circuit["measured"]["arrays"]["damage"]


def test_a_limit_over_the_baseline_is_judged(recorded, workers: int) -> None:
    over_baseline(recorded)
    assert recorded.gate(BASELINE, workers=workers).ret == 0
    assert "good-a dcv.circuit.over_baseline" in recorded.judged()


def test_a_limit_over_a_baseline_that_was_not_given(recorded, workers: int) -> None:
    over_baseline(recorded)
    result = recorded.gate(workers=workers)
    assert result.ret == documented("a limit over a baseline that was not given")
    output = result.stdout.str() + result.stderr.str()
    assert "good-a.circuit.yaml:9: limits.dcv.circuit.over_baseline needs a baseline" in output
    assert "--forgetguard-update" in output


def test_a_renamed_circuit(recorded, workers: int) -> None:
    (recorded.path / "good-b.circuit.yaml").rename(recorded.path / "good-c.circuit.yaml")
    result = recorded.gate(BASELINE, workers=workers)
    assert result.ret == documented(LACKS)
    output = result.stdout.str() + result.stderr.str()
    assert "circuit 'good-c' is not in the baseline" in output
    assert "it holds good-a, good-b" in output


def test_a_new_circuit_may_be_left_out_on_purpose(recorded, workers: int) -> None:
    recorded.circuit("good-new.circuit.yaml")
    assert recorded.gate(BASELINE, workers=workers).ret == documented(LACKS)
    assert recorded.gate(BASELINE, "-k", "not new", workers=workers).ret == 0


def test_a_recorded_circuit_that_is_gone(recorded, workers: int) -> None:
    (recorded.path / "good-b.circuit.yaml").unlink()
    result = recorded.gate(BASELINE, workers=workers)
    assert result.ret == documented(
        "a recorded circuit or limit is not in this run: renamed or removed"
    )
    result.stdout.fnmatch_lines(["forgetguard: the baseline *holds circuit good-b, which this*"])


def test_a_recorded_limit_that_is_gone(recorded) -> None:
    recorded.circuit("good-a.circuit.yaml", dcv_circuit=0.1)
    result = recorded.gate(BASELINE)
    assert result.ret == documented(
        "a recorded circuit or limit is not in this run: renamed or removed"
    )
    result.stdout.fnmatch_lines(["forgetguard: the baseline *holds good-a dcv.head, which this*"])


@pytest.mark.parametrize(
    "args",
    [
        ["-k", "good-a"],
        ["--deselect", "good-b.circuit.yaml::good-b"],
        ["good-a.circuit.yaml::good-a"],
    ],
    ids=["-k", "--deselect", "node id"],
)
def test_what_is_deselected_is_not_missed(recorded, args: list[str], workers: int) -> None:
    assert recorded.gate(BASELINE, *args, workers=workers).ret == 0


def test_a_path_that_leaves_a_recorded_circuit_out_is_no_deselection(recorded) -> None:
    assert recorded.gate(BASELINE, "good-a.circuit.yaml").ret == 1


def test_last_failed_asks_for_no_others(recorded) -> None:
    recorded.circuit("bad-c.circuit.yaml")
    assert recorded.gate(BASELINE, NEW_ONLY).ret == 1
    assert recorded.gate(BASELINE, "--lf", JSON).ret == 1
    assert recorded.results()["errors"] == []


def test_a_python_gate_is_recorded_and_missed_when_it_goes(project, workers: int) -> None:
    gate = (
        "def test_it(forgetguard):\n"
        "    forgetguard.assert_limit('circuits/{}.circuit.yaml', 'dcv.circuit')\n"
    )
    for name, file in (("good", "test_gate.py"), ("good-2", "test_plain.py")):
        project.circuit(f"circuits/{name}.circuit.yaml")
        project.python(file, gate.format(name))
    paths = ("test_gate.py", "test_plain.py")
    assert project.gate(*paths, BASELINE, UPDATE, workers=workers).ret == 0
    assert entries(project)["good"]["limits"] == {"dcv.circuit": "test_gate.py::test_it"}
    assert project.gate(*paths, BASELINE, "-k", "plain", workers=workers).ret == 0
    assert project.gate("test_plain.py", BASELINE, workers=workers).ret == 1


# --- identity --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[L2H2, L0H4]", "[L2H2]", "heads (L0H4 gone)"),
        ("logit_diff", "logprob", "readout (recorded logit_diff, now logprob)"),
        ("limits:", "site: z\nlimits:", "site (recorded contribution, now z)"),
        ("limits:", "confidence: 0.9\nlimits:", "confidence (recorded 0.95, now 0.9)"),
    ],
)
def test_another_circuit_under_the_name_is_an_error_that_says_what_differs(
    recorded, old: str, new: str, said: str, workers: int
) -> None:
    file = recorded.path / "good-a.circuit.yaml"
    file.write_text(file.read_text().replace(old, new))
    result = recorded.gate(BASELINE, JSON, workers=workers)
    assert result.ret == documented(OTHER)
    result.assert_outcomes(passed=1, failed=2)
    assert said in result.stdout.str()


def test_another_base_is_an_error(recorded) -> None:
    result = recorded.run("--forgetguard", "base=other", "tuned=t", BASELINE)
    assert result.ret == documented(OTHER)
    assert "the base's weights (recorded abc..., now other...)" in result.stdout.str()


def test_another_number_format_warns(recorded) -> None:
    result = recorded.gate(BASELINE, JSON, "--forgetguard-dtype=bfloat16")
    assert result.ret == 0
    notes = [note for one in recorded.results()["circuits"] for note in one["measured"]["notes"]]
    changed = {"changed": ["dtype float32, now bfloat16"]}
    assert notes == [{"code": "recorded_elsewhere", "facts": changed}] * 2


# --- the file --------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, "", "[]", '{"schema": "forgetguard.results"}'])
def test_a_baseline_that_is_none(project, content: str | None, workers: int) -> None:
    project.circuit("good.circuit.yaml")
    if content is not None:
        (project.path / "accepted.json").write_text(content)
    result = project.gate(BASELINE, workers=workers)
    assert result.ret == documented(UNREADABLE)
    assert project.judged() == []
    assert "Traceback" not in result.stderr.str()


def test_a_baseline_that_was_edited_by_hand(recorded) -> None:
    file = recorded.path / "accepted.json"
    document = json.loads(file.read_text())
    document["circuits"]["good-a"]["measured"]["arrays"]["damage"]["tuned"]["circuit"][0] += 0.5
    file.write_text(json.dumps(document))
    result = recorded.gate(BASELINE)
    assert result.ret == documented(UNREADABLE)
    result.stderr.fnmatch_lines(["*accepted.json does not match its checksum*"])


def test_the_ini_file_names_it_from_its_own_folder(recorded, monkeypatch) -> None:
    recorded.pytester.makeini("[pytest]\nforgetguard_baseline = accepted.json\n")
    (recorded.path / "sub").mkdir()
    monkeypatch.chdir(recorded.path / "sub")
    assert recorded.gate(str(recorded.path), JSON).ret == 0
    assert recorded.results("sub/out.json")["baseline"] is not None


def test_the_rerun_command_keeps_it(recorded) -> None:
    recorded.circuit("bad-c.circuit.yaml")
    recorded.gate(BASELINE, NEW_ONLY)
    result = recorded.gate(BASELINE)
    result.stdout.fnmatch_lines(["*run only this: pytest *--forgetguard-baseline=*accepted.json*"])
