"""The settings of one training run: which recipe, on what and how, read from YAML."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from forgetguard.anatomy.members import Head
from forgetguard.errors import SpecificationError
from forgetguard.gate import yaml_lines as lines
from forgetguard.gate.yaml_lines import Problems, line_of

SUPERVISED = ("sft", "sft-kl", "sft-replay", "sft-circuit", "sft-flow")
REINFORCED = ("rl", "sft-rl")
RECIPES = (*SUPERVISED, *REINFORCED)

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Several = Annotated[int, Field(ge=2)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Names = Annotated[tuple[str, ...], Field(min_length=1)]

# Settings that mean something to some recipes alone; every other one belongs to all.
OWN: Mapping[str, tuple[str, ...]] = {
    "start": ("sft-rl",),
    "batch": SUPERVISED,
    "kl_weight": ("sft-kl",),
    "kl_direction": ("sft-kl",),
    "replay_share": ("sft-replay",),
    "circuit_weight": ("sft-circuit",),
    "circuit": ("sft-circuit",),
    "flow_tau": ("sft-flow",),
    **dict.fromkeys(
        ("group", "iterations", "beta", "temperature", "completion_length", "prompts"), REINFORCED
    ),
}
_REQUIRED = ("recipe", "base", "output", "steps", "learning_rate")
# Required where they belong to the recipe at all.
_REQUIRED_OWN = (
    "start", "kl_weight", "replay_share", "circuit_weight", "circuit", "group",
    "completion_length", "prompts",
)  # fmt: skip
_CIRCUIT_FILES = (".circuit.yaml", ".circuit.yml")


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """A LoRA adapter: its rank, its alpha (the update is scaled by alpha / rank), and the names of
    the linear modules that get one."""

    rank: Count
    alpha: Count
    modules: Names


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """One training run, whole; two runs with equal settings, data and base end the same.

    Attributes:
        recipe: one of `RECIPES`.
        base: the checkpoint that is trained, and that regularisers and KL compare with: what
            `checkpoints.spec.resolve` takes. A full checkpoint.
        output: the folder of the run: its checkpoints, its losses and, in `final`, the result.
        steps: updates of the weights.
        learning_rate: its peak.
        seed: of data order, adapter initialisation and sampling.
        batch: rows an update, over all devices (supervised recipes; for the others it is
            `prompts` x `group`).
        micro_batch: rows a device takes at once; what is left of a batch is accumulated. None: all.
        warmup: updates over which the learning rate rises from 0.
        schedule: what it does then: `constant`, `linear` or `cosine` (both to 0).
        weight_decay: AdamW's.
        max_grad_norm: gradients are scaled down to this norm.
        max_length: most tokens of prompt and answer together.
        dtype: of computation. Trained weights are float32 always, so that small updates count;
            under `bfloat16` the frozen weights beneath an adapter are bfloat16.
        device: `cpu` or `cuda`; None: cuda where there is one.
        gradient_checkpointing: trade time for memory.
        adapter: None trains every weight.
        save_every: updates between checkpoints; a multiple of `log_every`.
        log_every: updates that one line of the loss log averages.
        start: for `sft-rl`, the SFT checkpoint where reinforcement starts.
        kl_weight, kl_direction: of the KL term; forward is KL(base || model), reverse
            KL(model || base).
        replay_share: the share of training rows that are replayed, in (0, 1).
        circuit_weight, circuit: of the circuit term, and the heads it holds, as `L2H1`.
        flow_tau: the temperature of the easy-sample weights, in nats; None: the median loss.
        group: completions a prompt.
        iterations: updates on each batch of completions (mu).
        beta: weight of the KL to the base within the reinforcement loss.
        temperature: of sampling.
        completion_length: most tokens of a completion.
        prompts: prompts an update.

    Raises:
        SpecificationError: a value that cannot be, or one that the recipe needs and that is None.
    """

    recipe: str
    base: str
    output: str
    steps: Count
    learning_rate: Positive
    seed: Natural = 0
    batch: Count = 32
    micro_batch: Count | None = None
    warmup: Natural = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    weight_decay: NotNegative = 0.0
    max_grad_norm: Positive = 1.0
    max_length: Several = 512
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: Literal["cpu", "cuda"] | None = None
    gradient_checkpointing: bool = False
    adapter: AdapterSettings | None = None
    save_every: Count = 100
    log_every: Count = 10
    start: str | None = None
    kl_weight: Positive | None = None
    kl_direction: Literal["forward", "reverse"] = "forward"
    replay_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    circuit_weight: Positive | None = None
    circuit: Names | None = None
    flow_tau: Positive | None = None
    group: Several | None = None
    iterations: Count = 1
    beta: NotNegative = 0.0
    temperature: Positive = 1.0
    completion_length: Count | None = None
    prompts: Count | None = None

    def __post_init__(self) -> None:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        found = [f"{key}: {message}" for key, message in _impossible(values)]
        if found:
            raise SpecificationError(f"settings of {self.recipe}: " + "; ".join(found))

    @property
    def rows(self) -> int:
        """Rows an update over all devices; completions, where they are sampled."""
        sampled = self.recipe in REINFORCED
        return (self.prompts or 0) * (self.group or 0) if sampled else self.batch

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads of `circuit`, in its order."""
        return tuple(Head.parse(name) for name in self.circuit or ())


