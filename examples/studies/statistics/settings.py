"""How large a run of the study is."""

from __future__ import annotations

from dataclasses import dataclass, field

ALPHA = 0.05  # one-sided, as the gate's default
LIMITS = 15  # limits in the run that the study imagines
CIRCUIT_LIMIT, HEAD_LIMIT, DROP_LIMIT = 0.10, 0.25, 0.10
HEADS = 8  # of an imagined circuit
FLOOR = 0.10  # the least share of the circuit's importance that a head's damage is held to


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes of a study; the default is what docs/statistics.md shows."""

    pairs: tuple[int, ...] = (16, 32, 64, 128)
    data_sets: int = (
        2000  # for each scenario and number of pairs, in blocks with draws of their own
    )
    block: int = 500
    resamples: int = 1999
    runs: int = 2000  # null runs of a whole gate
    families: int = 1000  # of heads, to compare corrections
    doses: int = 400  # data sets a dose
    sequences: int = 2000  # sequential runs a true value
    large: int = 2000  # pairs of the large set
    draws: int = 300  # subsamples of it
    circuits: tuple[str, ...] = field(
        default=("fact_recall", "greater_than", "induction", "ioi", "key_value")
    )
    checkpoints: tuple[str, ...] = ("tiny:sft", "tiny:lora")


SMALL = Settings(
    pairs=(16,),
    data_sets=40,
    block=20,
    resamples=199,
    runs=6,
    families=6,
    doses=20,
    sequences=20,
    large=48,
    draws=6,
    circuits=("ioi",),
    checkpoints=("tiny:sft",),
)
