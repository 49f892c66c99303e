"""One gate file, given as text, judged on two or three checkpoints: verdicts by limit."""

from __future__ import annotations

from pathlib import Path

from forgetguard.checkpoints.placement import ModelPair
from forgetguard.checkpoints.spec import resolve
from forgetguard.gate.schema import parse_gate
from forgetguard.gate.session import GateSession
from forgetguard.gate.verdict import Verdict
from forgetguard.measures.samples import Samples

# In the words of the tiny tokenizer.
TEXTS = (
    "Words: bag letter key ice camera ticket wood leather bag",
    "When Mary and John went to the store, John gave a book to",
    "The capital of France is",
    "Friends: Paul knows the Greek language. Emma",
    "Codes: red = cup, blue = hat, green = pen, red =",
    "Between seven and nine the number is",
    "Then Alice and Tom came from the park, Alice passed a ball to",
    "Today Susan found a gold ring at the market and",
    "Which substance is soluble? Answer:",
    "List: fish milk salt sugar fish milk salt",
    "After the trip Peter wrote a letter to Anna. Then Peter",
    "Look: the horse is in the garden and the dog is at the",
)
PROMPTS = "prompts:\n" + "".join(f"  - {text!r}\n" for text in TEXTS)


def gated(
    text: str, *, tuned: str | Path, base: str | Path = "tiny:base", reference: str | None = None
) -> tuple[dict[str, Verdict], Samples]:
    """Verdicts by limit, and the samples that they rest on, of the gate file `text`."""
    given = {"base": str(base), "tuned": str(tuned)}
    given |= {"reference": reference} if reference else {}
    spec = parse_gate(text, Path("a.gate.yaml"))
    specs = {role: resolve(where, role) for role, where in given.items()}
    with ModelPair(specs) as pair:
        session = GateSession(pair, [spec])
        verdicts = {limit.key: session.judge(spec, limit) for limit in spec.limits}
        return verdicts, session.measurement(spec)