def belongs(key: str, recipe: str) -> bool:
    """Whether the setting `key` means something to `recipe`."""
    return recipe in OWN.get(key, RECIPES)


def as_dict(settings: TrainingSettings) -> dict[str, Any]:
    """The settings that mean something to the recipe, in plain values that JSON takes."""
    values: dict[str, Any] = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if not belongs(field.name, settings.recipe):
            continue
        if isinstance(value, AdapterSettings):
            value = {"rank": value.rank, "alpha": value.alpha, "modules": list(value.modules)}
        values[field.name] = list(value) if isinstance(value, tuple) else value
    return values


# --- reading ---------------------------------------------------------------------------------


def read_settings(
    source: str | Path, overrides: Sequence[str] = (), *, file: str = "settings"
) -> TrainingSettings:
    """Settings from YAML, some of them overridden.

    Args:
        source: the path of a YAML file (a `Path`), or YAML itself (a `str`).
        overrides: `key=value` each, the value in YAML; `adapter.rank=8` changes one setting of the
            adapter, `adapter=null` takes it away. A circuit may be a list of heads or the path of
            a `.circuit.yaml` file: beside the settings file there, from the working folder here.
        file: what messages call YAML that came from no file.

    Raises:
        SpecificationError: everything that is wrong, one `file:line: what` a line.
    """
    path = source if isinstance(source, Path) else None
    text = source if isinstance(source, str) else lines.read_text(source, "settings file")
    name = str(path) if path is not None else file
    problems = Problems(name)
    given = _from_text(text, path.parent if path is not None else Path(), problems)
    given |= _from_overrides(overrides)
    return _build(given, problems)


@dataclass(frozen=True, slots=True)
class _Given:
    """A value as it was written, where, and the folder that its paths begin in."""

    node: yaml.Node
    place: str
    folder: Path


def _from_text(text: str, folder: Path, problems: Problems) -> dict[str, _Given]:
    name = problems.file
    root = lines.compose(text, name)
    if root is None:
        raise SpecificationError(f"{name}:1: the file is empty: write e.g. recipe: sft")
    read = lines.mapping(root, "", problems, known=_KEYS)
    given: dict[str, _Given] = {}
    for key, node in read.items():
        given[key] = _Given(node, f"{name}:{line_of(node)}", folder)
        if key == "adapter" and not lines.is_null(node):
            inner = lines.mapping(node, "adapter", problems, known=_ADAPTER_KEYS)
            given |= {
                f"adapter.{one}": _Given(value, f"{name}:{line_of(value)}", folder)
                for one, value in inner.items()
            }
    return given


