"""Running a pipeline on given noise, prompts and classes, without a trace of it on the pipeline."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from counterfactual_probe.base.errors import ProbeError, first_line

from .first_draw import Drawn, FirstDraw, ended
from .prompts import ENCODE, Encoding, Player, Recorder

CLASSES = "class_labels"
# What only judges or marks finished images, and would do so on the CPU, in numpy.
_LEFT_OUT = {"safety_checker", "watermark"}


@dataclass(frozen=True)
class Start:
    """What a run begins with: the shape of the noise that is drawn, and what prompts were encoded to before."""

    noise: tuple[int, ...]
    encoding: Encoding


class Runner:
    """A pipeline and the settings of its call.

    Attributes:
        pipeline: as the user gave it. It is never called itself: each run is of a shallow copy, with a scheduler of
            its own, so that the user's scheduler, progress bar and hooks stay as they are.
        settings: what goes to its ``__call__``, such as the number of steps.
    """

    def __init__(self, pipeline: Any, settings: Mapping[str, Any]) -> None:
        self.pipeline = pipeline
        self.settings = dict(settings)
        # Whether each argument of the call must be given.
        self.accepted = {
            name: parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            for name, parameter in inspect.signature(type(pipeline).__call__).parameters.items()
            if name != "self"
        }
        self.takes_prompts = "prompt" in self.accepted and hasattr(pipeline, ENCODE)

    def start(self, prompts: Sequence[str], classes: Tensor | None = None) -> Start:
        """What a run of a sample for each prompt begins with; it ends where the noise is drawn.

        Pipelines that take no prompts are given none; then these say only how many samples there are.
        """
        twin = self._twin()
        recorder = Recorder(getattr(twin, ENCODE)) if self.takes_prompts else None
        if recorder is not None:
            setattr(twin, ENCODE, recorder)
        try:
            with torch.no_grad(), FirstDraw(ended):
                twin(**self._call(prompts, classes))
        except Drawn as drawn:
            return Start(drawn.shape, Encoding(() if recorder is None else tuple(recorder.calls)))
        except ProbeError:
            raise
        except Exception as error:
            raise ProbeError(
                f"{self.name} does not run ({type(error).__name__}: {first_line(error)}); call the pipeline by itself "
                f"with {', '.join(f'{key}={value!r}' for key, value in self.settings.items())} to see why"
            ) from error
        raise ProbeError(
            f"{self.name} draws no noise by torch.randn; wrap a torch.nn.Module of your own that runs its steps"
        )

    def noise_size(self, start: Start, n: int) -> tuple[int, ...]:
        """The size of one sample's noise, from the start of a run of so many."""
        if start.noise[:1] != (n,):
            raise ProbeError(
                f"{self.name} draws noise of shape {start.noise} for {n} samples; a generator needs one row for each "
                "sample, so wrap a torch.nn.Module of your own that runs its steps"
            )
        return start.noise[1:]

    def images(self, noise: Tensor, encoded: Sequence[Any] | None, classes: Tensor | None) -> Any:
        """The images of all steps, as tensors."""
        twin = self._twin()
        if encoded is not None:
            setattr(twin, ENCODE, Player(encoded))
        with FirstDraw(lambda _shape: noise):
            returned = twin(**self._call([""] * len(noise), classes))
        return returned[0]

    @property
    def name(self) -> str:
        return type(self.pipeline).__name__

    def _call(self, prompts: Sequence[str], classes: Tensor | None) -> dict[str, Any]:
        given: dict[str, Any] = {"output_type": "pt", "return_dict": False} | self.settings
        if self.takes_prompts:
            given["prompt"] = list(prompts)
        if classes is not None:
            given[CLASSES] = classes
        if "batch_size" in self.accepted:
            given["batch_size"] = len(prompts)
        return given

    def _twin(self) -> Any:
        twin = copy.copy(self.pipeline)
        own = twin.__dict__  # setting an attribute would also write it into the configuration
        own["_progress_bar_config"] = {"disable": True}
        for part in own.keys() & {"scheduler"}:
            own[part] = copy.deepcopy(own[part])
        for part in own.keys() & _LEFT_OUT:
            own[part] = None
        return twin
