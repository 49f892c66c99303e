"""What a measure says of itself: the one door through which everything that is gated goes.

A measure is one file that makes a `Measure`, and a line in measures/registry.py or an entry point
of the group `forgetguard.measures`. It returns samples, never verdicts: estimating, judging,
recording, calibrating and wording are the same for all. What needs torch is imported inside its
functions.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from forgetguard.anatomy.members import Member
from forgetguard.measures.samples import TUNED, WHOLE, FloatArray, Key, Samples

if TYPE_CHECKING:
    from forgetguard.anatomy.locate import Anatomy
    from forgetguard.capabilities.capability import EncodedCapability
    from forgetguard.checkpoints.options import LoadOptions
    from forgetguard.checkpoints.spec import CheckpointSpec
    from forgetguard.measures.divergence import Passage
    from forgetguard.measures.documents import Documents
    from forgetguard.measures.prompt_pass import PromptBatch, Reader
    from forgetguard.measures.saved import Saved


T = TypeVar("T")


class Sampled(enum.Enum):
    """What a measure is sampled over."""

    PAIRS = "prompt pairs"
    PROMPTS = "prompts"  # of a gate file, or the clean prompts of a circuit file's pairs
    DOCUMENTS = "documents"  # of lm-eval tasks
    NOTHING = "nothing"  # exact


class Subjects(enum.Enum):
    """Which parts a limit bounds, each of them."""

    WHOLE = "the whole"
    MEMBERS = "each member of the circuit"
    LAYERS = "each layer"
    BANDS = "each third of the layers"
    HEADS = "each head"
    MATRICES = "each matrix"
    TASKS = "each task and metric"


class Estimator(enum.Enum):
    """How samples become a number with bounds.

    A mean, or a ratio of means, of values that do not vary is taken to be exact: for what is a yes
    or a no on each unit (0 on 8 of 8 says little) there is PROPORTION.
    """

    RATIO = "ratio of means"
    MEAN = "mean"
    PROPORTION = "difference of paired proportions"
    SCORES = (
        "difference of paired scores"  # each subject on units of its own; a proportion if 0 or 1
    )
    EXACT = "exact"


@dataclass(frozen=True, slots=True)
class Unit:
    """What a measure's numbers are in, and which limits make sense: from 0 on, and, where `below`
    is given, below it. `hint` says what a limit from there on would mean."""

    name: str
    below: float | None = None
    hint: str = ""


SHARE = Unit("share", 1.0, "at 1 all of it is lost (write 0.10 to allow a loss of 10 %)")
PROPORTION = Unit(
    "share of the pairs", 1.0, "accuracy cannot drop by more (write 0.02 for two points in 100)"
)
NATS = Unit("nats")
RATIO_TO_CONTROL = Unit("ratio to its control")


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One subject's numbers, float64 [n], as the estimator takes them.

    values: numerators of a ratio, or the values of a mean; for a proportion, 1 where it holds now.
    scale: denominators of a ratio; for a proportion, 1 where it held before.
    graded, graded_before: for a proportion, the numbers behind it. Where they are equal on every
        unit the two models compute the same.
    also: for scores, values from -1 to 1, those above 0 being 1, whose mean is held to the limit
        too: the larger of the two counts.
    chance: for scores, what a model that knows nothing reads.
    """

    values: FloatArray
    scale: FloatArray | None = None
    graded: FloatArray | None = None
    graded_before: FloatArray | None = None
    also: FloatArray | None = None
    chance: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A model that is open, with what it is read on.

    passages: one a unit. pairs: the same units with their counterfactuals, where the file gives
    pairs. vocabulary: the number of token ids that all models of the run have; None: not known.
    made: what `once` has made. documents: of lm-eval tasks, where the file gives some. new_task:
    passages of the new task, where it does. beside: further numbers than those that `compare`
    returns, which a measure's `series` take; those of the other model in the role "".
    saved: keeps what depends on this model and the prompts alone.
    """

    role: str
    anatomy: Anatomy
    passages: tuple[Passage, ...]
    pairs: EncodedCapability | None = None
    vocabulary: int | None = None
    made: dict[Any, Any] = field(default_factory=dict)
    documents: Documents | None = None
    beside: dict[Key, FloatArray] = field(default_factory=dict)
    saved: Saved | None = None
    new_task: tuple[Passage, ...] = ()

    def once(self, make: Callable[..., T], *others: Any) -> T:
        """`make(self, *others)`, run once for all measures that ask for the same of this model."""
        key = make, *map(id, others)
        if key not in self.made:
            # The arguments are kept, so that no other object is given their ids.
            self.made[key] = make(self, *others), others
        found: T = self.made[key][0]
        return found

    def seen(self, make: Callable[..., Reader[T]], *others: Any) -> T:
        """What the reader `make(self, *others)`, made once, took of the prompts: in the pass that
        all measures share, where `watch` gave it to that, or in one of its own."""
        from forgetguard.measures.prompt_pass import run

        reader = self.once(make, *others)
        if reader.left:
            run(self.anatomy, self.batches(), [reader])
        return reader.found()

    def batches(self) -> Iterable[PromptBatch]:
        """The prompts, as every pass over them cuts them."""
        from forgetguard.measures.divergence import prompt_batches

        if self.pairs is None:
            return prompt_batches(self.passages)
        return [(one.pairs, one.clean, one.positions) for one in self.pairs.batches]


Patched: TypeAlias = Callable[
    [Sequence[Member], Sequence[Member]], Mapping[str, tuple[Member, ...]]
]
Watch: TypeAlias = "Callable[[Opened, Any], Reader[Any]]"
Read: TypeAlias = Callable[[Opened], Any]
Compare: TypeAlias = Callable[[Opened, Any], Mapping[str, FloatArray]]
OnDisk: TypeAlias = "Callable[[CheckpointSpec, CheckpointSpec, LoadOptions], Mapping[str, float]]"
Select: TypeAlias = Callable[[Samples, str, str], Series]


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """Something that can be gated.

    Attributes:
        key: what a limit is called, such as `kl.forward`.
        about: one line on what it is; tables and --help show it.
        unit, sampled, subjects, estimator: as above. More is worse.
        patched: from (the circuit's members, all heads of the model), the sets of members to patch
            in the base, by subject: all together in one wavefront, from the counterfactual and from
            every other model. Gives IMPORTANCE and DAMAGE of each subject.
        watch: what takes part in the one pass over the prompts: of every other model, with None,
            and of the base, with what was kept of another; `compare` asks for it by `seen`.
        read: run on every other model than the base while it is open; what it returns is kept. By
            default what `watch` took is.
        compare: run while the base is open, with what was kept of another model; returns, by
            subject, float64 [unit] (or, where it is EXACT, one number in an array of shape []).
        on_disk: from two checkpoints that are not loaded, by subject, a number.
        series: picks (samples, subject, role) out of the samples; by default the arrays that
            `compare` returned.
        named: the subjects that there are samples of; by default those that `compare` named.
        loss: per unit, what shows which units were hurt; by default the values of the whole.
        needs_capability: whether the base must be able to do what the prompts ask.
        graded: whether it reads the readout, and so is blind where that is saturated.
        has_chance: of a proportion, whether a model that knows nothing reads the readout's chance
            (else 0): what the base has above it is all that can be lost.
        has_floor: whether limits take `floor:` (gate/family.py).
        by_unit: whether what `compare` returns for a unit depends on that unit alone. Where it does
            not, units cannot be drawn stage by stage, nor some of them be measured again.
        needs_completions: whether every prompt must have one.
        needs_new_task: whether the file must give prompts of the new task.
        takes: what it costs, in words, where that is not what its other fields say.
        source: the distribution that it comes from.
    """

    key: str
    about: str
    unit: Unit
    sampled: Sampled
    subjects: Subjects = Subjects.WHOLE
    estimator: Estimator = Estimator.MEAN
    patched: Patched | None = None
    watch: Watch | None = None
    read: Read | None = None
    compare: Compare | None = None
    on_disk: OnDisk | None = None
    series: Select | None = None
    named: Callable[[Samples], tuple[str, ...]] | None = None
    loss: Callable[[Samples], FloatArray | None] | None = None
    needs_capability: bool = False
    graded: bool = False
    has_chance: bool = False
    has_floor: bool = False
    by_unit: bool = True
    needs_completions: bool = False
    needs_new_task: bool = False
    takes: str = ""
    source: str = field(default="forgetguard", compare=False)

    @property
    def needs_circuit(self) -> bool:
        """Whether it patches members of a circuit."""
        return self.patched is not None

    @property
    def needs_pairs(self) -> bool:
        """Whether prompts without a counterfactual and an answer do not do."""
        return self.sampled is Sampled.PAIRS

    @property
    def needs_prompts(self) -> bool:
        """Whether it runs a model on anything."""
        return self.sampled is not Sampled.NOTHING

    @property
    def needs_all(self) -> bool:
        """Whether its numbers are those of all units together."""
        return not self.by_unit or (self.estimator is Estimator.EXACT and self.compare is not None)

    def select(self, samples: Samples, subject: str = WHOLE, role: str = TUNED) -> Series:
        """One subject's numbers of one model.

        Raises:
            MeasurementError: they were not measured.
        """
        if self.series is not None:
            return self.series(samples, subject, role)
        return Series(samples.need(self.key, subject, role))

    def subjects_in(self, samples: Samples, role: str = TUNED) -> tuple[str, ...]:
        """The parts that there are numbers of."""
        if self.subjects is Subjects.WHOLE:
            return (WHOLE,)
        if self.named is not None:
            return self.named(samples)
        return samples.subjects(self.key, role)

    def hurt(self, samples: Samples) -> FloatArray | None:
        """Per unit, how much was lost; None where that is not known."""
        if self.loss is not None:
            return self.loss(samples)
        if self.subjects is Subjects.WHOLE and self.estimator is not Estimator.EXACT:
            return self.select(samples).values
        return None
