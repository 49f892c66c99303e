"""Verdicts on the literature's claims, from made-up results where each is true, false or open."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from examples.studies.reference import claims, collecting, figures, page, suite
from examples.studies.reference.intervals import over_configurations, over_seeds
from examples.studies.reference.plan import Plan, read_plan
from forgetguard.errors import SpecificationError

PLAN = read_plan(
    "tiny",
    ["recipes=sft,rl,sft-replay,sft-rl", "tolerance=0.05", "compared=sft vs rl"],
    out=Path("out"),
)


@pytest.fixture(autouse=True)
def _fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of a study's: no verdict here hangs on the last hundredth of a bound."""
    monkeypatch.setitem(over_configurations.__kwdefaults__, "draws", 200)


TASKS = {"ioi": 10.0, "induction": 4.0}


def point(
    recipe: str,
    seed: int,
    step: int = 40,
    *,
    score: float = 0.9,
    kept: float = 0.9,
    dcv: float = 0.1,
    kl: float = 0.5,
    start: int | None = None,
    final: bool = True,
    rate: float = 0.1,
) -> dict:
    """A checkpoint; seeds differ a little, as they do."""
    kept, dcv, kl = kept + 0.002 * seed, dcv + 0.002 * seed, kl + 0.002 * seed
    place = "" if start is None else f"-from{start}"
    return {
        "run": f"{recipe}{place}-{seed}" if rate == 0.1 else f"{recipe}-{rate}-{seed}",
        "recipe": recipe, "learning_rate": rate, "seed": seed,
        "start": start, "after": None if start is None else f"sft-{seed}", "step": step,
        "final": final,
        "new": {"validation": score, "evaluation": score, "probability": score},
        "prior": {
            name: {"accuracy": kept, "readout": value * kept, "probability": kept * 0.9}
            for name, value in TASKS.items()
        },
        "kl": {
            "new": {"forward": kl, "reverse": kl / 2},
            "prior": {"forward": kl / 10, "reverse": kl / 20},
        },
        "dcv": {
            "ioi": {"value": dcv, "low": 0.0, "high": 1.0, "heads": {"L0H1": dcv, "L2H0": None}}
        },
        "drift": 0.02,
    }  # fmt: skip


BASE = {
    "new": {"validation": 0.2, "evaluation": 0.2, "probability": 0.2},
    "prior": {
        name: {"accuracy": 1.0, "readout": value, "probability": 0.9}
        for name, value in TASKS.items()
    },
}


def comparison(seed: int, sft: float, rl: float, abstained: str | None = None) -> dict:
    def column(corrected: float) -> dict:
        return {
            "able": True, "sizes": [4, 5], "faithfulness": 1.0, "transfer": 0.9,
            "retention": {
                "value": 0.7, "chance": 0.4, "corrected": corrected, "abstained": abstained
            },
        }  # fmt: skip

    return {
        "task": "ioi", "pair": ["sft", "rl"], "seed": seed,
        "ceiling": {"value": 0.9, "chance": 0.4, "corrected": 0.8},
        "columns": {"tuned": column(sft), "reference": column(rl)},
        "vulnerable": {"members": ["L0H1"], "delta": 0.5},
    }  # fmt: skip


def as_claimed() -> list[dict]:
    """A family in which the claims hold."""
    family = []
    for seed in (0, 1, 2):
        family += [
            point("sft", seed, 10, score=0.4, kept=1.05, dcv=0.05, kl=0.2, final=False),
            point("sft", seed, 20, score=0.6, kept=0.70, dcv=0.2, kl=0.6, final=False),
            point("sft", seed, 40, kept=0.60, dcv=0.3, kl=0.7),
            point("rl", seed, 40, kept=0.58 + 0.4, dcv=0.02, kl=0.75 + 0.3),
            point("sft-replay", seed, 40, kept=0.9, dcv=0.1, kl=0.3),
            point("sft-rl", seed, 40, kept=0.90, dcv=0.1, kl=0.4, start=20),
            point("sft-rl", seed, 40, kept=0.70, dcv=0.2, kl=0.5, start=40),
        ]
    return family


