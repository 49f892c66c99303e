"""Every sentence about a verdict, made of its codes and numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from string import Formatter
from typing import Any

from forgetguard.gate.verdict import Code, Estimate, Verdict, mostly_own
from forgetguard.measures import registry
from forgetguard.measures.samples import CIRCUIT, Note

_LARGE = 1000.0
_MOST_WANTED = 10_000  # units that a gate could be given
Facts = Mapping[str, Any]


# --- numbers -------------------------------------------------------------------------------------


def number(value: float | str) -> str:
    """Three significant digits with the sign where it is negative; whole numbers from 1000 on."""
    value = float(value)
    if math.isfinite(value) and abs(value) >= _LARGE:
        return f"{value:.0f}"
    return f"{value + 0.0:.3g}"  # + 0.0 turns -0.0 into 0.0


def interval(estimate: Estimate | Facts) -> str:
    """`0.31 [0.24, 0.39]`, or `0.31` where it is exact."""
    if not isinstance(estimate, Estimate):
        value, low, high = (estimate[name] for name in ("value", "low", "high"))
    elif estimate.n == 0:
        return number(estimate.value)
    else:
        value, low, high = estimate.value, estimate.low, estimate.high
    return f"{number(value)} [{number(low)}, {number(high)}]"


def share(value: float) -> str:
    """`10 %`."""
    return f"{100 * value:.3g} %"


def names(members: Iterable[object]) -> str:
    """`L0H4, L2H1`."""
    return ", ".join(map(str, members))


class _Words(Formatter):
    """Templates with our own ways to write a value: `{floor:share}`, `{heads:names}`."""

    _ways: Mapping[str, Callable[[Any], str]] = {
        "number": number,
        "share": share,
        "interval": interval,
        "names": names,
        "count": lambda value: str(len(value)),
        "s": lambda count: "s" * (count > 1),
    }

    def format_field(self, value: Any, spec: str) -> Any:
        """As `str.format`, or in a way of ours."""
        way = self._ways.get(spec)
        return super().format_field(value, spec) if way is None else way(value)


_WORDS = _Words()


# --- what was measured ---------------------------------------------------------------------------


def quantity(limit: str) -> str:
    """What a limit bounds, in words: `DCV` for `dcv.circuit` and `dcv.head`, else its own name."""
    measure = registry.split(limit)[0]
    return "DCV" if measure.split(".")[0] == "dcv" else measure.replace(".", " ")


def _over(limit: str) -> str:
    over = registry.split(limit)[1]
    return f" over the {over}" if over else ""


def _units(verdict: Verdict, count: int | None = None) -> str:
    """`on 64 pairs`; nothing where the number is exact."""
    count = verdict.estimate.n if count is None and verdict.estimate else count
    return f" on {count} {units_of(verdict.limit)}" if count else ""


def units_of(limit: str) -> str:
    """`pairs`, or `prompts`, that a limit is sampled over; of none, those of most limits."""
    if not limit:
        return "pairs"
    try:
        sampled = registry.find(limit).sampled
    except Exception:  # a measure of a distribution that is not installed here
        return "units"
    return sampled.value.removeprefix("prompt ")


def in_unit(limit: str) -> str:
    """What the numbers of a limit are in, in brackets: ` (nats)`; nothing where it is not known."""
    try:
        return f" ({registry.find(limit).unit.name})"
    except Exception:  # as in `units_of`
        return ""


def _subject(verdict: Verdict) -> str:
    """What the estimate of a verdict is, with the model that tuned is compared with."""
    facts, over = verdict.facts, _over(verdict.limit)
    measure = registry.split(verdict.limit)[0]
    dcv = "|DCV|" if facts.get("against") else "DCV"
    if measure in _PROPORTIONS:
        what = _PROPORTIONS[measure]
        return f"{what} {facts['before']:.1%} to {facts['now']:.1%}{_sides(facts)}, a drop of"
    if verdict.subject:
        kind = facts.get("over", "itself")
        if kind == "itself":
            what = dcv if quantity(measure) == "DCV" else quantity(measure)
            return f"{what} of {verdict.subject}{over}"
        if kind == "between":
            return f"damage of {verdict.subject}{over}, relative to what it may be worth,"
        part = f"{share(facts['floor'])} of " * (facts["floor"] > 0)
        return f"damage of {verdict.subject}{over}, as a share of {part}the circuit's importance,"
    return {
        "margin.drop": f"lead of the answer lost{over}, in SDs of the logits,",
        "dcv.circuit": f"{dcv} of the circuit{over}",
        "dcv.all": f"{dcv} of all heads{over}",
        "readout.drop": f"relative drop of the readout{over}",
    }.get(measure, f"{quantity(measure)}{over}")


_PROPORTIONS = {"accuracy.drop": "accuracy", "top1.drop": "answers likeliest of all tokens"}


def _sides(facts: Facts) -> str:
    counts = [f"{facts[name]} {name}" for name in ("lost", "won") if facts.get(name)]
    return f" ({', '.join(counts)})" if counts else ""


# --- why -----------------------------------------------------------------------------------------


def reason(verdict: Verdict) -> str:
    """One sentence: why this outcome."""
    return _REASONS[verdict.code](verdict)


def _limit(verdict: Verdict) -> str:
    return f"the limit {verdict.bound:g}"


def _shown(verdict: Verdict) -> str:
    assert verdict.estimate is not None
    return f"{_subject(verdict)} {interval(verdict.estimate)}"


def _corrected(verdict: Verdict) -> str:
    """The lower bound on which a limit fails, where it is corrected for how many are held to
    theirs; else nothing."""
    facts = verdict.facts
    kind = "layers" if verdict.subject.startswith("layer ") else "parts"
    kind = "heads" if quantity(verdict.limit) == "DCV" else kind
    counted = [f"{facts['of']} {kind}"] if facts.get("of", 1) > 1 else []
    counted += [f"{verdict.family} limits"] * (verdict.family > 1)
    if not counted or (verdict.estimate is not None and verdict.estimate.n == 0):
        return ""
    return f"lower bound corrected for {' and '.join(counted)} {number(facts['corrected_low'])}"


def _within(verdict: Verdict) -> str:
    units = _units(verdict)
    if not verdict.subject:
        return f"{_shown(verdict)}{units} is within {_limit(verdict)}"
    what = "head" if quantity(verdict.limit) == "DCV" else "one"
    return f"every {what} is within {_limit(verdict)}{units}; nearest to it is {_shown(verdict)}"


def _beyond(verdict: Verdict) -> str:
    corrected, others = _corrected(verdict), verdict.facts.get("others", ())
    text = f"{_shown(verdict)}{_units(verdict)} is beyond {_limit(verdict)}"
    text += f" ({corrected})" if corrected else ""
    text += f"; so {'are' if len(others) > 1 else 'is'} {names(others)}" if others else ""
    return text + _damaged_first(verdict)


def _damaged_first(verdict: Verdict) -> str:
    """Which head to look at, where it is not itself beyond the limit, or not held to it: the one
    that is may only inherit what the other does."""
    first = verdict.subjects[0] if verdict.subject and verdict.subjects else None
    if first is None or first.subject in (verdict.subject, *verdict.facts.get("others", ())):
        return ""
    if first.own is None or first.value is None or not mostly_own(first.own, first.value):
        return ""
    own = number(first.own.value)
    return f"; look at {first.subject} first, which does damage of its own ({own})"


def _undecided(verdict: Verdict) -> str:
    corrected, others = _corrected(verdict), verdict.facts.get("others", ())
    also = f" (and {names(others)})" * bool(others)
    return (
        f"undecided at{_units(verdict)[3:]}: {_shown(verdict)}{f', {corrected},' * bool(corrected)}"
        f" holds {_limit(verdict)}{also}; {_wanted(verdict)}"
    )


def _guarded(verdict: Verdict) -> str:
    facts = verdict.facts
    return (
        f"{_shown(verdict)}{_units(verdict)} is within {_limit(verdict)}, but one more "
        f"{units_of(verdict.limit).removesuffix('s')} that "
        f"loses {number(facts['guard'])} times the importance would leave up to "
        f"{number(facts['guarded'])} possible (guard: {facts['guard']:g}); {_wanted(verdict)}"
    )


def _wanted(verdict: Verdict) -> str:
    count = verdict.facts.get("wanted")
    units = units_of(verdict.limit)
    if count is None or count > _MOST_WANTED:
        return f"it lies too near the limit for any number of {units} to be named"
    return f"about {count} {units} would decide if the value stays"


def _identical(verdict: Verdict) -> str:
    role = verdict.facts["role"]
    whose = {"baseline": "recorded checkpoint"}.get(role, role)
    return f"every readout equals the {whose}'s, bit for bit,{_units(verdict)}"


def _too_few(verdict: Verdict) -> str:
    facts, units = verdict.facts, units_of(verdict.limit)
    return (
        f"only {facts['count']} {units} were measured ({facts['dropped']} dropped): at least "
        f"{facts['least']} are needed for any interval: give more {units}"
    )


def _few_carry(verdict: Verdict) -> str:
    facts, units = verdict.facts, units_of(verdict.limit)
    of = f" of {verdict.subject}" if verdict.subject else ""
    assert verdict.estimate is not None
    return (
        f"{quantity(verdict.limit)}{of} reads {number(verdict.estimate.value)}, but of "
        f"{facts['count']} {units} one makes {share(facts['share'])} of the gradient: they come to "
        f"{number(facts['effective'])} of equal weight, and from {facts['least']} on it has an "
        f"interval: give more {units}, or such as the base is less certain of"
    )


def _base_wrong(verdict: Verdict) -> str:
    facts = verdict.facts
    return (
        f"THE BASE CANNOT DO {verdict.capability!r}: it puts the answer above the distractor on "
        f"{facts['value']:.0%} of {facts['count']} pairs, which cannot be told from chance, "
        "so nothing can be said about losing it: check the prompts, the chat template and the base"
    )


def _nothing_to_lose(verdict: Verdict) -> str:
    facts = verdict.facts
    on = f" on {facts['subject']}" if facts["subject"] else ""
    what = "questions" if on else units_of(verdict.limit)
    return (
        f"THE LIMIT HOLDS NOTHING: the base reads {facts['before']:.0%}{on}, and guessing "
        f"{facts['chance']:.0%}, so that {number(verdict.bound)} allows all that there is to lose: "
        f"check prompts and answers, or give {what} that the base can answer"
    )


def _no_circuit(verdict: Verdict) -> str:
    found = "; ".join(note(one) for one in verdict.notes)
    return f"circuit: auto found no circuit to judge: {found}"


def _no_scale(verdict: Verdict) -> str:
    facts, measure = verdict.facts, registry.split(verdict.limit)[0]
    units = units_of(verdict.limit)
    shown = f"{interval(facts)} on {facts['count']} {units} cannot be told from 0"
    if measure in ("dcv.circuit", "dcv.head"):
        return (
            f"the circuit's importance {shown}, so there is nothing to lose: check its heads, or "
            "give more pairs"
        )
    if measure == "dcv.all":
        return f"what all heads together are worth {shown}: check the prompts, or give more pairs"
    if measure == "readout.drop":
        return (
            f"the base's mean readout {shown}, so a relative drop means nothing: gate "
            "accuracy.drop or dcv.circuit instead"
        )
    of = f" of {facts['subject']}" if facts.get("subject") else ""
    return f"what {quantity(measure)}{of} is relative to, {shown}: give more {units}"


def _no_head(verdict: Verdict) -> str:
    facts = verdict.facts
    return (
        f"no head of {names(facts['subjects'])} has an importance that {facts['count']} pairs can "
        "tell from 0: give more pairs, or gate dcv.circuit"
    )


def _saturated(verdict: Verdict) -> str:
    facts = verdict.facts
    without = _REASONS[Code(facts["instead"])](verdict)
    return (
        f"THE READOUT IS SATURATED: the base gives the answer a mean probability of "
        f"{facts['probability']:.3g}{_units(verdict)}, so its logprob would hardly show a loss: "
        f"use readout: logit_diff, or harder prompts ({without})"
    )


def _same_function(verdict: Verdict) -> str:
    facts, found = verdict.facts, verdict.facts["matches"]
    text = (
        f"same function, parts renamed: on {units_of(verdict.limit)} and counterfactuals alike the "
        f"readouts of tuned are the base's to {number(facts['largest'])} (equal up to "
        f"{number(facts['tolerance'])})"
    )
    if found:
        heads = _pairs(found, "is tuned's")
        return f"{text}; heads were matched by what they write: {heads}"
    return f"{text}, so {_shown(verdict)}, read by name, is no loss"


def _pairs(heads: Mapping[str, str], joined: str) -> str:
    return ", ".join(f"{base} {joined} {other}" for base, other in heads.items())


def _renamed(verdict: Verdict) -> str:
    roles, plain = " and ".join(verdict.facts["roles"]), registry.split(verdict.limit)[0]
    return (
        f"{roles}: same function as the base, but its parts were renamed and could not be matched, "
        f"so {_shown(verdict)} is no difference of anything: gate {plain}"
    )


_REASONS: Mapping[Code, Callable[[Verdict], str]] = {
    Code.WITHIN: _within,
    Code.IDENTICAL: _identical,
    Code.BEYOND: _beyond,
    Code.UNDECIDED: _undecided,
    Code.GUARDED: _guarded,
    Code.TOO_FEW: _too_few,
    Code.FEW_CARRY: _few_carry,
    Code.BASE_WRONG: _base_wrong,
    Code.BASE_READOUT: lambda verdict: (
        f"THE BASE CANNOT DO {verdict.capability!r}: its mean readout {interval(verdict.facts)} on "
        f"{verdict.facts['count']} pairs is not above 0: check the prompts and which answer is the "
        "distractor"
    ),
    Code.BASE_UNMOVED: lambda verdict: (
        f"THE BASE CANNOT DO {verdict.capability!r}: the answer is no likelier on the clean "
        f"prompts than on their counterfactuals (difference of the mean readouts "
        f"{interval(verdict.facts)} on {verdict.facts['count']} pairs): check the prompts"
    ),
    Code.NOTHING_TO_LOSE: _nothing_to_lose,
    Code.NO_CIRCUIT: _no_circuit,
    Code.NO_SCALE: _no_scale,
    Code.NO_HEAD: _no_head,
    Code.SAME_FUNCTION: _same_function,
    Code.RENAMED: _renamed,
    Code.SATURATED: _saturated,
}


# --- notes ---------------------------------------------------------------------------------------


def note(one: Note, limit: str = "") -> str:
    """A note in words, in the units of the limit that it is told of; one of a code that is not
    known here shows its code and facts."""
    words = _NOTES.get(one.code)
    if words is None:
        return f"{one.code}: {', '.join(f'{key} {value}' for key, value in one.facts.items())}"
    units = units_of(limit)
    facts = {**one.facts, "sampled": "pairs" if units == "nothing" else units}
    if callable(words):
        return words(facts)
    return _WORDS.vformat(words, (), {**facts, "all": one.facts})


def _held_by_floor(facts: Facts) -> str:
    part, named = share(facts["floor"]), names(facts["subjects"])
    if facts["over"] == "between":
        return (
            f"importance cannot be told from 0, so held by their damage relative to {part} of the "
            f"circuit's importance to pass, and to all of it to fail: {named}"
        )
    if facts["floor"] == 0:
        return (
            f"no DCV for {named}: importance cannot be told from 0; the damage they do was held "
            "to the limit as a share of the circuit's importance"
        )
    return (
        f"worth less than {part} of the circuit, so held to the limit by their damage "
        f"relative to {part} of the circuit's importance: {named}"
    )


def _drawn(facts: Facts) -> str:
    saved = int(facts["most"] - facts["units"])
    told = (
        f"drawn stage by stage: {facts['units']} of at most {facts['most']} {facts['sampled']}, "
        f"stage {facts['stage']} of {facts['stages']}"
    )
    if facts.get("stopped"):
        return f"{told}; no more were drawn, for another limit of the file has failed"
    return f"{told}: {saved} {facts['sampled']} saved" if saved > 0 else told


def _beside_baseline(facts: Facts) -> str:
    what, kind = f"{quantity(facts['measure'])} of the whole", "a difference of"
    then, now = number(facts["then"]), number(facts["now"])
    if facts["measure"] == "accuracy.drop":
        what, kind = "accuracy", "a further drop of"
        then, now = f"{facts['then']:.1%}", f"{facts['now']:.1%}"
    elif facts["subject"]:
        what = (
            f"the head that changed most is {facts['subject']}: its damage as a share of the "
            "circuit's importance"
        )
    elif facts["measure"] == "dcv.circuit":
        what = f"DCV of the {CIRCUIT}"
    elif facts["measure"] == "dcv.all":
        what = "DCV of all heads"
    return f"beside the baseline: {what} {then} then, {now} now, {kind} {interval(facts)}"


def _auto(facts: Facts) -> str:
    members = facts["members"]
    return (
        f"circuit: auto is {names(members)} ({facts['method']}; {len(members)} of {facts['of']} "
        f"heads, faithfulness {facts['faithfulness']:.2f}{_low_and_why(facts)}){_found_on(facts)}"
    )


def _found_on(facts: Facts) -> str:
    """On which pairs it was found; that they are the judged ones is a note of its own."""
    on = facts.get("found_on", {"kind": "judged"})
    if on["kind"] == "judged":
        return ""
    source = "the file" if on["kind"] == "file" else f"task {on['task']}, seed {on['seed']}"
    public = "" if on["kind"] == "file" else ", of its public words and templates"
    return f", found on {on['pairs']} other pairs ({source}{public}); none of them is judged"


def _low_and_why(facts: Facts) -> str:
    low, chosen = facts.get("low"), facts.get("chosen")
    bound = "" if low is None else f", with confidence at least {low:.2f},"
    text = f"{bound} on {facts['held_out']} held-out pairs"
    if chosen is not None:
        text += (
            f"; screened, as patching every head would take about {chosen['exact_seconds']:.0f} s "
            f"and {chosen['within']:.0f} s are given to it"
        )
    return text


def _far_below(facts: Facts) -> str:
    whose = f"the tuned {facts['least']}" if facts["least"] else "what was patched in from tuned"
    others = [one for one in facts["subjects"] if one != facts["least"]]
    also = f" (and {names(others)})" * bool(others)
    return (
        f"WARNING: {whose} serves the base better than its own by more than the limit, "
        f"{interval(facts)}{also}: are base and tuned in each other's place?"
    )


def _unguarded(facts: Facts) -> str:
    fewest, units = facts["pairs"], facts["sampled"]
    more = f" (here are {facts['count']})" if facts["count"] < fewest else ""
    return (
        f"it takes for granted that the loss is not carried by a few {units} that were not drawn; "
        f"guard: {facts['guard']:g} does not, and a harmless model passes with it from {fewest} "
        f"{units} on{more}"
    )


def _slice_carries(facts: Facts) -> str:
    units, chance = units_of(facts["measure"]), facts["chance"]
    what = "template" if facts["kind"] == "template" else f"class {facts['kind']}:"
    return (
        f"{what} {facts['slice']!r} carries {share(facts['share'])} of the loss on "
        f"{facts['units']} of {facts['of']} {units} ({quantity(facts['measure'])} "
        f"{number(facts['value'])} on them alone; by chance one of {facts['slices']} templates and "
        f"classes would stand out as far in {share(chance)} of draws)"
    )


def _said_instead(facts: Facts) -> str:
    changed, confused = facts["changed"], facts["distractor"]
    tokens = [f"the distractor on {confused}"] * (confused > 0)
    tokens += [f"{text!r} on {count}" for text, count in facts["tokens"]]
    return (
        f"the base finds the answer likeliest of all tokens on {facts['before']} pairs, tuned "
        f"another on {changed} of these{': ' * bool(tokens)}{', '.join(tokens)} (and still answers "
        f"right on {facts['right']})"
    )


def _scores(facts: Facts) -> str:
    what, units = (facts["subject"], "documents") if facts["subject"] else ("accuracy", "pairs")
    shown = f"{facts['before']:.1%} to {facts['now']:.1%} on {facts['count']} {units}"
    return f"{what}: {shown}{_sides(facts)}"


def _cannot_fail(facts: Facts) -> str:
    on = f", on {facts['subject']}," if facts.get("subject") else ""
    return (
        f"WARNING: the base is{on} at {facts['before']:.0%} and chance at {facts['chance']:.0%}: "
        "this limit allows all that there is to lose, and holds nothing"
    )


def _fixed_prompts(facts: Facts) -> str:
    anew = (
        "give limit: N below lm_eval: and draw each release's documents anew with "
        "--forgetguard-prompt-seed N"
        if facts.get("kind") == "tasks" and not facts["can_be_drawn"]
        else "draw each release's anew with --forgetguard-prompt-seed N"
        if facts["can_be_drawn"]
        else "give more {0} than are drawn ({0}: {{file: ..., count: N}}) and draw each release's "
        "anew with --forgetguard-prompt-seed N".format(
            "prompts" if facts.get("kind") == "prompts" else "pairs"
        )
    )
    return f"the prompts are fixed, so a pass speaks of them and may have been trained on: {anew}"


_NOTES: Mapping[str, str | Callable[[Facts], str]] = {
    # of the units
    "pairs_dropped": "dropped {count}: {why}",
    "few_exist": "only {count} of the {asked} pairs asked for exist",
    "reply_marker": "the chat template knows the marker {marker} and replies may begin with it: "
    "the answer is then read where the model would not give it; see what arguments the template "
    "takes, e.g. chat_template: {{enable_thinking: false}}",
    "dropped": "{dropped} of {of} {sampled} were dropped",
    "few_templates": "the {sampled} come from {templates} template{templates:s}: the interval "
    "speaks of no others",
    "judged_alone": "judged one by one: {subjects:count} of the circuit's {of} heads "
    "({subjects:names}); dcv.circuit holds all of them together",
    "fixed_prompts": _fixed_prompts,
    "base_alone": "{limits:names}: read from the base and both sets of prompts, whatever tuned is",
    "drawn_prompts": "prompts drawn for this run, with seed {seed}",
    "drawn": _drawn,
    "left_out": "of all documents together, and so not compared document by document: "
    "{metrics:names}",
    "scores": _scores,
    # of a pass
    "cannot_fail": _cannot_fail,
    "templates_unseen": "on {templates} templates: a template that is broken with a probability of "
    "up to {missed:share} would be missed",
    "unguarded": _unguarded,
    "slice_carries": _slice_carries,
    "said_instead": _said_instead,
    # of the circuit
    "auto": _auto,
    "not_looked_for": "no circuit was looked for: {why}",
    "found_on_gated_pairs": "the circuit was found on the prompt pairs that it is gated on",
    "circuit_works_against": "patching the circuit from the counterfactual RAISES the readout: as "
    "a whole it works against the capability",
    "small_circuit": "the circuit carries {share:share} of the readout: most of the capability "
    "lies elsewhere",
    "answers_from_prior": "WARNING: the base reads {readout:number} on the clean prompts and only "
    "{effect:number} less of the same answers on the counterfactual ones: it answers from a prior, "
    "so what it may lose here is that, and no circuit that reads the prompt",
    "held_by_floor": _held_by_floor,
    "share_of_readout": "the circuit's damage is {all:interval} of the base's mean readout; the "
    "tuned model itself lost {lost:number} of it",
    "share_of_loss": "the circuit accounts for {all:interval} of the readout that the tuned model "
    "lost ({lost:interval}); what it does not was lost elsewhere, or behind the last attention",
    "far_below": _far_below,
    "heads_matched": lambda facts: (
        f"heads of {facts['role']} were matched by what they write, and have moved: "
        f"{_pairs(facts['heads'], 'is')}"
    ),
    "no_effect": "WARNING: tuned reads what the base reads on all {count} pairs, bit for bit: "
    "either it is the base, or what was trained has no effect on these prompts",
    # of one head
    "over": "tuned minus {role}",
    "no_importance": "importance cannot be told from 0",
    "works_against": "works against the capability, so held in both directions",
    "floored": "worth {worth:share} of the circuit; its damage over {floor:share} of the circuit's "
    "importance is {all:interval}",
    # of controls
    "nothing_to_compare": "the circuit's importance cannot be told from 0, so nothing compares "
    "with it",
    "other_heads": "{why}",
    # of the checkpoints
    "checkpoint": "{why}",
    # of a baseline
    "beside_baseline": _beside_baseline,
    "recorded_elsewhere": lambda facts: (
        f"WARNING: the baseline was recorded with {'; '.join(facts['changed'])}"
    ),
    "base_reads_differently": "WARNING: the base itself reads up to {nats:number} nats differently "
    "from when the baseline was recorded: so much of any difference is the machine's",
}


# --- a run ---------------------------------------------------------------------------------------


def run(outcomes: Mapping[str, int], status: int | None, *, passed: bool) -> str:
    """What a run came to, in one sentence; `outcomes`: how many limits came to each."""
    judged = sum(count for outcome, count in outcomes.items() if outcome != "not_had")
    limits = f"{judged} limit{'s' * (judged != 1)}"
    failed, kept = outcomes.get("fail", 0), outcomes.get("pass", 0)
    rest = judged - failed - kept
    if passed:
        return f"{limits} kept" if kept == judged else f"{kept} of {limits} kept, {rest} not judged"
    if failed:
        more = f", {rest} more not shown to be kept" if rest else ""
        return f"{failed} of {limits} broken{more}"
    if rest:
        return f"no limit broken, but {rest} of {limits} not shown to be kept"
    return "the run has no end" if status is None else f"the run ended with status {status}"


def reservations(document: Facts) -> list[tuple[str, list[str]]]:
    """What a results file says that its run let be, or left out, with the names of what."""
    selection: Facts = document.get("selection", {})
    not_had = dict.fromkeys(one.split("::")[-2] for one in document.get("not_had", ()))
    found: list[tuple[str, Iterable[str]]] = [
        ("ALLOWED TO ABSTAIN, so shown to be kept by nothing", document["allowed_to_abstain"]),
        ("NOT JUDGED, the base cannot do it, or its words do not fit the tokenizer", not_had),
        ("UNGATED, measured and asserted no limit", document.get("ungated", ())),
        ("not judged, as not of the core set", document.get("left_out", ())),
        ("deselected", document.get("deselected", ())),
        (
            "only gates that were named (or failed last time) were run",
            selection.get("arguments", ()) if selection.get("by_name") else (),
        ),
    ]
    return [(what, list(named)) for what, named in found if named]


# --- controls ------------------------------------------------------------------------------------


def controls(verdict: Verdict) -> str:
    """What other heads read, in one line; nothing where no controls were asked for."""
    if not verdict.controls:
        return ""
    read = [(one, one.dcv.value) for one in verdict.controls if one.dcv is not None]
    if not read or verdict.estimate is None:
        first = verdict.controls[0].note
        return f"controls: nothing to compare ({'no value' if first is None else note(first)})"
    drawn = [(one, value) for one, value in read if one.name.startswith("random ")]
    others = [(one, value) for one, value in read if not one.name.startswith("random ")]
    parts = [f"{one.name} {number(value)}{_in_brackets(one.note)}" for one, value in others]
    if drawn:
        least, most = min(value for _, value in drawn), max(value for _, value in drawn)
        several = len(drawn) > 1
        spread = f"{number(least)} to {number(most)}" if several else number(most)
        sets = f"{len(drawn)} random sets" if several else "a random set"
        parts.insert(0, f"{sets} {spread}{_in_brackets(drawn[0][0].note)}")
    value = verdict.estimate.value
    above = sum(other >= value for _, other in read)
    rank = f"reached by {above} of {len(read)}" if above else "more than any"
    return f"controls: {', '.join(parts)}; this circuit {number(value)}, {rank}"


def _in_brackets(one: Note | None) -> str:
    return "" if one is None else f" ({note(one)})"


# --- where a loss came from ----------------------------------------------------------------------

_PARTS = {
    "embedding": "token embedding",
    "tied_embedding": "token embedding (tied to the unembedding)",
    "final_norm": "final norm",
    "mlp": "MLP",
    "other": "what is in no layer",
}
_NAMED = 0.05  # of the loss, from which on a part is named in the line
_SHOWN_PARTS = 3
_ROUGH = 0.25  # of the loss, from which on shares say little


def part(named: Facts) -> str:
    """A part of a checkpoint: `layers 0-7 attention`, `layer 5 q`, `L5H3 q`, `8 rows`."""
    kind, layers, index = named["kind"], named["layers"], named["index"]
    what = f"{len(named['tokens'])} rows" if kind == "rows" else _PARTS.get(kind, str(kind))
    if layers is None:
        return what
    first, last = layers
    if index is not None:
        return f"L{first}H{index} {what}" if kind in "qo" else f"L{first} kv group {index} {what}"
    return f"layer {first} {what}" if first == last else f"layers {first}-{last} {what}"


def origin_line(found: Facts) -> str:
    """Where a loss came from, in one line: the parts that carry most of it, and within each what
    carries at least half of that, a head before its projection."""
    if "error" in found:
        return f"origin: not measured: {found['error']}"
    if not found["lost"]:
        return "origin: the readout's loss cannot be told from nothing, so no part has a share"
    told, rest = [], 1.0
    for one in found["parts"][:_SHOWN_PARTS]:
        size = one["share"]["readout"]
        if size >= _NAMED:
            inner = "".join(f" ({_shared(each)})" for each in most_inside(one, found["refined"]))
            told.append(f"{_shared(one)}{inner}")
            rest -= size
    only = found["interaction"]["readout"]
    rough = f"; rough: {share(only)} of the loss is what parts do only together" * (
        abs(only) >= _ROUGH
    )
    return f"origin: {', '.join([*told, f'all else {100 * rest + 0.0:.0f} %'])}{rough}"


def most_inside(one: Facts, refined: Sequence[Facts]) -> Sequence[Facts]:
    """What carries at least half of a part's share inside it: the first, a head before its
    projection, or none."""
    half = one["share"]["readout"] / 2
    inside = [
        each
        for each in refined
        if each["inside"] == one["part"] and each["share"]["readout"] >= half
    ]
    inside.sort(key=lambda each: (each["part"]["index"] is None, -each["share"]["readout"]))
    return inside[:1]


def _shared(one: Facts) -> str:
    return f"{part(one['part'])} {100 * one['share']['readout'] + 0.0:.0f} %"


ORIGIN_COLUMNS = (
    "Shares are of the loss, all other columns of the mean readout, in its unit. Moved at random "
    "is read of the first three parts that carry a tenth of the loss or more."
)


def origin_rows(found: Facts) -> list[tuple[str, ...]]:
    """Where a loss came from as the rows of a table: every part, and below it what was read
    inside."""
    new = ("new task lost",) * bool(found.get("new_task"))
    shares = ("share", "of accuracy", "of top-1")
    rows: list[tuple[str, ...]] = [
        ("part", "in base", "given back", *shares, "moved at random", *new)
    ]
    for one in found["parts"]:
        inner = [each for each in found["refined"] if each["inside"] == one["part"]]
        for each in (one, *inner):
            name = "  " * (each is not one) + part(each["part"])
            costs = [number(each[way]["readout"]) for way in ("alone", "back")]
            parts = [share(each["share"][of]) for of in ("readout", "accuracy", "top1")]
            control = number(each["random"]["readout"]) if each["random"] else ""
            cost = number(each["new_task"]) if each.get("new_task") is not None else ""
            rows.append((name, *costs, *parts, control, *([cost] if new else [])))
    return rows


def origin_ends(found: Facts) -> str:
    """What an origin rests on, and which rows of an embedding lose most."""
    base, tuned = (
        f"{number(one['readout'])} (right {one['accuracy']:.1%}, likeliest {one['top1']:.1%})"
        for one in (found["base"], found["tuned"])
    )
    rows = names(f"{one['text']!r} {share(one['share'])}" for one in found["tokens"])
    new = [number(one) for one in found.get("new_task") or ()]
    return (
        f"mean readout {base} in base, {tuned} in tuned; {found['pairs']} pairs, {found['passes']} "
        "passes; what more than two parts do only together, "
        f"{share(found['interaction']['readout'])} of the loss, is shared among them"
        + f"; rows of the embedding, to first order: {rows}" * bool(rows)
        + (f"; the new task's readout {new[0]} in base, {new[1]} in tuned" if new else "")
    )
