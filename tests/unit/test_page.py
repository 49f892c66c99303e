"""The page: all that a results file says, in order, and no text that does more than be read."""

from __future__ import annotations

import copy
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from results_documents import HOSTILE, LIMITS, document, estimate, verdict

from forgetguard.anatomy.members import Head, Mlp
from forgetguard.cli import main
from forgetguard.gate.checksum import with_checksum
from forgetguard.gate.verdict import Estimate, SubjectEvidence, UnitEvidence, Verdict
from forgetguard.measures.samples import Note
from forgetguard.report import json_file, page, page_figures, terminal, wording

MISUSE = 2


def rendered(*documents: dict[str, Any]) -> str:
    return page.render([page.run_of(one) for one in documents])


class Seen(HTMLParser):
    """The tags, attributes and texts that a browser finds."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


AMOUNT = {"readout": 3.5, "accuracy": 0.9, "top1": 0.8}  # of an origin
HEADS = (Head(1, 2), Head(3, 0))
MIXED = [
    verdict("pass", "kept", "dcv.circuit", HEADS),
    verdict("abstain", "vague", "dcv.circuit", HEADS),
    verdict("fail", "lost", "dcv.circuit", HEADS),
]


def test_the_verdict_stands_first_and_failures_stand_first_among_limits() -> None:
    seen = Seen(rendered(document(*MIXED, heads=HEADS))).text
    parts = [
        "1 of 3 limits broken, 1 more not shown to be kept", "Checkpoints", "Limits", "Why",
        "What would have been seen", "What this does not show", "Have it again",
    ]  # fmt: skip
    places = [seen.index(part) for part in parts]
    assert places == sorted(places)
    rows = seen[seen.index("Limits") : seen.index("Why")]
    assert rows.index("FAIL lost") < rows.index("ABSTAIN vague") < rows.index("pass kept")


def test_the_words_are_those_of_the_terminal() -> None:
    seen = Seen(rendered(document(*MIXED, heads=HEADS))).text
    assert all(wording.reason(one) in seen for one in MIXED[1:])
    assert all(wording.note(note) in seen for note in MIXED[0].notes)


@pytest.mark.parametrize("outcome", ["pass", "fail", "abstain"])
def test_a_run_is_what_its_limits_are(outcome: str) -> None:
    run = page.run_of(document(verdict(outcome, "c", "dcv.circuit", HEADS)))
    assert run.label == outcome
    assert bool(page.circuits(run)) is (outcome != "pass")


def test_an_error_and_a_failed_attempt_are_told_beside_the_verdicts() -> None:
    content = document(verdict("pass", "c", "dcv.circuit", HEADS))
    result = content["results"][0]
    broken = result | {
        "outcome": "error",
        "message": "ERROR: not finite\nin layer 2",
        "verdicts": [],
    }
    run = page.run_of(content | {"results": [broken, result | {"outcome": "fail"}]})
    assert [gate.outcome for gate in run.gates] == ["fail", "error", "pass"]
    seen = Seen(page.render([run])).text
    assert "ERROR: not finite" in seen
    assert "in layer 2" in seen


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"exit_status": None, "complete": False}, "INCOMPLETE"),
        ({"not_run": ["x::c::l"], "complete": False}, "x::c::l"),
        ({"errors": ["no circuit is called y"]}, "no circuit is called y"),
        ({"deselected": ["x::c::l"]}, "deselected: x::c::l"),
        ({"allowed_to_abstain": ["x::c::l"]}, "ALLOWED TO ABSTAIN"),
        ({"not_had": ["x::lacking::l"]}, "or its words do not fit the tokenizer: lacking"),
    ],
)
def test_what_a_run_left_out_is_told_before_its_limits(more: dict[str, Any], said: str) -> None:
    seen = Seen(rendered(document(verdict("pass", "c", "dcv.circuit", HEADS), **more))).text
    assert said in seen[: seen.index("Checkpoints")]


def test_a_warning_stands_in_the_banner_and_other_notes_below() -> None:
    warned = Note("cannot_fail", {"before": 1.0, "chance": 0.5})
    notes = (warned, *MIXED[0].notes)
    seen = Seen(rendered(document(verdict("pass", "c", "readout.drop", HEADS, notes=notes)))).text
    assert f"{wording.note(warned)} (c)" in seen[: seen.index("Checkpoints")]
    assert wording.note(notes[1]) in seen[seen.index("What this does not show") :]


def test_of_notes_that_differ_by_a_number_the_most_is_told() -> None:
    told = [
        verdict("pass", name, "readout.drop", HEADS, notes=(
            Note("templates_unseen", {"templates": count, "missed": missed}),
        ))
        for name, count, missed in (("one", 16, 0.17), ("two", 8, 0.31), ("three", 9, 0.28))
    ]  # fmt: skip
    (text, circuits), *others = page.notes(page.run_of(document(*told)))
    assert text == wording.note(told[1].notes[0])
    assert (circuits, others) == (["one", "two", "three"], [])


def test_a_run_that_has_no_end_is_no_pass() -> None:
    run = page.run_of(document(exit_status=None, complete=False))
    assert run.label == "error"
    assert "ERROR the run has no end" in Seen(page.render([run])).text


# --- what comes from prompts and paths is text ---------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_is_only_text(text: str) -> None:
    unit = UnitEvidence(text, 3.0, text, text, text, 4.0, 1.5, 1.0, text, text)
    bad = verdict(
        "fail", text, "accuracy.drop", HEADS, units=(unit,), notes=(Note(text, {text: text}),)
    )
    content = document(bad, heads=HEADS, tuned=text, notes=[text], errors=[text], deselected=[text])
    content["results"].append(
        {"id": f"{text}::x", "outcome": "error", "message": text, "verdicts": [], "attempts": []}
    )
    html = rendered(content)
    plain, seen = Seen(rendered(document(MIXED[2], heads=HEADS))), Seen(html)
    assert set(seen.tags) <= {*plain.tags, "details"}
    assert not [name for name, _ in seen.attributes if name.startswith("on") or name == "src"]
    assert not re.findall(
        r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", html
    )
    html.encode("utf-8")
    if text.isprintable():
        assert text in "".join(seen.texts)
    else:
        assert text.encode("unicode_escape").decode() in "".join(seen.texts)


def test_nothing_is_loaded_from_elsewhere_and_nothing_is_run() -> None:
    html = rendered(document(*MIXED, heads=HEADS), document(*MIXED, heads=HEADS, tuned="u"))
    seen = Seen(html)
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & set(seen.tags)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|javascript:", html)
    assert not [name for name, _ in seen.attributes if name in ("src", "href", "style")]
    assert "default-src 'none'" in html


def test_the_command_survives_a_shell() -> None:
    content = document(tuned="a b'; rm -rf $HOME")
    content["options"] |= {"dtype": "bfloat16", "allow_same": True, "family": 3}
    content["selection"] = {"arguments": ["a b"], "keyword": "x or y"}
    assert shlex.split(page.command(page.run_of(content))) == [
        "pytest", "--forgetguard", "base=b", "tuned=a b'; rm -rf $HOME",
        "--forgetguard-dtype=bfloat16", "--forgetguard-family=3", "--forgetguard-allow-same",
        "-k", "x or y", "a b",
    ]  # fmt: skip


def test_a_check_is_had_again_by_a_check() -> None:
    content = document(tuned="a b")
    content["options"] |= {"bundled": "all", "prompt_seed": 7, "origin": True, "html": "p.html"}
    content["selection"] = {"arguments": [], "command": "check"}
    assert shlex.split(page.command(page.run_of(content))) == [
        "forgetguard", "check", "b", "a b", "--prompt-seed=7", "--circuits=all", "--origin",
    ]  # fmt: skip


# --- figures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "low", "high", "bound", "expected"),
    [
        # The axis runs from -0.5 to 2.5 limits: nothing lost at a sixth, the limit at a half.
        (0.1, 0.0, 0.2, 0.1, (1 / 2, 1 / 6, 5 / 6, False, False)),
        (0.0, -0.5, 0.9, 0.1, (1 / 6, 0.0, 1.0, True, True)),
        (9.0, 8.0, float("inf"), 0.1, (0.94, 0.94, 1.0, False, True)),
        (0.0, -2.0, 2.0, 0.0, (1 / 2, 1 / 6, 5 / 6, False, False)),
        (0.0, 0.0, 0.0, 0.0, (1 / 2, 1 / 2, 1 / 2, False, False)),
    ],
)
def test_an_interval_stands_where_its_numbers_say(
    value: float, low: float, high: float, bound: float, expected: tuple[Any, ...]
) -> None:
    bar = page_figures.bar(Estimate(value, low, high, 0.9, 64), bound)
    assert (bar.value, bar.low, bar.high) == pytest.approx(expected[:3], abs=1e-3)
    assert (bar.cut_low, bar.cut_high) == expected[3:]


def test_the_map_tells_measured_declared_and_other_heads_apart() -> None:
    evidence = [
        SubjectEvidence("L1H2", estimate(0.3)),
        SubjectEvidence("L3H0", None),
        SubjectEvidence("L2MLP", estimate(-0.2)),
    ]
    found = page_figures.head_map(evidence, ["L1H2", "L3H0", "L2MLP"], {"layers": 5, "heads": 4})
    assert found is not None
    assert (found.layers, found.rows, found.mlp) == (5, 5, True)
    shown = {(cell.layer, cell.row): (cell.kind, cell.text) for cell in found.cells}
    assert shown == {
        (1, 2): ("class-2", ".30"),
        (3, 0): ("unknown", "?"),
        (2, 4): ("better", "-.20"),
    }
    assert all(cell.declared for cell in found.cells)
    beside = page_figures.head_map([SubjectEvidence("L0H1", estimate(0.3))], ["L1H0"], {})
    assert beside is not None
    assert (beside.layers, beside.rows) == (2, 2)
    shown = {(cell.layer, cell.row): (cell.kind, cell.declared) for cell in beside.cells}
    assert shown == {(0, 1): ("class-2", False), (1, 0): ("unpatched", True)}


@pytest.mark.parametrize(("value", "place"), [(0.0, 0), (0.1, 1), (0.4, 2), (0.99, 3), (1.0, 4)])
def test_a_class_of_the_map_begins_at_its_edge(value: float, place: int) -> None:
    found = page_figures.head_map([SubjectEvidence("L0H0", estimate(value))], ["L0H0"], {})
    assert found is not None
    assert found.cells[0].kind == f"class-{place}"


def test_every_number_of_the_map_is_in_a_table() -> None:
    html = rendered(document(verdict("fail", "c", "dcv.head", HEADS), heads=HEADS))
    table = html[html.index("Table of the 2 heads") :]
    assert all(f'<th scope="row">{head}</th><td class="v">0.5 [' in table for head in HEADS)


def test_parts_have_their_unit_and_prompts_of_a_limit_on_prompts_its_loss() -> None:
    layers = tuple(SubjectEvidence(f"layer {n}", estimate(0.5)) for n in (3, 1))
    moved = verdict("fail", "c", "drift.layer", (), subjects=layers, units=())
    mass = verdict("fail", "d", "mode.mass", ())
    html = rendered(document(moved, mass))
    assert '<th scope="col">drift layer (share of the length)</th>' in html
    assert '<th scope="col" class="n">loss (probability)</th>' in html
    assert '<td class="n">3</td>' in html
    assert "readout of base" not in html
    assert "readout" not in "".join(terminal.failure_lines(mass))
    assert "readout of base" in rendered(document(verdict("fail", "c", "dcv.circuit", ())))


def test_the_table_of_an_origin_says_what_its_numbers_are() -> None:
    one = document(verdict("fail", "c", "dcv.circuit", ()))
    one["circuits"][0]["origin"] = {
        "base": AMOUNT, "tuned": AMOUNT, "lost": True, "parts": [], "refined": [], "tokens": [],
        "interaction": AMOUNT, "pairs": 64, "passes": 20,
    }  # fmt: skip
    assert wording.ORIGIN_COLUMNS in rendered(one)


def _palettes() -> Iterator[dict[str, str]]:
    css = (Path(page.__file__).parent / "page.css").read_text()
    blocks = re.findall(r":root \{([^}]*--paper[^}]*)\}", css)
    assert len(blocks) == 2
    for block in blocks:
        yield dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))


def _contrast(one: str, other: str) -> float:
    """WCAG 2.1, 1.4.3."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_text_is_legible_in_the_light_and_in_the_dark() -> None:
    assert _contrast("#ffffff", "#000000") == pytest.approx(21)
    for colours in _palettes():
        on_paper = [
            (text, back)
            for text in ("ink", "quiet", "pass", "fail", "abstain")
            for back in ("paper", "raised")
        ]
        on_map = [("on-light", back) for back in ("better", "c0", "c1", "c2")]
        on_map += [("on-dark", back) for back in ("c3", "c4")]
        for text, back in on_paper + on_map:
            assert _contrast(colours[text], colours[back]) >= 4.5, (text, back)
        assert _contrast(colours["ink"], colours["c4"]) != 1


