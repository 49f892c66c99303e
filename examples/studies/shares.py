"""Necessity and sufficiency of members as shares of the whole effect."""

from __future__ import annotations

from forgetguard.anatomy.members import Member
from forgetguard.errors import MeasurementError
from forgetguard.measures.interventions import FloatArray
from forgetguard.measures.necessity import Roles


def necessity(roles: Roles) -> dict[Member, float]:
    """By member, what is lost without it, as a share of the whole effect.

    Raises:
        MeasurementError: taking every member away changes nothing, or helps.
    """
    return _shares(roles, roles.lost)


def sufficiency(roles: Roles) -> dict[Member, float]:
    """By member, what it brings alone, likewise (raises MeasurementError, as above)."""
    return _shares(roles, roles.gained)


def _shares(roles: Roles, values: FloatArray) -> dict[Member, float]:
    whole = roles.whole.mean()
    if not whole > 0:
        raise MeasurementError(
            f"taking every member away changes the readout by {-whole:.3g}, so no member has a "
            "share in what is lost: the readout does not rest on what the ablation takes away"
        )
    return dict(zip(roles.members, (values.mean(axis=1) / whole).tolist(), strict=True))
