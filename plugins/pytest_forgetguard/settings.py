"""The options of one gate run, read, checked and frozen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from forgetguard.checkpoints.options import DTYPES
from pytest_forgetguard.arguments import FLAG
from pytest_forgetguard.options import FORM, RECORDING, ROLES, SWITCHES, VALUES, dest, field_of

BUNDLED = ("core", "all")  # of the bundled circuits that fit the base
MOST_LIMITS = 100_000  # of a run; more are a slip of the keyboard


@dataclass(frozen=True, slots=True)
class Settings:
    """What a gate run was asked to do. Its paths are absolute."""

    base: str
    tuned: str
    reference: str | None = None
    circuits: tuple[Path, ...] = ()
    device: str | None = None
    device_map: str | None = None
    dtype: str = "float32"
    json: Path | None = None
    html: Path | None = None
    seed: int = 0
    family: int | None = None
    prompt_seed: int | None = None
    bundled: str = BUNDLED[0]
    allow_same: bool = False
    trust_remote_code: bool = False
    allow_pickle: bool = False
    merge_adapter: bool = False
    allow_abstain: bool = False
    origin: bool = False
    controls: int = 0
    baseline: Path | None = None
    update: bool = False
    update_new_only: bool = False

    @property
    def recording(self) -> bool:
        """Whether this run records measurements into the baseline."""
        return self.update or self.update_new_only


def read_settings(config: pytest.Config) -> Settings:
    """The settings of a gate run; the command line wins over the ini file.

    Raises:
        pytest.UsageError: an option is unknown, empty, contradicts another, or a checkpoint is
            missing: a half-given gate never becomes no gate.
    """
    given = _given_checkpoints(config)
    checkpoints = {role: given.get(role) or _ini_checkpoint(config, role) for role in ROLES}
    _require_both(config, checkpoints)
    switches = {
        field_of(name): bool(config.getoption(dest(name)) or config.getini(dest(name)))
        for name in SWITCHES
    }
    recording = {field_of(name): bool(config.getoption(dest(name))) for name in RECORDING}
    found = Settings(
        base=checkpoints["base"] or "",
        tuned=checkpoints["tuned"] or "",
        reference=checkpoints["reference"],
        circuits=_circuits(config),
        device=_value(config, "device"),
        device_map=_value(config, "device-map"),
        dtype=_choice(config, "dtype", DTYPES),
        json=_path(config, "json"),
        html=_path(config, "html"),
        seed=_whole(config, "seed") or 0,
        family=_whole(config, "family"),
        prompt_seed=_whole(config, "prompt-seed"),
        bundled=_choice(config, "bundled", BUNDLED),
        controls=_whole(config, "controls") or 0,
        baseline=_path(config, "baseline", beside_ini=True),
        **recording,
        **switches,
    )
    _refuse_contradictions(found)
    return found


def _refuse_contradictions(found: Settings) -> None:
    if found.html is not None and found.html == found.json:
        raise pytest.UsageError(
            f"{FLAG}-html and {FLAG}-json are both {found.html}: give the page another path"
        )
    if found.update and found.update_new_only:
        raise pytest.UsageError(
            f"{FLAG}-update records everything anew and {FLAG}-update-new-only leaves what is "
            "there: give one of them"
        )
    if found.recording and found.baseline is None:
        raise pytest.UsageError(
            f"{FLAG}-update{'-new-only' if found.update_new_only else ''} needs to know what to "
            f"write: give {FLAG}-baseline=PATH"
        )
    if found.family is not None and not 1 <= found.family <= MOST_LIMITS:
        raise pytest.UsageError(
            f"{FLAG}-family: a run has 1 to {MOST_LIMITS} limits, got {found.family}; leave it out "
            "to count those that are collected"
        )


def _given_checkpoints(config: pytest.Config) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in config.getoption("forgetguard") or []:
        if not pair:
            continue
        key, equals, value = pair.partition("=")
        if not equals or key not in ROLES:
            what = f"unknown key {key!r} in {pair!r}" if equals else f"{pair!r} is no KEY=VALUE"
            raise pytest.UsageError(
                f"{FLAG}: {what}; the keys are {', '.join(ROLES)}: {FORM} "
                f"(a path of this form is written ./{pair})"
            )
        _put(found, key, value)
    for role in ROLES:
        for value in config.getoption(dest(role)) or []:
            _put(found, role, value)
    return found


def _put(found: dict[str, str], role: str, value: str) -> None:
    if not value.strip():
        raise pytest.UsageError(
            f"{FLAG}: {role}= is empty (an unset variable?); give a checkpoint: {FORM}"
        )
    if found.setdefault(role, value) != value:
        raise pytest.UsageError(
            f"{FLAG}: {role} was given twice, as {found[role]!r} and as {value!r}; give it once. "
            f"A default that the command line may replace belongs in the ini file: "
            f"{dest(role)} = {found[role]}"
        )


def _require_both(config: pytest.Config, checkpoints: dict[str, str | None]) -> None:
    missing = [role for role in ("base", "tuned") if not checkpoints[role]]
    if not missing:
        return
    given = [f"{role}={value}" for role, value in checkpoints.items() if value]
    given += [
        f"{FLAG}-{name}"
        for name in ("circuits", *VALUES, *SWITCHES, *RECORDING)
        if config.getoption(dest(name)) is not None
    ]
    raise pytest.UsageError(
        f"{FLAG}: {' and '.join(missing)} missing (got {', '.join(given) or 'no KEY=VALUE'}); "
        f"write {FORM}, the KEY=VALUE pairs directly after the flag, or set "
        f"{', '.join(dest(role) for role in missing)} in the ini file"
    )


def _value(config: pytest.Config, name: str) -> str | None:
    value = config.getoption(dest(name))
    if value is None:
        return config.getini(dest(name)) or None
    if not value.strip():
        raise pytest.UsageError(f"{FLAG}-{name} is empty (an unset variable?); give it a value")
    return str(value)


def _ini_checkpoint(config: pytest.Config, role: str) -> str | None:
    """A checkpoint from the ini file; a directory named there is found from any folder."""
    value = str(config.getini(dest(role)) or "").strip()
    if not value:
        return None
    beside = config.inipath.parent / value if config.inipath else None
    return str(beside) if beside is not None and beside.is_dir() else value


def _circuits(config: pytest.Config) -> tuple[Path, ...]:
    given = config.getoption(dest("circuits"))
    if given is None:
        return tuple(config.getini(dest("circuits")) or ())
    if not all(path.strip() for path in given):
        raise pytest.UsageError(f"{FLAG}-circuits is empty (an unset variable?); give it a path")
    return tuple(Path(config.invocation_params.dir, path) for path in given)


def _path(config: pytest.Config, name: str, *, beside_ini: bool = False) -> Path | None:
    """From where pytest was started; what the ini file says, where asked for, from beside it."""
    value = _value(config, name)
    if value is None:
        return None
    ini = config.inipath if beside_ini and config.getoption(dest(name)) is None else None
    return Path(config.invocation_params.dir if ini is None else ini.parent, value)


def _choice(config: pytest.Config, name: str, of: tuple[str, ...]) -> str:
    """One of `of`, by default the first."""
    value = _value(config, name) or of[0]
    if value not in of:
        raise pytest.UsageError(
            f"{FLAG}-{name}: {value!r} is none of {', '.join(of)}; choose one of them"
        )
    return value


def _whole(config: pytest.Config, name: str) -> int | None:
    value = _value(config, name)
    if value is None:
        return None
    if not value.isascii() or not value.isdigit():
        raise pytest.UsageError(f"{FLAG}-{name}: {value!r} is not a whole number from 0 on")
    return int(value)
