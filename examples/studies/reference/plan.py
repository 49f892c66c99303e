"""From a preset to a plan: which runs there are, and on what they are measured."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml

from forgetguard.checkpoints.options import LoadOptions
from forgetguard.errors import SpecificationError
from forgetguard.gate import yaml_lines as lines
from forgetguard.gate.declaration import GateSpec
from forgetguard.gate.schema import load_gate_file
from forgetguard.gate.yaml_lines import Problems
from forgetguard.recipes.training.settings import (
    RECIPES,
    REINFORCED,
    TrainingSettings,
    belongs,
    read_settings,
)

PRESETS = Path(__file__).parent / "presets"
STAGES = ("train", "measure", "report")
_CIRCUITS = "forgetguard_circuits"
_CIRCUIT_FILE = ".circuit.yaml"
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+")
_Section = TypeVar("_Section")


@dataclass(frozen=True, slots=True)
class Data:
    """The new task.

    Attributes:
        source: `substances` (the tiny family's synthetic task) or `sciknoweval` (`files`).
        files: JSONL files, or folders of them.
        variant: of the substances, `open` or `single`.
        train, validation, evaluation: questions. Matched scores are chosen on validation and
            reported on evaluation.
        seed: of the evaluation questions, or of the files' split.
        completion_length: most tokens of a greedy answer.
    """

    train: int
    validation: int
    evaluation: int
    completion_length: int
    source: str = "substances"
    files: tuple[str, ...] = ()
    variant: str = "open"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Prior:
    """What must be kept: prompts of tasks, `count` each. For the tiny base they are drawn from what
    it was never trained on."""

    tasks: tuple[str, ...]
    count: int
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Circuits:
    """Bundled circuits by name, or circuit files; `pairs` of their prompts at most."""

    names: tuple[str, ...]
    pairs: int


@dataclass(frozen=True, slots=True)
class Masks:
    """On which tasks SFT and RL are compared by learned masks (none: not at all), on how many
    prompt pairs, and with which seeds of the masks; `compared` are pairs of groups, as in the
    plan, all of the plan's where it is empty."""

    tasks: tuple[str, ...] = ()
    pairs: int = 128
    seeds: tuple[int, ...] = (0, 1)
    compared: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """One training run: `after` is the run whose checkpoint it starts from, at step `start`."""

    name: str
    recipe: str
    learning_rate: float
    seed: int
    settings: TrainingSettings
    after: str | None = None
    start: int | None = None

    @property
    def folder(self) -> Path:
        """Where it trains."""
        return Path(self.settings.output)

    @property
    def cost(self) -> int:
        """To start the longest first; a step that samples takes about eight that do not."""
        return self.settings.steps * (8 if self.recipe in REINFORCED else 1)


@dataclass(frozen=True, slots=True)
class Plan:
    """All that the reference suite does.

    Attributes:
        target: the new-task score that recipes are compared at; None: the highest that SFT and RL
            reach on every seed.
        tolerance: how far from it still counts as matched.
        compared: the pairs of groups that claims about SFT and RL are judged on, one pair after
            the other; a group is a recipe, or `sft-rl from STEP`.
        threads: of the processor a process may use; None: as many as torch likes.
    """

    preset: str
    out: Path
    base: str
    seeds: tuple[int, ...]
    recipes: tuple[str, ...]
    target: float | None
    tolerance: float
    compared: tuple[tuple[str, str], ...]
    threads: int | None
    loading: LoadOptions
    data: Data
    prior: Prior
    circuits: Circuits
    masks: Masks
    runs: tuple[Run, ...]

    def run(self, name: str) -> Run:
        """The run of that name (raises KeyError)."""
        return {one.name: one for one in self.runs}[name]


def presets() -> tuple[str, ...]:
    """The names of the bundled presets."""
    return tuple(sorted(one.stem for one in PRESETS.glob("*.yaml")))


def read_plan(preset: str, overrides: Sequence[str] = (), *, out: Path) -> Plan:
    """The plan of a bundled preset, or of a YAML file like one.

    Args:
        overrides: `KEY=VALUE` each: `seeds=0,1,2`, `sft.steps=100`, `data.train=400`; settings
            under `all` hold for every recipe that they mean something to.
        out: where the suite writes.

    Raises:
        SpecificationError: no such preset, an unknown key, or a value that cannot be.
    """
    content = _read(preset)
    for written in overrides:
        _override(content, written)
    _check_keys(content, preset)
    where = f"preset {preset}"
    recipes = _texts(content["recipes"], f"{where}: recipes")
    for name in recipes:
        if name not in RECIPES:
            raise SpecificationError(f"{where}: recipes: {name!r}: {lines.nearest(name, RECIPES)}")
    seeds = _wholes(content["seeds"], f"{where}: seeds")
    circuits = _section(Circuits, content["circuits"], f"{where}: circuits")
    plan = Plan(
        preset=preset,
        out=out,
        base=str(content["base"]),
        seeds=seeds,
        recipes=recipes,
        target=_target(content["target"], where),
        tolerance=_number(content["tolerance"], f"{where}: tolerance"),
        compared=_compared(content.get("compared"), where),
        threads=_optional_whole(content.get("threads"), f"{where}: threads"),
        loading=LoadOptions(
            dtype=str(content.get("dtype", "float32")), device=content.get("device")
        ),
        data=_section(Data, content["data"], f"{where}: data"),
        prior=_section(Prior, content["prior"], f"{where}: prior"),
        circuits=circuits,
        masks=_section(Masks, content.get("comparison") or {}, f"{where}: comparison"),
        runs=(),
    )
    _check(plan, where)
    runs = [run for name in recipes for run in _runs(plan, name, content)]
    plan = replace(plan, runs=_ordered(runs))
    _check_compared(plan, where)
    return plan


def described(plan: Plan) -> dict[str, Any]:
    """The plan but its runs and folders, in plain values."""
    return {
        "preset": plan.preset,
        "base": plan.base,
        "seeds": list(plan.seeds),
        "recipes": list(plan.recipes),
        "target": plan.target,
        "tolerance": plan.tolerance,
        "compared": [list(pair) for pair in plan.compared],
        "dtype": plan.loading.dtype,
        **{
            name: {key: _listed(one) for key, one in asdict(part).items()}
            for name, part in (
                ("data", plan.data),
                ("prior", plan.prior),
                ("circuits", plan.circuits),
                ("comparison", plan.masks),
            )
        },
    }


def circuit_specs(names: Sequence[str]) -> list[GateSpec]:
    """Circuits by bundled name, or from files (raises SpecificationError)."""
    return [load_gate_file(circuit_path(name)) for name in names]


def circuit_path(name: str) -> Path:
    """The circuit file of a bundled name, or the file that is named.

    Raises:
        SpecificationError: there is neither.
    """
    bundled = Path(str(resources.files(_CIRCUITS) / f"{name}{_CIRCUIT_FILE}"))
    if bundled.is_file():
        return bundled
    path = Path(name).expanduser()
    if path.is_file():
        return path
    known = sorted(one.name.removesuffix(_CIRCUIT_FILE) for one in _bundled())
    raise SpecificationError(
        f"circuits.names: {name!r} is neither a file nor a bundled circuit: "
        f"{lines.nearest(name, known)}"
    )


def _bundled() -> list[Path]:
    folder = Path(str(resources.files(_CIRCUITS)))
    return list(folder.glob(f"*{_CIRCUIT_FILE}"))


# --- reading ---------------------------------------------------------------------------------

_TOP = (
    "base", "seeds", "recipes", "threads", "dtype", "device", "target", "tolerance", "compared",
)  # fmt: skip
_SECTIONS: Mapping[str, type] = {
    "data": Data,
    "prior": Prior,
    "circuits": Circuits,
    "comparison": Masks,
}
_OPTIONAL = frozenset({"compared", "threads", "dtype", "device", "comparison", "all"})
# What a recipe's section may hold beside the settings of a run; the suite itself sets the others.
_OWN_KEYS = ("learning_rates", "start_rate", "start_steps")
_NOT_GIVEN = frozenset({"recipe", "base", "output", "seed", "learning_rate", "start", "circuit"})
_SETTINGS = tuple(
    field.name for field in fields(TrainingSettings) if field.name not in _NOT_GIVEN
)  # fmt: skip


def _read(preset: str) -> dict[str, Any]:
    path = Path(preset).expanduser()
    if preset in presets():
        text, file = (PRESETS / f"{preset}.yaml").read_text("utf-8"), f"preset {preset}"
    elif path.suffix in (".yaml", ".yml"):
        text, file = lines.read_text(path, "preset"), str(path)
    else:
        raise SpecificationError(
            f"no preset {preset!r}: {lines.nearest(preset, presets())}; or give a .yaml file"
        )
    root = lines.compose(text, file)
    if root is None:
        raise SpecificationError(
            f"{file}:1: the file is empty: copy a bundled preset and change it"
        )
    problems = Problems(file)
    content = lines.plain_value(root, "preset", problems)
    problems.raise_any()
    if not isinstance(content, dict):
        raise SpecificationError(f"{file}:1: a preset must be a mapping, got {content!r:.60}")
    return {str(key): _numbers(value) for key, value in content.items()}


def _numbers(value: Any) -> Any:
    """YAML 1.1 reads 1e-4 as text."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    if isinstance(value, dict):
        return {str(key): _numbers(one) for key, one in value.items()}
    return [_numbers(one) for one in value] if isinstance(value, list) else value


def _override(content: dict[str, Any], written: str) -> None:
    """Put one `KEY=VALUE` into the preset's content."""
    key, equals, text = written.partition("=")
    if not equals or not key:
        raise SpecificationError(f"{written!r}: write KEY=VALUE, e.g. sft.steps=100")
    try:
        value = _numbers(yaml.safe_load(text))
    except yaml.YAMLError:
        raise SpecificationError(f"{written!r}: the value is not YAML") from None
    section, dot, inner = key.partition(".")
    if dot and section in (*_SECTIONS, *RECIPES, "all"):
        part = content.setdefault(section, {})
        content[section] = {**(part or {}), inner: value}
    elif not dot and section in _TOP:
        content[section] = value
    else:
        known = (*_TOP, *(f"{one}.…" for one in (*_SECTIONS, "all", *RECIPES)))
        raise SpecificationError(f"{written!r}: unknown key {key!r}: {lines.nearest(key, known)}")


def _check_keys(content: Mapping[str, Any], preset: str) -> None:
    known = (*_TOP, *_SECTIONS, "all", *RECIPES)
    for key in content:
        if key not in known:
            raise SpecificationError(f"preset {preset}: {key!r}: {lines.nearest(key, known)}")
    missing = [key for key in (*_TOP, *_SECTIONS) if key not in content and key not in _OPTIONAL]
    if missing:
        raise SpecificationError(f"preset {preset}: {', '.join(missing)} missing: add it")
    for recipe in (*RECIPES, "all"):
        part = content.get(recipe) or {}
        allowed = _SETTINGS if recipe == "all" else (*_OWN_KEYS, *_SETTINGS)
        for key in part:
            if key not in allowed:
                raise SpecificationError(
                    f"preset {preset}: {recipe}.{key}: unknown: {lines.nearest(key, allowed)}"
                )


def _section(kind: type[_Section], given: Any, where: str) -> _Section:
    """A section as its dataclass, checked by the names of its fields' types."""
    if not isinstance(given, dict):
        raise SpecificationError(f"{where}: must be a mapping, got {given!r:.60}")
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for key in given:
        if key not in known:
            raise SpecificationError(f"{where}.{key}: unknown: {lines.nearest(key, known)}")
    values = {}
    for name, field in known.items():
        if name in given:
            values[name] = _KINDS[str(field.type)](given[name], f"{where}.{name}")
        elif field.default is MISSING:
            raise SpecificationError(f"{where}.{name} is missing: add it")
    return kind(**values)


def _whole(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise SpecificationError(f"{where}: must be a whole number from 0 on, got {value!r:.60}")
    return value


def _optional_whole(value: Any, where: str) -> int | None:
    return None if value is None else _whole(value, where)


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SpecificationError(f"{where}: must be a number, got {value!r:.60}")
    return float(value)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise SpecificationError(f"{where}: must be text, got {value!r:.60}")
    return value


def _items(value: Any) -> list[Any]:
    """A list, or what commas part: `seeds=0,1,2`."""
    if isinstance(value, list):
        return value
    if isinstance(value, str):
        return [_numbers(yaml.safe_load(one)) for one in value.split(",") if one.strip()]
    return [] if value is None else [value]


def _texts(value: Any, where: str) -> tuple[str, ...]:
    return tuple(_text(one, where) for one in _items(value))


def _wholes(value: Any, where: str) -> tuple[int, ...]:
    found = tuple(_whole(one, where) for one in _items(value))
    if len(set(found)) < len(found):
        raise SpecificationError(f"{where}: {found} names one twice: give each once")
    return found


_KINDS: Mapping[str, Any] = {
    "int": _whole,
    "str": _text,
    "tuple[str, ...]": _texts,
    "tuple[int, ...]": _wholes,
}


def _target(value: Any, where: str) -> float | None:
    if value == "auto":
        return None
    found = _number(value, f"{where}: target")
    if not 0 < found <= 1:
        raise SpecificationError(f"{where}: target: give auto, or a score from 0 to 1, got {found}")
    return found


def _compared(value: Any, where: str) -> tuple[tuple[str, str], ...]:
    given = ("sft vs rl",) if value is None else _texts(value, f"{where}: compared")
    pairs = []
    for one in given:
        first, versus, second = (part.strip() for part in one.partition(" vs "))
        if not versus or not first or not second or first == second:
            raise SpecificationError(
                f"{where}: compared: give two groups, as sft vs rl, got {one!r}"
            )
        pairs.append((first, second))
    return tuple(pairs)


def _check(plan: Plan, where: str) -> None:
    if not plan.seeds or not plan.recipes:
        raise SpecificationError(f"{where}: seeds and recipes: give one or more of each")
    if plan.data.source not in ("substances", "sciknoweval"):
        raise SpecificationError(
            f"{where}: data.source is {plan.data.source!r}: substances or sciknoweval"
        )
    if plan.data.source == "sciknoweval" and not plan.data.files:
        raise SpecificationError(
            f"{where}: data.files names no questions: give data.files=FOLDER, with JSONL files in "
            "the SciKnowEval format"
        )
    for name in ("train", "validation", "evaluation", "completion_length"):
        if getattr(plan.data, name) < 1:
            raise SpecificationError(f"{where}: data.{name}: must be 1 or more")
    for name in plan.circuits.names:
        circuit_path(name)


# --- runs ------------------------------------------------------------------------------------


def _runs(plan: Plan, recipe: str, content: Mapping[str, Any]) -> list[Run]:
    """Recipe x learning rate x start x seed."""
    where = f"preset {plan.preset}: {recipe}"
    own = dict(content.get(recipe) or {})
    rates = [_number(one, f"{where}.learning_rates") for one in _items(own.get("learning_rates"))]
    if not rates:
        raise SpecificationError(f"{where}.learning_rates: give one or more, e.g. [0.001]")
    values = _settings_of(plan, recipe, content)
    starts: Sequence[tuple[str, int] | None] = [None]
    if recipe == "sft-rl":
        starts = _starts(content, where)
    runs = []
    for rate in rates:
        for start in starts:
            for seed in plan.seeds:
                runs.append(_run(plan, recipe, rate, seed, start, values))
    return runs


def _settings_of(plan: Plan, recipe: str, content: Mapping[str, Any]) -> dict[str, Any]:
    common = {
        key: value for key, value in (content.get("all") or {}).items() if belongs(key, recipe)
    }
    own = {k: v for k, v in (content.get(recipe) or {}).items() if k not in _OWN_KEYS}
    values = {"device": plan.loading.device, **common, **own}
    if recipe == "sft-circuit":
        specs = circuit_specs(plan.circuits.names)
        heads = sorted({head for spec in specs for head in spec.members})
        if not heads:
            raise SpecificationError(
                f"preset {plan.preset}: sft-circuit: the circuits ({', '.join(plan.circuits.names)}"
                ") name no heads to hold: give circuits.names files that do (forgetguard discover "
                "writes them), or leave sft-circuit out of recipes"
            )
        values["circuit"] = [str(head) for head in heads]
    return {key: value for key, value in values.items() if value is not None}


def _starts(content: Mapping[str, Any], where: str) -> list[tuple[str, int]]:
    """The SFT run (but its seed) and step that reinforcement starts from."""
    own, sft = content.get("sft-rl") or {}, content.get("sft") or {}
    rate = _number(own.get("start_rate"), f"{where}.start_rate")
    rates = [float(one) for one in _items(sft.get("learning_rates"))]
    if "sft" not in _items(content["recipes"]) or rate not in rates:
        raise SpecificationError(
            f"{where}.start_rate: {rate:g} is none of sft's learning rates "
            f"({', '.join(f'{one:g}' for one in rates)}), or sft is not among the recipes"
        )
    steps, every = int(sft.get("steps", 0)), int(sft.get("save_every", 0) or 1)
    found = _wholes(own.get("start_steps"), f"{where}.start_steps") or (steps,)
    for step in found:
        if step != steps and (step % every or not 0 < step < steps):
            raise SpecificationError(
                f"{where}.start_steps: sft saves every {every} of {steps} steps, not at {step}"
            )
    return [(_name("sft", rate, None), step) for step in found]


def _run(
    plan: Plan,
    recipe: str,
    rate: float,
    seed: int,
    start: tuple[str, int] | None,
    values: Mapping[str, Any],
) -> Run:
    step = None if start is None else start[1]
    name = f"{_name(recipe, rate, step)}-seed{seed}"
    content: dict[str, Any] = {
        **values,
        "recipe": recipe,
        "base": plan.base,
        "output": str(plan.out / "runs" / name),
        "learning_rate": rate,
        "seed": seed,
    }
    after = None if start is None else f"{start[0]}-seed{seed}"
    if after is not None:
        content["start"] = str(plan.out / "runs" / after / f"checkpoint-{step}")
    settings = read_settings(yaml.safe_dump(content), file=f"preset {plan.preset}: {name}")
    return Run(name, recipe, rate, seed, settings, after, step)


def _name(recipe: str, rate: float, start: int | None) -> str:
    return f"{recipe}-{rate:g}" + ("" if start is None else f"-from{start}")


def masked(plan: Plan) -> tuple[tuple[str, str], ...]:
    """The pairs of groups that are compared by masks."""
    wanted = plan.masks.compared
    return tuple(pair for pair in plan.compared if not wanted or " vs ".join(pair) in wanted)


def _check_compared(plan: Plan, where: str) -> None:
    """A group that another plan has is left out quietly: `recipes=sft` is a study too."""
    recipes = {one.partition(" from ")[0] for pair in plan.compared for one in pair}
    for name in sorted(recipes - set(RECIPES)):
        raise SpecificationError(f"{where}: compared: {name!r}: {lines.nearest(name, RECIPES)}")
    known = [" vs ".join(pair) for pair in plan.compared]
    for name in plan.masks.compared:
        if name not in known:
            raise SpecificationError(
                f"{where}: comparison.compared: {name!r}: {lines.nearest(name, known)}"
            )


def _ordered(runs: Sequence[Run]) -> tuple[Run, ...]:
    """Those that others start from first."""
    return tuple(sorted(runs, key=lambda run: run.after is not None))


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