def results(records: list[dict], comparisons: list[dict] | None = None, plan: Plan = PLAN) -> dict:
    found = collecting.table(plan, BASE, records, comparisons or [])
    found["claims"] = claims.judge(found)
    return found


def verdicts(found: Mapping) -> dict[str, str]:
    return {one["key"]: one["verdict"] for one in found["claims"]}


HELD = [comparison(seed, 0.2 + 0.01 * seed, 0.6) for seed in (0, 1, 2)]


# --- verdicts ----------------------------------------------------------------------------------


def test_a_family_made_as_the_papers_say_reproduces_their_claims() -> None:
    found = verdicts(results(as_claimed(), HELD))
    for key in (
        "circuit-kept", "retention", "larger-kl", "peaks-early", "forgets-early", "rl-restores",
        "within-bounds", "mass-collapses", "replay-keeps-mass",
    ):  # fmt: skip
        assert found[key] == claims.REPRODUCED, key
    assert found["drift-by-overlap"] == claims.UNTESTED


def test_a_family_made_the_other_way_round_refutes_them() -> None:
    """SFT and RL change places, and SFT forgets late."""
    swapped = {"sft": "rl", "rl": "sft"}
    family = [
        {**one, "recipe": swapped[one["recipe"]], "run": f"{swapped[one['recipe']]}-{one['seed']}"}
        for one in as_claimed()
        if one["recipe"] in swapped and one["final"]
    ]
    for seed in (0, 1, 2):
        family.append(point("sft", seed, 20, score=0.5, kept=1.2, final=False))
    away = [comparison(seed, 0.6, 0.2 + 0.01 * seed) for seed in (0, 1, 2)]
    found = verdicts(results(family, away))
    for key in ("circuit-kept", "retention", "larger-kl", "mass-collapses", "forgets-early"):
        assert found[key] == claims.REFUTED, key


def test_seeds_that_disagree_leave_a_claim_undecided() -> None:
    family = as_claimed()
    for one in family:
        if one["recipe"] == "sft" and one["final"] and one["seed"] == 2:
            one["dcv"]["ioi"]["value"] = -0.5
    found = results(family)
    assert verdicts(found)["circuit-kept"] == claims.UNDECIDED
    (one,) = [claim for claim in found["claims"] if claim["key"] == "circuit-kept"]
    assert one["numbers"][0]["low"] < 0 < one["numbers"][0]["high"]


def test_one_seed_decides_nothing() -> None:
    """Of the claims that rest on seeds; checkpoints of many runs can speak without."""
    alone = replace(PLAN, seeds=(0,))
    found = verdicts(results([one for one in as_claimed() if one["seed"] == 0], plan=alone))
    assert found["circuit-kept"] == claims.UNDECIDED
    assert {key for key, one in found.items() if one == claims.REPRODUCED} <= {"kl-predicts"}


def test_what_was_not_measured_is_not_tested() -> None:
    found = verdicts(results([one for one in as_claimed() if one["recipe"] == "sft"]))
    for key in ("circuit-kept", "retention", "larger-kl", "rl-restores", "within-bounds"):
        assert found[key] == claims.UNTESTED, key


def test_a_part_that_is_refuted_refutes_the_whole() -> None:
    above, below = over_seeds([1.0, 1.1, 1.2]), over_seeds([-1.0, -1.1, -1.2])
    both = [claims.Part("a", above), claims.Part("b", below)]
    assert claims.verdict(both) == claims.REFUTED
    assert claims.verdict(both[:1]) == claims.REPRODUCED
    assert claims.verdict([]) == claims.UNTESTED


def test_retention_that_abstains_is_no_evidence() -> None:
    away = [comparison(seed, 0.2, 0.6, abstained="the base is unstable") for seed in (0, 1, 2)]
    assert verdicts(results(as_claimed(), away))["retention"] == claims.UNTESTED


def numbers(found: Mapping, key: str, part: str = "numbers") -> list[float]:
    (one,) = [claim for claim in found["claims"] if claim["key"] == key]
    return [number["value"] for number in one[part]]


