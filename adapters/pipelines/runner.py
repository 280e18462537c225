"""Running a pipeline on given noise, prompts and classes, without a trace of it on the pipeline."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from counterfactual_probe.base.errors import ProbeError, first_line

from .first_draw import Drawn, FirstDraw, ended
from .prompts import ENCODE, Encoding, Player, Recorder

CLASSES = "class_labels"
# What only judges or marks finished images, and would do so on the CPU, in numpy.
_LEFT_OUT = {"safety_checker", "watermark"}


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

    def noise_size(self, classes: Tensor | None) -> tuple[int, ...]:
        """The size of one sample's starting noise; the run ends where it is drawn."""
        first = self._until_drawn(2, "", classes, None)
        if first[:1] != (2,):
            raise ProbeError(
                f"{self.name} draws noise of shape {first} for 2 samples; a generator needs one row for each sample, "
                "so wrap a torch.nn.Module of your own that runs its steps"
            )
        return first[1:]

    def encode(self, prompts: Sequence[str]) -> Encoding:
        """What the pipeline's own encoders make of prompts, under the settings; the run ends before its first step."""
        recorder: list[Recorder] = []
        self._until_drawn(len(prompts), list(prompts), None, recorder)
        return Encoding(tuple(recorder[0].calls))

    def images(self, noise: Tensor, encoded: Sequence[Any] | None, classes: Tensor | None) -> Any:
        """The images of all steps, as tensors."""
        twin = self._twin()
        if encoded is not None:
            setattr(twin, ENCODE, Player(encoded))
        with FirstDraw(lambda _shape: noise):
            returned = twin(**self._call(len(noise), "", classes))
        return returned[0]

    @property
    def name(self) -> str:
        return type(self.pipeline).__name__

    def _until_drawn(
        self, n: int, prompt: str | list[str], classes: Tensor | None, recorders: list[Recorder] | None
    ) -> tuple[int, ...]:
        twin = self._twin()
        if recorders is not None:
            recorders.append(Recorder(getattr(twin, ENCODE)))
            setattr(twin, ENCODE, recorders[0])
        if classes is not None and len(classes) != n:
            classes = classes[:1].expand(n)
        try:
            with torch.no_grad(), FirstDraw(ended):
                twin(**self._call(n, prompt, classes))
        except Drawn as drawn:
            return drawn.shape
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

    def _call(self, n: int, prompt: str | list[str], classes: Tensor | None) -> dict[str, Any]:
        given: dict[str, Any] = {"output_type": "pt", "return_dict": False} | self.settings
        if self.takes_prompts:
            given["prompt"] = prompt if isinstance(prompt, list) else [prompt] * n
        if classes is not None:
            given[CLASSES] = classes
        if "batch_size" in self.accepted:
            given["batch_size"] = n
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