# --- size ----------------------------------------------------------------------------------------


def _large(circuits: int, tuned: str = "t") -> dict[str, Any]:
    """Of a model of 36 layers of 16 heads; a third of the circuits fail, a third abstain."""
    heads = (*(Head(layer, layer % 16) for layer in range(0, 36, 3)), Head(35, 15))
    unit = UnitEvidence("a word " * 60, 3.0, "x", " y", " n", 4.0, 1.5, 1.0, " y", " n")
    outcomes = ("fail", "abstain", "pass")
    made = [
        verdict(outcomes[number % 3], f"circuit-{number}", limit, heads, units=(unit,) * 5)
        for number in range(circuits)
        for limit in LIMITS
    ]
    return document(*made, heads=heads, tuned=tuned)


def test_five_circuits_take_300_kilobytes_at_most() -> None:
    assert len(rendered(_large(5)).encode()) < 300_000


def test_thirty_circuits_and_five_checkpoints_take_a_megabyte_at_most() -> None:
    runs = [_large(30, str(number)) for number in range(5)]
    assert len(rendered(*runs).encode()) < 1_000_000


# --- several files -------------------------------------------------------------------------------


def test_a_trend_has_every_checkpoint_and_says_what_was_not_run() -> None:
    first = document(MIXED[0], tuned="one")
    last = document(MIXED[0], MIXED[2], tuned="two")
    seen = Seen(rendered(first, last)).text
    trend = seen[seen.index("Trend") : seen.index("What would")]
    assert trend.index("one") < trend.index("two")
    assert "lost dcv.circuit not run ✕ FAIL" in trend
    assert "Trend" not in Seen(rendered(last)).texts