def reinforced(ends: Mapping[int, float], *, jitter: float = 0.0) -> dict:
    """SFT that keeps 0.7 at step 20 and 0.6 at step 40, and what RL from each of them ends with."""
    family = []
    for seed in (0, 1, 2):
        family += [
            point("sft", seed, 20, score=0.6, kept=0.7, final=False),
            point("sft", seed, 40, kept=0.6),
        ]
        off = jitter * (-1, 2, -1)[seed]
        for start, kept in ends.items():
            family.append(point("sft-rl", seed, 40, kept=kept + off * start / 20, start=start))
    return results(family)


def test_reinforcement_that_restores_early_and_not_late_is_within_bounds() -> None:
    found = reinforced({20: 0.9, 40: 0.62})
    assert verdicts(found)["within-bounds"] == claims.REPRODUCED
    assert numbers(found, "within-bounds") == pytest.approx([0.9 - 0.7, (0.9 - 0.7) - 0.02])
    assert numbers(found, "within-bounds", "beside") == pytest.approx([0.02])


@pytest.mark.parametrize("jitter", [0.0, 0.001])
def test_reinforcement_that_does_nothing_is_not_within_bounds(jitter: float) -> None:
    """The later start ends lower all the same."""
    found = reinforced({20: 0.7, 40: 0.6}, jitter=jitter)
    assert verdicts(found)["within-bounds"] == claims.UNDECIDED
    assert verdicts(found)["rl-restores"] == claims.UNDECIDED


def test_reinforcement_that_restores_as_much_from_late_is_not_bounded() -> None:
    assert verdicts(reinforced({20: 0.8, 40: 0.7}))["within-bounds"] == claims.UNDECIDED
    assert verdicts(reinforced({20: 0.75, 40: 0.75}))["within-bounds"] == claims.REFUTED


def test_reinforcement_that_harms_from_late_alone_restores_nothing_from_early() -> None:
    assert verdicts(reinforced({20: 0.7, 40: 0.3}))["within-bounds"] == claims.UNDECIDED
    assert verdicts(reinforced({20: 0.6, 40: 0.3}))["within-bounds"] == claims.REFUTED


def along(*kept: float) -> dict:
    """SFT with these shares kept at steps 10, 20, ..., with every seed."""
    return results(
        [
            point("sft", seed, 10 * place, kept=value, final=place == len(kept))
            for seed in (0, 1, 2)
            for place, value in enumerate(kept, 1)
        ]
    )


def test_a_peak_is_above_the_base_and_above_the_end() -> None:
    found = along(1.02, 1.1, 0.8)
    assert verdicts(found)["peaks-early"] == claims.REPRODUCED
    # seeds differ by 0.002 each, so their mean is 0.002 above the first; the base keeps 1
    assert numbers(found, "peaks-early") == pytest.approx([0.102, 0.3])
    assert numbers(found, "peaks-early", "beside") == pytest.approx([1.02 - 0.8, 20 / 30])


def test_a_decline_from_the_base_on_is_no_peak() -> None:
    found = along(0.95, 0.8, 0.6)
    assert verdicts(found)["peaks-early"] == claims.REFUTED
    assert numbers(found, "peaks-early", "beside")[0] == pytest.approx(0.35)


def test_a_rise_to_the_end_is_no_peak() -> None:
    assert verdicts(along(1.02, 1.05, 1.2))["peaks-early"] == claims.REFUTED


def test_a_run_that_stays_where_it_was_has_no_peak() -> None:
    """Up to noise, of which the best of several has some: 1.03 standard deviations of 4 normals."""
    noise = np.random.default_rng(4).normal(1.0, 0.01, size=(400, 5))
    family = [
        point("sft", seed, 10 * place, kept=value - 0.002 * seed, final=place == 5)
        for seed, run in enumerate(noise)
        for place, value in enumerate(run, 1)
    ]
    above, after = numbers(results(family), "peaks-early")
    assert above == pytest.approx(0.0103, abs=0.001)
    assert after == pytest.approx(0.0103, abs=0.0015)
    few = results([one for one in family if one["seed"] < 3])
    assert verdicts(few)["peaks-early"] != claims.REPRODUCED