def _from_overrides(overrides: Sequence[str]) -> dict[str, _Given]:
    given: dict[str, _Given] = {}
    known = (*_KEYS, *(f"adapter.{key}" for key in _ADAPTER_KEYS))
    for written in overrides:
        key, equals, value = written.partition("=")
        place = f"override {written!r}"
        if not equals:
            raise SpecificationError(f"{place}: write key=value, e.g. steps=100")
        if key not in known:
            raise SpecificationError(f"{place}: unknown key {key!r}: {lines.nearest(key, known)}")
        if key in given:
            raise SpecificationError(f"{place}: {key!r} is given twice: keep one")
        node = lines.compose(value, place)
        given[key] = _Given(node or lines.compose("null", place), place, Path())  # type: ignore[arg-type]
    return given


def _build(given: dict[str, _Given], problems: Problems) -> TrainingSettings:
    first_line = f"{problems.file}:1"
    found = str(problems).split("\n") if problems else []
    values: dict[str, Any] = {}
    for key, one in given.items():
        if key in OWN and lines.is_null(one.node):
            continue  # as if it had not been given: an override takes it away so
        if key != "adapter" and not key.startswith("adapter."):
            values[key] = _read(key, one, found)
    values["adapter"] = _read_adapter(given, found)
    recipe = values.get("recipe")
    if recipe in RECIPES:
        foreign = [key for key in values if not belongs(key, recipe)]
        found += [
            f"{given[key].place}: {key!r} is no setting of {recipe}, but of "
            f"{', '.join(OWN[key])}: remove it (an override {key}=null does)"
            for key in foreign
        ]
        values = {key: value for key, value in values.items() if belongs(key, recipe)}
    missing = [key for key in _REQUIRED if key not in given]
    found += [f"{first_line}: {key!r} is missing: add it" for key in missing]
    if not found:
        defaults = {one.name: one.default for one in fields(TrainingSettings)}
        for key, message in _impossible({**defaults, **values}):
            place = given[key].place if key in given else first_line
            found.append(f"{place}: {key}: {message}")
    if found:
        raise SpecificationError("\n".join(found))
    return TrainingSettings(**values)


class _At(Problems):
    """Problems of one value, told under the place where it was written."""

    def __init__(self, place: str, told: list[str]) -> None:
        super().__init__(place)
        self._told = told

    def add(self, at: int | yaml.Node, message: str) -> None:
        self._told.append(f"{self.file}: {message}")


def _read(key: str, one: _Given, found: list[str]) -> Any:
    """One value; what is wrong with it goes to `found`."""
    problems = _At(one.place, found)
    if key == "circuit":
        return _read_circuit(one, problems)
    if key in _NULLABLE and lines.is_null(one.node):
        return None
    return _READERS[_plain_type(key)](one.node, key, problems)


def _read_adapter(given: Mapping[str, _Given], found: list[str]) -> AdapterSettings | None:
    parts = {key: given[f"adapter.{key}"] for key in _ADAPTER_KEYS if f"adapter.{key}" in given}
    whole = given.get("adapter")
    if whole is not None and whole.place.startswith("override"):
        if lines.is_null(whole.node):
            return None
        at = _At(whole.place, found)
        inner = lines.mapping(whole.node, "adapter", at, known=_ADAPTER_KEYS)
        parts |= {key: _Given(node, whole.place, whole.folder) for key, node in inner.items()}
    if not parts:
        return None
    missing = [key for key in _ADAPTER_KEYS if key not in parts]
    if missing:
        place = next(iter(parts.values())).place
        lacking = ", ".join(missing)
        found.append(f"{place}: adapter: {lacking} missing: give rank, alpha and modules")
        return None
    before = len(found)
    read = {key: _read(f"adapter.{key}", one, found) for key, one in parts.items()}
    return AdapterSettings(**read) if len(found) == before else None


def _read_circuit(one: _Given, problems: Problems) -> tuple[str, ...] | None:
    node = one.node
    if lines.is_null(node):
        return None
    if isinstance(node, yaml.ScalarNode) and str(node.value).endswith(_CIRCUIT_FILES):
        return _heads_of_file(one.folder / Path(node.value).expanduser(), problems, line_of(node))
    return _names(node, "circuit", problems, "[L2H1, L0H4], or a .circuit.yaml file")


