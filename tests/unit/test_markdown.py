"""A run as Markdown, as a section of a model card, and as findings of code hosts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from results_documents import HOSTILE, document, verdict

from forgetguard.anatomy.members import Head
from forgetguard.cli import main
from forgetguard.errors import SpecificationError
from forgetguard.gate.checksum import with_checksum
from forgetguard.gate.verdict import Note, Verdict
from forgetguard.report import findings, markdown, page

HEADS = (Head(1, 2), Head(3, 0))
MIXED = [
    verdict("pass", "kept", "dcv.circuit", HEADS),
    verdict("abstain", "vague", "dcv.circuit", HEADS),
    verdict("fail", "lost", "dcv.circuit", HEADS),
    verdict("fail", "lost", "readout.drop", HEADS),
]
MARKUP = ("[a](http://x.y)", "**b** _i_ ~~s~~ `c`", "a|b\n\n# c", "@someone www.x.y", "![i](x)")


def run(*verdicts: Verdict, **more: Any) -> page.Run:
    return page.run_of(document(*verdicts, **more))


def parsed(text: str) -> MarkdownIt:
    return MarkdownIt("gfm-like", {"linkify": False}).parse(text)


def test_every_limit_is_a_row_and_failures_are_first() -> None:
    told = markdown.summary(run(*MIXED, heads=HEADS))
    rows = [line for line in told.splitlines() if line.startswith("| ") and "---" not in line]
    assert [row.split(" | ")[1] for row in rows[1:]] == ["lost", "lost", "vague", "kept"]
    assert "2 of 4 limits broken" in told.splitlines()[0]
    assert told.count("- **lost ") == 2
    assert markdown.summary(run(MIXED[0], heads=HEADS)).startswith("### ✅ pass: 1 limit kept")


def test_what_is_said_beside_a_pass_is_said_here_and_warnings_first() -> None:
    swapped = Note(
        "far_below", {"subjects": [], "least": "", "value": -0.5, "low": -0.6, "high": -0.4}
    )
    unseen = Note("templates_unseen", {"templates": 8, "missed": 0.31})
    passed = replace(MIXED[0], notes=(unseen, swapped))
    told = markdown.summary(run(passed, heads=HEADS))
    warning, table, note = (told.index(text) for text in ("WARNING", "| verdict", "31 %"))
    assert warning < table < note


@pytest.mark.parametrize("text", HOSTILE + MARKUP)
def test_untrusted_text_is_text(text: str) -> None:
    told = markdown.summary(run(verdict("fail", text, "dcv.circuit", HEADS), tuned=text))
    kinds = {token.type for token in parsed(told)}
    kinds |= {child.type for token in parsed(told) for child in token.children or ()}
    assert not kinds & {"link_open", "image", "html_block", "html_inline", "em_open", "s_open"}
    shown = " ".join(
        child.content for token in parsed(told) for child in token.children or () if child.content
    )
    if text.isprintable() and len(text) < 100:
        assert " ".join(text.split()) in shown
    told.encode()  # what a lone surrogate would not survive


def test_a_long_run_stays_below_what_a_summary_may_hold() -> None:
    many = [verdict("fail", f"c{number}", "dcv.circuit", HEADS) for number in range(60)]
    told = markdown.summary(run(*many), most=4000)
    assert len(told.encode()) <= 4000
    shown = sum(line.startswith("| ❌") for line in told.splitlines())
    assert f"and {60 - shown} more limits" in told
    assert "and 50 more" in told


def test_a_card_keeps_all_but_the_section() -> None:
    card = "---\nlicense: mit\n---\n# Mine\n"
    first = markdown.with_section(card, "one")
    assert first.startswith(card)
    later = markdown.with_section(first.replace("# Mine", "# Ours") + "\nafter\n", "two")
    assert later.startswith(card.replace("Mine", "Ours"))
    assert later.endswith("\nafter\n")
    assert "two" in later
    assert "one" not in later
    assert markdown.with_section(later, "two") == later
    for broken in (first + markdown.START, first.replace(markdown.END, "")):
        with pytest.raises(SpecificationError, match="once each"):
            markdown.with_section(broken, "x")


def test_an_annotation_stands_on_the_line_of_the_gate_file(tmp_path: Path) -> None:
    found = findings.findings(run(*MIXED, heads=HEADS), Path("/nowhere"))
    assert [one.gate.circuit for one in found] == ["lost", "vague"]
    lines = findings.commands(found)
    assert lines[0].startswith(
        "::error file=a.circuit.yaml,line=7,title=forgetguard FAIL%3A lost dcv.circuit::"
    )
    assert lines[1].startswith("::warning file=a.circuit.yaml,line=7,")
    elsewhere = findings.findings(run(*MIXED, heads=HEADS), tmp_path)
    assert findings.commands(elsewhere)[0].startswith("::error title=")
    (outside, _) = json.loads(findings.code_quality(elsewhere))
    assert outside["location"]["path"] == "lost.circuit.yaml"
    rows = json.loads(findings.code_quality(found))
    assert [row["severity"] for row in rows] == ["critical", "minor"]
    assert rows[0]["location"] == {"path": "a.circuit.yaml", "lines": {"begin": 7}}
    assert len({row["fingerprint"] for row in rows}) == 2


def test_an_annotation_is_one_command_whatever_is_in_it() -> None:
    text = "a%b\n,c:d"
    (one,) = findings.commands(
        findings.findings(run(verdict("fail", text, "dcv.circuit", HEADS)), Path("/nowhere"))
    )
    assert "\n" not in one
    assert "a%25b%0A%2Cc%3Ad" in one
    many = [verdict("fail", f"c{number}", "dcv.circuit", HEADS) for number in range(15)]
    assert len(findings.commands(findings.findings(run(*many), Path("/nowhere")))) == 10


def test_the_command_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "out.json"
    content = document(*MIXED, heads=HEADS)
    results.write_text(json.dumps(with_checksum({**content, "checksum": None})), "utf-8")
    card = tmp_path / "README.md"
    card.write_text("# Mine\n", "utf-8")
    names = {"--markdown": "run.md", "--code-quality": "quality.json", "--model-card": "README.md"}
    given = [word for flag, name in names.items() for word in (flag, str(tmp_path / name))]
    assert main(["report", str(results), *given]) == 0
    told = (tmp_path / "run.md").read_text("utf-8")
    assert told == markdown.summary(page.run_of(content))
    assert card.read_text("utf-8").startswith(f"# Mine\n\n{markdown.START}\n{told.strip()}")
    assert len(json.loads((tmp_path / "quality.json").read_text())) == 2
    capsys.readouterr()
    assert main(["report", str(results), "--markdown", str(results)]) == 2
    assert "would be lost" in capsys.readouterr().err
    same = ["-o", str(tmp_path / "a"), "--markdown", str(tmp_path / "a")]
    assert main(["report", str(results), *same]) == 2
    assert not (tmp_path / "a").exists()