def bounded(bound: float, limit: str = "dcv.circuit") -> Verdict:
    return replace(verdict("abstain", "kept", limit, HEADS), bound=bound)


def test_a_trend_has_every_limit_that_any_run_judged() -> None:
    runs = [
        page.run_of(document(bounded(0.1, limit), tuned=limit))
        for limit in ("dcv.head", "accuracy.drop", "dcv.circuit")
    ]
    found = page.trends(runs)
    assert [limit for _, limit, *_ in found] == ["dcv.circuit", "accuracy.drop", "dcv.head"]
    assert [[gate is not None for gate in gates] for _, _, gates, _ in found] == [
        [False, False, True], [False, True, False], [True, False, False],
    ]  # fmt: skip
    html = page.render(runs)
    assert html[html.index(">Trend<") :].count("not run") == 6


def test_a_limit_that_changed_is_a_line_of_steps_on_the_axis_of_the_largest() -> None:
    bounds = (0.1, 0.2, 0.2, None, 0.1)
    runs = [
        page.run_of(
            document(
                bounded(bound or 0.1, "dcv.circuit" if bound else "dcv.head"), tuned=str(number)
            )
        )
        for number, bound in enumerate(bounds)
    ]
    found = {limit: figure for _, limit, _, figure in page.trends(runs)}["dcv.circuit"]
    # 0.2 is 1, which stands at a half of the axis; 0.1 is half of it, at a third.
    assert found.steps == ((0, pytest.approx(1 / 3, abs=1e-3)), (0.5, 0.5), (3, found.steps[0][1]))
    shown = [None if bar is None else bar.value for bar in found.bars]
    value = pytest.approx((0.5 + 0.11 / 0.2) / 3, abs=1e-3)
    assert shown == [value, value, value, None, value]
    html = page.render(runs)
    assert '<path class="limit" d="M0 32.0H28.8V24.0H122.5V32.0H170"/>' in html
    assert html.count("<br>allowed 0.") == 4