def _heads_of_file(path: Path, problems: Problems, line: int) -> tuple[str, ...] | None:
    from forgetguard.gate.schema import load_gate_file

    try:
        circuit = load_gate_file(path)
    except SpecificationError as error:
        problems.add(line, f"circuit: {error}")
        return None
    if circuit.auto:
        problems.add(line, f"circuit: {path} says auto, which names no heads: give their names")
    return tuple(str(head) for head in circuit.members)


def _names(
    node: yaml.Node, label: str, problems: Problems, example: str = "[q_proj, v_proj]"
) -> tuple[str, ...] | None:
    items = lines.sequence(node, label, example, problems)
    names = [lines.text(item, f"{label}: a name", problems) for item in items]
    return tuple(name for name in names if name is not None)


def _whole(node: yaml.Node, label: str, problems: Problems) -> int | None:
    return lines.integer(node, label, f"{label}: 8", problems)


def _number(node: yaml.Node, label: str, problems: Problems) -> float | None:
    return lines.number(node, label, f"{label}: 0.1", problems)


_READERS: Mapping[type, Callable[[yaml.Node, str, Problems], Any]] = {
    str: lines.text,
    int: _whole,
    float: _number,
    bool: lines.flag,
    tuple: _names,
}
_KEYS = tuple(field.name for field in fields(TrainingSettings))
_ADAPTER_KEYS = tuple(field.name for field in fields(AdapterSettings))
_NULLABLE = frozenset(
    {field.name for field in fields(TrainingSettings) if field.default is None} - {"adapter"}
)


# --- what cannot be --------------------------------------------------------------------------


def _impossible(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every setting whose value cannot be, with what is wrong with it and what to write."""
    recipe = values["recipe"]
    if recipe not in RECIPES:
        yield "recipe", f"unknown recipe {recipe!r}: {lines.nearest(str(recipe), RECIPES)}"
        return
    for key in _REQUIRED_OWN:
        if belongs(key, recipe) and values[key] is None:
            yield key, f"{recipe} needs it: add it"
    own = {key: value for key, value in values.items() if belongs(key, recipe)}
    if (adapter := own.pop("adapter")) is not None:
        own |= {f"adapter.{key}": getattr(adapter, key) for key in _ADAPTER_KEYS}
    for key, value in own.items():
        try:
            _type(key).validate_python(value)
        except ValidationError as error:
            yield key, f"{error.errors(include_url=False)[0]['msg']}, got {value!r}"
    if values["save_every"] > 0 and values["log_every"] > 0 and (
        values["save_every"] % values["log_every"]
    ):  # fmt: skip
        yield (
            "save_every",
            (
                f"must be a multiple of log_every ({values['log_every']}), so a resumed run logs "
                f"the same losses, got {values['save_every']}"
            ),
        )
    if values["warmup"] > values["steps"]:
        yield "warmup", f"must be at most steps ({values['steps']}), got {values['warmup']}"
    yield from _impossible_circuit(values["circuit"] if recipe == "sft-circuit" else None)


def _hint(key: str, *, whole: bool) -> Any:
    """How a setting is annotated: `whole`, or without its bounds."""
    of, _, name = key.rpartition(".")
    return get_type_hints(AdapterSettings if of else TrainingSettings, include_extras=whole)[name]


@functools.cache
def _type(key: str) -> TypeAdapter[Any]:
    return TypeAdapter(_hint(key, whole=True))


def _plain_type(key: str) -> type:
    """str, int, float, bool or tuple."""
    hint = _hint(key, whole=False)
    alternatives = [one for one in get_args(hint) if one is not NoneType]
    if NoneType in get_args(hint):
        hint = alternatives[0]
    found: type = str if get_origin(hint) is Literal else get_origin(hint) or hint
    return found


def _impossible_circuit(names: tuple[str, ...] | None) -> Iterator[tuple[str, str]]:
    for name in names or ():
        try:
            Head.parse(name)
        except SpecificationError as error:
            yield "circuit", f"{error} (the term holds attention heads only)"
    for name in sorted({name for name in names or () if (names or ()).count(name) > 1}):
        yield "circuit", f"{name} is given twice: keep one"
