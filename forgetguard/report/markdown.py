"""A run as Markdown, for a step's summary, a comment or a model card; prompts and names in it are
untrusted text, and are shown as they are."""

from __future__ import annotations

import re

from forgetguard.errors import SpecificationError, some
from forgetguard.report import page, terminal, wording

MOST_BYTES = 900_000  # GitHub drops a summary of more than 1 MiB whole
START, END = "<!-- forgetguard: start -->", "<!-- forgetguard: end -->"
_SIGNS = {"pass": "✅", "fail": "❌", "error": "❌", "abstain": "❔"}
_REASONS = 10
_WARNING = "WARNING"
# What would be markup or mathematics (a backslash makes it text), HTML, a mention, or a link.
_MARKUP = re.compile(r"[\\`*_\[\]~|]")
_MORE = re.compile(r"[<>@$]|#(?=\d)|(?<=www)\.|:(?=//)", re.IGNORECASE)


def summary(run: page.Run, most: int = MOST_BYTES) -> str:
    """The run: its sentence, what is to be known before it is believed, every limit in a table, why
    some are not kept, what else is said of them, and how to have it again; at most `most` bytes in
    UTF-8."""
    options = run.document["options"]
    sentence = wording.run(run.outcomes, run.document["exit_status"], passed=not run.why_not)
    remarks = page.notes(run)
    warnings = [one for one in remarks if one[0].startswith(_WARNING)]
    reservations = [*warnings, *wording.reservations(run.document)]
    head = [
        f"### {_SIGNS.get(run.label, '')} {terminal.LABELS[run.label]}: {sentence}",
        "",
        f"forgetguard {escaped(run.document['versions']['forgetguard'])}: "
        f"{escaped(options['tuned'])} against {escaped(options['base'])}",
        *([""] if run.problems or reservations else []),
        *(f"- **{escaped(one)}**" for one in run.problems),
        *(f"- {escaped(what)}: {escaped(some(named))}" for what, named in reservations),
        "",
        "| verdict | circuit | limit | measured | allowed |",
        "| --- | --- | --- | --- | --- |",
    ]
    rows = [_row(gate) for gate in run.gates]
    unkept = [gate for gate in run.gates if gate.outcome in page.BROKEN]
    why = [
        f"- **{escaped(gate.circuit)} {escaped(gate.limit)}**: {escaped(gate.reason)}"
        for gate in unkept[:_REASONS]
    ]
    more = [f"- and {len(unkept) - _REASONS} more"] if len(unkept) > _REASONS else []
    more += [
        f"- {escaped(what)}: {escaped(some(named))}"
        for what, named in remarks
        if not what.startswith(_WARNING)
    ]
    again = ["", "```", page.visible(page.command(run)).replace("```", "'''"), "```", ""]
    tail = ["", *why, *more, *again]
    room = most - len("\n".join([*head, *tail]).encode()) - 100
    kept = 0
    while kept < len(rows) and (room := room - len(rows[kept].encode()) - 1) >= 0:
        kept += 1
    left = len(rows) - kept
    cut = [f"| | and {left} more limits | | | |"] if left else []
    return "\n".join([*head, *rows[:kept], *cut, *tail])


def _row(gate: page.Gate) -> str:
    verdict = gate.verdict
    measured = "" if verdict is None else terminal.measured(verdict)
    allowed = "" if verdict is None else wording.number(verdict.bound)
    shown = f"{_SIGNS.get(gate.outcome, '')} {terminal.LABELS[gate.outcome]}"
    cells = [shown, *map(escaped, (gate.circuit, gate.limit, measured, allowed))]
    return f"| {' | '.join(cells)} |"


def escaped(text: object) -> str:
    """Text that Markdown shows as it is, in one line: no markup, HTML, link or mention."""
    shown = str(page.visible(" ".join(str(text).split())))
    shown = _MORE.sub(lambda found: f"&#{ord(found[0])};", shown.replace("&", "&amp;"))
    return _MARKUP.sub(lambda found: f"\\{found[0]}", shown)


def with_section(card: str, section: str) -> str:
    """A model card with the section in place of the one that is there, or at its end.

    Raises:
        SpecificationError: the card holds one of the two marks without the other, or twice.
    """
    counts = card.count(START), card.count(END)
    whole = f"{START}\n{section.strip()}\n{END}"
    if counts == (0, 0):
        return f"{card.rstrip()}\n\n{whole}\n" if card.strip() else f"{whole}\n"
    before, _, rest = card.partition(START)
    _, found, after = rest.partition(END)
    if counts != (1, 1) or not found:
        raise SpecificationError(
            f"the model card must hold {START} and {END} once each, in this order, or neither: it "
            f"holds them {counts[0]} and {counts[1]} times; mend it by hand"
        )
    return f"{before}{whole}{after}"
