"""What a circuit file says about how its circuit was found, and which base it belongs to."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from forgetguard.checkpoints.described import full_config
from forgetguard.checkpoints.local import localise
from forgetguard.discovery.circuit import Found
from forgetguard.gate.declaration import Fits
from forgetguard.gate.suitability import config_size

if TYPE_CHECKING:
    from forgetguard.checkpoints.placement import Checkpoint

_SHOWN_SIZES = 12  # points of the curve that a file keeps


def fits_of(base: Checkpoint) -> Fits:
    """The base that a circuit found on it belongs to: architecture, size and weights."""
    if base.spec.kind == "adapter":
        return Fits(weights=base.fingerprint.weights)
    config = full_config(localise(base.spec, base.options, weights=False))
    architectures = config.get("architectures") or [None]
    return Fits(
        architecture=architectures[0],
        layers=config_size(config, "layers"),
        heads=config_size(config, "heads"),
        weights=base.fingerprint.weights,
    )


def describe(found: Found) -> dict[str, Any]:
    """The provenance of a circuit, in plain values for `found:` of a circuit file."""
    ranking, curve = found.ranking, found.curve
    size = len(found.circuit)
    selected = [str(one) for one in sorted(ranking.selected or ())]
    return {
        "method": ranking.method,
        **({"settings": _plain(ranking.settings)} if ranking.settings else {}),
        **({"chosen": _plain(dict(found.chosen))} if found.chosen else {}),
        "pairs": {"ranked_on": found.pairs, "held_out": curve.pairs},
        "seed": found.seed,
        "accuracy": round(found.accuracy, 4),
        "scores": {str(one): _rounded(ranking.scores[one]) for one in found.circuit},
        "members": curve.members,
        "ablation": curve.ablation,
        "faithful": found.faithful,
        "faithfulness": round(found.faithfulness, 4),
        "lower_bound": round(found.low, 4),
        "order": "signed" if found.signed else "size",
        "whole_effect": _rounded(curve.whole),
        "curve": {
            at: round(curve.at(at), 3) for at in _spread(curve.sizes, _SHOWN_SIZES, always=size)
        },
        **({"dip": _plain(asdict(found.dip))} if found.dip is not None else {}),
        **_stability(found),
        **({"against": _plain(dict(found.against))} if found.against else {}),
        "cpr": round(curve.cpr, 4),
        "cmd": round(curve.cmd, 4),
        **({"selected": selected} if ranking.selected is not None else {}),
        **({"findings": _plain(ranking.findings)} if ranking.findings else {}),
    }


def _stability(found: Found) -> dict[str, Any]:
    """Jaccard overlaps between halves of the pairs that were ranked on."""
    one = found.stability
    if one is None:
        return {}
    overlaps = {f"top_{one.top}": round(one.of_top, 3), "circuit": round(one.of_circuit, 3)}
    return {"stability": {"halves_of": one.pairs, **overlaps}}


def _spread(sizes: tuple[int, ...], most: int, always: int) -> list[int]:
    if len(sizes) <= most:
        return list(sizes)
    step = (len(sizes) - 1) / (most - 1)
    return sorted({sizes[round(i * step)] for i in range(most)} | {always})


def _plain(value: Any) -> Any:
    """Tuples as lists and numbers rounded, so that YAML reads back what was written."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return _rounded(value) if isinstance(value, float) else value


def _rounded(value: float) -> float:
    """Four significant digits: what a reader compares."""
    return float(f"{value:.4g}")