def test_divergence_that_goes_with_loss_predicts_it_and_one_that_does_not_does_not() -> None:
    with_it, against_it = [], []
    for seed in (0, 1, 2):
        for step, lost in ((10, 0.05), (20, 0.2), (30, 0.3), (40, 0.4)):
            for recipe in ("sft", "rl"):
                for rate in (0.1, 0.2):
                    one = {"score": 0.9, "kept": 1 - lost, "final": step == 40, "rate": rate}
                    with_it.append(point(recipe, seed, step, kl=lost, **one))
                    against_it.append(point(recipe, seed, step, kl=1 - lost, **one))
    assert verdicts(results(with_it))["kl-predicts"] == claims.REPRODUCED
    assert verdicts(results(against_it))["kl-predicts"] == claims.REFUTED
    narrow = results([one for one in with_it if one["recipe"] == "sft"])
    assert verdicts(narrow)["kl-predicts"] == claims.UNDECIDED


def test_more_seeds_of_the_same_configurations_predict_no_better() -> None:
    """Each seed repeats what the others find, so the interval must not narrow with them."""
    ways = {("sft", 0.1): (0.3, 0.5), ("sft", 0.2): (0.4, 0.3), ("rl", 0.1): (0.9, 0.1),
            ("rl", 0.2): (0.7, 0.4), ("sft-kl", 0.1): (0.1, 0.05)}  # fmt: skip
    found = []
    for count in (1, 4):
        family = [
            point(recipe, seed, kept=1 - lost - 0.002 * seed, kl=kl - 0.002 * seed, rate=rate)
            for (recipe, rate), (kl, lost) in ways.items()
            for seed in range(count)
        ]
        (judged,) = [one for one in claims.judge(results(family)) if one["key"] == "kl-predicts"]
        found.append(judged["numbers"][0])
    one, four = found
    assert one["n"] == four["n"] == len(ways)
    assert (four["low"], four["high"]) == pytest.approx((one["low"], one["high"]), abs=1e-9)


def test_every_claim_names_its_paper_and_says_how_it_is_judged() -> None:
    for claim in claims.CLAIMS:
        assert "arXiv" in claim.paper
        assert claim.here
    assert len({claim.key for claim in claims.CLAIMS}) == len(claims.CLAIMS)


# --- the page and the figures ------------------------------------------------------------------


@pytest.fixture(scope="module")
def found() -> dict:
    return results(as_claimed(), HELD)


def test_the_page_shows_every_verdict_seed_and_table(found: dict) -> None:
    text = page.bare(found)
    assert text.count("**reproduced**") == len(
        [one for one in found["claims"] if one["verdict"] == claims.REPRODUCED]
    )
    assert "| sft-rl from 20 | 2 | 0.1 | 40 |" in text
    assert "| ioi | 0 | sft | 4/5 | 0.700 | 0.400 | 0.200 |" in text
    assert page.fill(text, found) == text


def test_the_page_shows_agreement_across_halves_where_there_is_one() -> None:
    one, other = comparison(0, 0.2, 0.6), comparison(1, 0.2, 0.6)
    one["columns"]["tuned"]["retention"]["relative"] = 0.432
    one["columns"]["reference"]["retention"]["relative"] = None
    lines = page.bare(results(as_claimed(), [one, other])).splitlines()
    (head,) = [line for line in lines if "across halves / ceiling" in line]
    place = head.split(" | ").index("across halves / ceiling")
    rows = [line.split(" | ") for line in lines if line.startswith("| ioi | ")]
    assert [row[place] for row in rows] == ["0.432", "-", "-", "-"]
    assert all(len(row) == len(head.split(" | ")) for row in rows)


