"""The drift of weights shared out: by kind, by layer, and as a share of the entries."""

from __future__ import annotations

from forgetguard.measures.parameter_drift import Drift, ParameterDrift, together


def by_kind(found: ParameterDrift) -> dict[str, Drift]:
    """Over all layers, by kind of tensor, in the order of the kinds' names."""
    kinds = sorted({one.kind for one in found.tensors})
    return {k: together(one.drift for one in found.tensors if one.kind == k) for k in kinds}


def by_layer(found: ParameterDrift) -> dict[int, Drift]:
    """Over all tensors of a layer; those outside the layers are left out."""
    layers = sorted({one.layer for one in found.tensors if one.layer is not None})
    return {n: together(one.drift for one in found.tensors if one.layer == n) for n in layers}


def changed_share(drift: Drift) -> float:
    """changed / entries, 0 to 1."""
    return drift.changed / drift.entries if drift.entries else 0.0
