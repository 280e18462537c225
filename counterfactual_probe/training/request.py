"""What a training is asked to be and how it is to run, and the command that repeats it."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..data.sources import Data
from .recipe import Precision, Recipe

# Settings of recipes that the command has options for; --set takes the others.
OPTIONS = ("beta", "latent", "width", "batch", "lr")
_APART = ("model", "data", "settings")  # fields that are no options


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """All that decides the result of :func:`train`, as it was given: its command is on the model card.

    Attributes:
        start: a trained model whose weights the networks begin with.
        settings: of the recipe, over the model's own.
    """

    model: str | Recipe
    data: Data | None = None
    size: int | None = None
    colours: int | None = None
    images: int | None = None
    terms: str | None = None
    skip_unreadable: bool = False
    seed: int = 0
    steps: int | None = None
    epochs: float | None = None
    precision: Precision | None = None
    start: str | os.PathLike[str] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def command(self) -> str:
        """The command that repeats this, or the call where no command can."""
        data = os.fspath(self.data) if isinstance(self.data, (str, os.PathLike)) else self.data
        if isinstance(self.model, Recipe) or not (data is None or isinstance(data, str)):
            shown = "".join(f", {name}={value!r}" for name, value in {**self._options(), **self._settings()}.items())
            given = "" if data is None else f", {data!r}" if isinstance(data, str) else ", data"
            return f"cp.train({self.model!r}{given}{shown})"
        words = ["counterfactual-probe", "train", self.model, *([] if data is None else ["--data", data])]
        for name, value in self._options().items():
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        for name, value in self._settings().items():
            words += [f"--{name}", str(value)] if name in OPTIONS else ["--set", f"{name}={json.dumps(value)}"]
        return shlex.join(words)

    def _options(self) -> dict[str, Any]:
        """The options that are not at their default, by name."""
        options = {item.name: item.default for item in dataclasses.fields(self) if item.name not in _APART}
        return {name: vars(self)[name] for name, default in options.items() if vars(self)[name] not in (None, default)}

    def _settings(self) -> dict[str, Any]:
        return {name: value for name, value in self.settings.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where and how a training runs; none of it decides the result.

    Attributes:
        out: the folder; None for ``out/`` and the model's name.
        cache: a file for the decoded images.
        device: "cpu" or "cuda"; None for a GPU where there is one.
    """

    out: str | os.PathLike[str] | None = None
    cache: str | os.PathLike[str] | None = None
    device: str | None = None
    resume: bool = False
    show_progress: bool = False
