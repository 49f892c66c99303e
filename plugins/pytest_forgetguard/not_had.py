"""Bundled circuits that run because nobody named any: what the base cannot do is skipped.

A circuit file of the user's own declares what a release must keep, so that an abstention fails the
run. The bundled defaults guess at what a base may be able to do; a guess that is wrong says nothing
about the tuned model. It is skipped only where the base, and it alone, was found not to have the
capability; and a run in which that is true of every default is no pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from _pytest.outcomes import Skipped

if TYPE_CHECKING:
    from forgetguard.gate.verdict import Verdict


class NotHad(Skipped):
    """A limit of a bundled default on a capability that the base has not, or whose prompts do not
    fit its tokenizer."""

    def __init__(self, circuit: str, limit: str, why: str) -> None:
        super().__init__(f"NOT HAD, not judged: {why} ({circuit} {limit})", _use_item_location=True)


def base_has_not(verdict: Verdict) -> bool:
    """Whether the verdict says that the base lacks the capability, and nothing about tuned."""
    from forgetguard.gate.verdict import Code, Outcome

    # Not NO_CIRCUIT: by the pairs of the run the base can then do it, and nothing was looked at.
    cannot = (Code.BASE_WRONG, Code.BASE_READOUT, Code.BASE_UNMOVED)
    return verdict.outcome is Outcome.ABSTAIN and verdict.code in cannot