def test_one_limit_is_one_line() -> None:
    html = rendered(document(bounded(0.1), tuned="1"), document(bounded(0.1), tuned="2"))
    assert '<path class="limit" d="M0 24.0H170"/>' in html
    assert "<br>allowed" not in html


def written(path: Path, content: dict[str, Any]) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def test_the_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = written(tmp_path / "out.json", document(*MIXED, heads=HEADS))
    target = tmp_path / "page.html"
    assert main(["report", results, "-o", str(target)]) == 0
    assert target.read_text().startswith("<!DOCTYPE html>")
    assert capsys.readouterr().out == f"{target}\n"
    assert sorted(tmp_path.iterdir()) == [tmp_path / "out.json", target]


def _changed(**more: Any) -> dict[str, Any]:
    return copy.deepcopy(document(MIXED[0])) | more


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (json.dumps(document(MIXED[0]))[:900], "cut short"),
        ('{"schema": "other"}', "is not the results file of forgetguard"),
        ("# a README", "is not the results file of forgetguard"),
        (json.dumps(_changed(schema_version=3)), "write it again with this version"),
        (json.dumps(_changed(seed=7)), "changed after it was written"),
        (
            json.dumps(with_checksum({"schema": json_file.SCHEMA, "schema_version": 4})),
            "run the ga",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_told_and_the_old_page_stays(
    content: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, target = tmp_path / "out.json", tmp_path / "page.html"
    results.write_text(content)
    target.write_text("old")
    assert main(["report", str(results), "-o", str(target)]) == MISUSE
    assert said in capsys.readouterr().err
    assert target.read_text() == "old"


def test_runs_that_do_not_compare_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = written(tmp_path / "one.json", document(MIXED[0]))
    again = written(tmp_path / "again.json", document(MIXED[0], started="2026-01-02T00:00:00"))
    prints = {"base": {"weights": "c" * 64}, "tuned": {"weights": "u" * 64}}
    other = written(tmp_path / "other.json", document(MIXED[0], tuned="u", fingerprints=prints))
    target = str(tmp_path / "page.html")
    assert main(["report", one, again, "-o", target]) == MISUSE
    assert "one checkpoint" in capsys.readouterr().err
    assert main(["report", one, other, "-o", target]) == MISUSE
    assert "another base" in capsys.readouterr().err
    assert not Path(target).exists()


@pytest.mark.parametrize("target", ["out.json", "gone/page.html", "."])
def test_a_page_that_cannot_be_written_is_refused(
    target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = written(tmp_path / "out.json", document(MIXED[0]))
    before = Path(results).read_text()
    assert main(["report", results, "-o", str(tmp_path / target)]) == MISUSE
    assert "name another path" in capsys.readouterr().err or "gone" in target
    assert Path(results).read_text() == before


@pytest.mark.parametrize(
    "arguments",
    [[], ["out.json"], ["-o", "page.html"], ["out.json", "-o", "a.html", "--markdown", ""]],
)
def test_what_is_missing_is_asked_for(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", *arguments]) == MISUSE
    assert "forgetguard report forgetguard.json -o" in capsys.readouterr().err


def test_mlp_layers_and_circuits_that_were_not_measured_have_a_page() -> None:
    content = document(verdict("fail", "c", "dcv.circuit", (Mlp(2),)), heads=(Mlp(2),))
    assert "Where: DCV" not in rendered(content)  # no head: no map
    content["circuits"] = []
    assert "c dcv.circuit" in Seen(rendered(content)).text


def test_behaviour_stands_beside_its_circuit_with_flips_each_way() -> None:
    scores = {"subject": "arc", "before": 0.5, "now": 0.25, "count": 40, "lost": 12, "won": 2}
    tasks = verdict("pass", "tasks", "lm_eval.drop", (), notes=(Note("scores", scores),))
    circuit = [verdict("pass", "c", limit, HEADS) for limit in ("dcv.circuit", "accuracy.drop")]
    seen = Seen(rendered(document(tasks, *circuit))).text
    assert "tasks arc 50.0 % 25.0 % 12 2 40" in seen
    assert "c accuracy.drop 90.0 % 80.0 % 7 1 64 DCV 0.02 [-0.03, 0.07]" in seen