def test_the_page_shows_what_hangs_on_the_learning_rates() -> None:
    """Two rates on each side: four lines, of which the claims are judged on one."""
    family = [
        point(recipe, seed, kept=kept, rate=rate)
        for seed in (0, 1, 2)
        for recipe, rate, kept in (
            ("sft", 0.1, 0.9), ("sft", 0.2, 0.5), ("rl", 0.1, 0.8), ("rl", 0.2, 0.6),
        )
    ]  # fmt: skip
    rows = [
        line.split(" | ")[1:6]
        for line in page.bare(results(family)).splitlines()
        if line.startswith("| sft vs rl | 0.")
    ]
    assert [row[:4] for row in rows] == [
        ["0.1", "0.1", "3 of 3", "**yes**"], ["0.1", "0.2", "3 of 3", ""],
        ["0.2", "0.1", "3 of 3", ""], ["0.2", "0.2", "3 of 3", ""],
    ]  # fmt: skip


def test_a_changed_number_changes_the_page_and_prose_stays(found: dict) -> None:
    text = page.bare(found).replace("## Claims", "## Claims\n\nPeople wrote this.")
    other = results(as_claimed()[:-2], HELD)
    filled = page.fill(text, other)
    assert filled != text
    assert "People wrote this." in filled


def test_a_recipe_that_misses_the_score_is_said_to(found: dict) -> None:
    family = [one for one in as_claimed() if one["recipe"] != "sft-replay"]
    low = [point("sft-replay", seed, score=0.3) for seed in (0, 1, 2)]
    assert "| sft-replay | 1 | does not reach it |" in page.bare(results([*family, *low]))


def test_a_page_without_a_place_for_the_numbers_is_refused(found: dict) -> None:
    with pytest.raises(SpecificationError, match="blocks are missing"):
        page.fill("# Nothing\n", found)
    with pytest.raises(SpecificationError, match="blocks are weather"):
        page.fill("<!-- reference: weather -->\n<!-- end -->", found)


def test_results_figures_and_page_are_written_together_and_the_same_again(
    found: dict, tmp_path: Path
) -> None:
    at = suite.write(found, tmp_path, figures=True, say=lambda _: None)
    files = sorted(one for one in (tmp_path / "reference").iterdir())
    before = {one.name: one.read_bytes() for one in (*files, at)}
    assert set(before) == {"reference.md", suite.RESULTS, *(f"{one}.svg" for one in page.FIGURES)}
    assert set(page.FIGURES) == set(figures.FIGURES)
    suite.write(found, tmp_path, figures=True, say=lambda _: None)
    assert {one.name: one.read_bytes() for one in (*files, at)} == before
    read = json.loads(before[suite.RESULTS])
    assert page.fill(at.read_text("utf-8"), read) == at.read_text("utf-8")


def test_nothing_matched_still_draws_and_tells(tmp_path: Path) -> None:
    family = [point("sft", seed) for seed in (0, 1)] + [point("rl", 0, score=0.3)]
    at = suite.write(results(family), tmp_path, figures=True, say=lambda _: None)
    assert "so nothing is matched" in at.read_text("utf-8")


def test_a_claim_about_sft_and_rl_is_judged_on_each_pair_that_is_compared() -> None:
    plan = read_plan(
        "tiny",
        [
            "recipes=sft,rl,sft-replay,sft-rl",
            "tolerance=0.05",
            "compared=[sft vs rl, sft vs sft-rl from 40, rl vs sft]",
            "target=0.9",
        ],
        out=Path("out"),
    )
    judged = [
        one
        for one in claims.judge(results(as_claimed(), plan=plan))
        if one["key"] == "circuit-kept"
    ]
    assert [one["pair"] for one in judged] == [
        ["sft", "rl"],
        ["sft", "sft-rl from 40"],
        ["rl", "sft"],
    ]
    first, second, third = (one["numbers"][0]["value"] for one in judged)
    assert (first, second, third) == pytest.approx((0.28, 0.1, -0.28))


def test_retention_is_read_from_the_pair_that_is_judged() -> None:
    other = {**comparison(0, 0.1, 0.9), "pair": ["sft", "sft-rl from 40"]}
    found = results(as_claimed(), [comparison(0, 0.5, 0.6), other])
    (judged,) = [one for one in claims.judge(found) if one["key"] == "retention"]
    assert judged["numbers"][0]["value"] == pytest.approx(0.1)
