"""The file of a sweep: which command runs, with which settings, and the jobs that come of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from msgspec import field

from ..base.errors import ProbeError, nearest, whole
from ..base.files import as_path, read_bytes, safe_name
from ..base.formats.schema import Schema, conform
from ..base.formats.types import Name

# Those that take a generator and write into a folder.
COMMANDS = ("exchange", "fidelity", "influence", "invariance", "modules", "report", "robustness", "spectral")
_LARGEST_PLAN = 2**20  # bytes
_MOST_JOBS = 100_000
_OURS = ("out", "force", "no-progress", "checkpoint", "help")  # options that a sweep sets itself
PROGRESS = "progress"  # of a job whose command can resume, in its folder
Value = str | int | float | bool


class Resources(Schema):
    """What a job takes, as Slurm counts it; on one machine only ``gpus`` and ``minutes`` matter."""

    minutes: int = 7 * 24 * 60
    gpus: int = 0
    cpus: int = 1
    memory_gb: float | None = None
    partition: Name | None = None


class _File(Schema):
    command: Name
    settings: dict[Name, Value | list[Value]] = field(default_factory=dict)
    runs: list[dict[Name, Value | list[Value]]] = field(default_factory=list)
    out: Name = "out/sweep"
    workers: int = 2
    cluster: Name | None = None
    resources: Resources = field(default_factory=Resources)


@dataclass(frozen=True)
class Job:
    """One run of the command.

    Attributes:
        name: of its folder, from the settings that differ between jobs.
        settings: by the names of options, and ``generator``.
    """

    name: str
    command: str
    settings: Mapping[str, Value]

    def arguments(self, folder: Path, options: frozenset[str], *, force: bool) -> list[str]:
        """What is typed to run it with its results in ``folder``; ``options`` are those that the command has."""
        typed = [self.command, f"--out={folder}", "--no-progress"]
        typed += ["--force"] * force
        typed += [f"--checkpoint={folder / PROGRESS}"] * ("checkpoint" in options)
        for name, value in self.settings.items():
            if name != "generator" and value is not False:
                typed.append(f"--{name}" if value is True else f"--{name}={value}")
        return [*typed, "--", str(self.settings["generator"])]


@dataclass(frozen=True)
class Plan:
    """A sweep as its file asks for it, checked before anything runs."""

    jobs: tuple[Job, ...]
    options: frozenset[str]
    out: Path
    workers: int
    cluster: str | None
    resources: Resources


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """The plan of a TOML file; a ProbeError says what is wrong with it."""
    try:
        content = tomllib.loads(read_bytes(path, most=_LARGEST_PLAN).decode("utf-8"))
        file = conform(content, _File)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProbeError(f"{path} is no TOML file ({error}); see the example on the page about scaling") from error
    except ValueError as error:
        raise ProbeError(f"{path}: {error}; see the example on the page about scaling") from error
    if file.command not in COMMANDS:
        raise ProbeError(f"{path} asks for command {file.command!r}; nearest: {nearest(file.command, COMMANDS)}")
    options = _options_of(file.command)
    runs = [{_dashed(k): v for k, v in (file.settings | run).items()} for run in file.runs or [{}]]
    for name in dict.fromkeys(name for run in runs for name in run):
        _require_known(name, file.command, options)
    chosen = [combination for run in runs for combination in _combinations(run, path)]
    return Plan(
        jobs=_named(file.command, chosen, path),
        options=options,
        out=as_path(file.out),
        workers=whole(file.workers, f"workers in {path}", 1),
        cluster=file.cluster,
        resources=file.resources,
    )


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _options_of(command: str) -> frozenset[str]:
    """The options that the command's own help lists, as it is run by the jobs."""
    program = [sys.executable, "-m", "counterfactual_probe", command, "--help"]
    shown = subprocess.run(program, capture_output=True, text=True, check=True, encoding="utf-8", errors="replace")
    usage = shown.stdout.partition("\n\n")[0]
    return frozenset(re.findall(r"--([a-z][a-z-]*)", usage))


def _require_known(name: str, command: str, options: frozenset[str]) -> None:
    if name in _OURS:
        raise ProbeError(f"setting {name!r} is set by the sweep itself; leave it out, and give 'out' above [settings]")
    if name != "generator" and name not in options:
        known = sorted({"generator", *options} - set(_OURS))
        raise ProbeError(f"setting {name!r} is no option of {command!r}; nearest: {nearest(name, known)}")


def _combinations(run: Mapping[str, Any], path: Any) -> list[dict[str, Value]]:
    """Every combination of the settings of which a run lists several values."""
    if "generator" not in run:
        raise ProbeError(f"{path} names no generator; give generator = ['…'] under [settings] or in each [[runs]]")
    names = sorted(run, key=lambda name: name not in ("generator", "layer"))  # they come first, as one reads them
    axes = {name: value if isinstance(value := run[name], list) else [value] for name in names}
    axes["generator"] = [one for value in axes["generator"] for one in _generators(str(value))]
    count = 1
    for name, values in axes.items():
        if not values:
            raise ProbeError(f"{path} gives no value of {name!r}; give one or several, or leave it out")
        count *= len(values)
    if count > _MOST_JOBS:
        raise ProbeError(f"{path} asks for {count:,} jobs; give fewer values, at most {_MOST_JOBS:,} combinations")
    return [dict(zip(axes, chosen, strict=True)) for chosen in product(*axes.values())]


def _generators(name: str) -> list[str]:
    """The generators of a name; of a pattern such as ``runs/*``, the folders and files that fit."""
    if "*" not in name:
        return [name]
    place = Path(name).expanduser()
    found = sorted(str(one) for one in Path(place.anchor or ".").glob(str(place.relative_to(place.anchor))))
    if not found:
        raise ProbeError(
            f"nothing fits the pattern {name!r} of generators; check it, in the folder {str(Path.cwd())!r}"
        )
    return found


def _named(command: str, chosen: list[dict[str, Value]], path: Any) -> tuple[Job, ...]:
    names = list(dict.fromkeys(name for settings in chosen for name in settings))
    differ = [name for name in names if len({str(settings.get(name)) for settings in chosen}) > 1] or ["generator"]
    jobs: dict[str, Job] = {}
    for settings in chosen:
        parts = [_part(name, settings[name]) for name in differ if name in settings]
        job = Job(safe_name(*parts), command, settings)
        if job.name in jobs:
            raise ProbeError(f"{path} asks for {job.name!r} twice; give each combination of settings once")
        jobs[job.name] = job
    return tuple(jobs.values())


def _part(name: str, value: Value) -> str:
    """Of a job's name."""
    return str(value) if name in ("generator", "layer") else f"{name}-{value}"
