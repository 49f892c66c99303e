"""How large a run of the study is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

ALPHA = 0.05  # one-sided, as the gate's default
LIMITS = 15  # limits in the run that the study imagines
CIRCUIT_LIMIT, HEAD_LIMIT, DROP_LIMIT = 0.10, 0.25, 0.10
HEADS = 8  # of an imagined circuit
FLOOR = 0.10  # the least share of the circuit's importance that a head's damage is held to


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes of a study; the default is what docs/statistics.md shows."""

    pairs: tuple[int, ...] = (16, 32, 64, 128)
    repeated: int = 1  # how many times as many repetitions as by default
    data_sets: int = 2000  # for each scenario and number of pairs, in blocks with their own draws
    block: int = 500
    resamples: int = 1999
    runs: int = 200  # null runs of the tiny family's gate
    judged: int = 30  # runs through the gate's own judge
    families: int = 250  # of heads, to compare corrections
    doses: int = 400  # data sets a dose of a circuit
    head_doses: int = 100  # and of a head
    sequences: int = 2000  # sequential runs a true value
    heads: int = 100  # families of which one head lost much
    guards: int = 500  # data sets for a limit with a guard
    large: int = 2000  # pairs of the large set
    draws: int = 300  # subsamples of it
    detected: int = 60  # subsamples of a damage that is called detectable
    circuits: tuple[str, ...] = field(
        default=("fact_recall", "greater_than", "induction", "ioi", "key_value")
    )
    checkpoints: tuple[str, ...] = ("tiny:sft", "tiny:lora")

    def times(self, repeated: int) -> Settings:
        """The same with as many times the repetitions of everything that is drawn."""
        sizes = {name: repeated * getattr(self, name) for name in _REPETITIONS}
        return replace(self, repeated=repeated, **sizes)


_REPETITIONS = (
    "data_sets",
    "runs",
    "judged",
    "families",
    "doses",
    "head_doses",
    "sequences",
    "heads",
    "guards",
    "draws",
    "detected",
)


SMALL = Settings(
    pairs=(16,),
    data_sets=40,
    block=20,
    resamples=199,
    runs=6,
    judged=2,
    families=6,
    doses=20,
    head_doses=20,
    sequences=20,
    heads=6,
    guards=20,
    large=48,
    draws=6,
    detected=4,
    circuits=("ioi",),
    checkpoints=("tiny:sft",),
)
