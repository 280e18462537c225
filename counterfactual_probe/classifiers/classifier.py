"""A classifier: a module, its preprocessing, and the names of its classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..base.caller import blamed_on
from ..base.display.text import counted
from ..base.errors import ProbeError, strings, text
from ..base.formats.elsewhere import require_dense
from ..base.memory import in_slices, room_for
from ..generator import latents as lt
from ..generator.device import home, is_module, on_device, unwrapped
from ..generator.images import all_finite
from ..generator.state.pickling import Picklable
from ..generator.state.session import borrowed, called
from .labels import class_number, short_name
from .preprocessing import Preprocessing

BATCH = 32
ONE_IMAGE = "the classification of a single image"
_ROOM = 1.0  # values further outside than this, in widths of the range, mean that the range is wrong


class Classifier(Picklable):
    """Any module that returns class logits for images, with its preprocessing.

    >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 2))
    >>> classifier = cp.Classifier(module, cp.Preprocessing((8, 8)), class_names=["cat", "dog"], name="mine")
    >>> classifier.logits(torch.rand(5, 3, 64, 64)).shape
    torch.Size([5, 2])

    Args:
        module: returns logits (n, classes), a tuple whose first item they are, or an object with ``.logits``.
        transform: a :class:`Preprocessing`, or any function from images (n, C, H, W) with values 0…1 to the module's
            input.
        class_names: in the order of the logits; a name may have synonyms, separated by commas.
        name: for results; by default the class of the module.
        features: a function from the module's input to the features (n, d) before its last layer; by default timm's
            ``forward_features`` and pooled ``forward_head`` or, for other modules, the input of the last ``nn.Linear``.
        device: by default that of the module; for another one, a copy is moved.
        source: where the classifier comes from, for results.
    """

    def __init__(
        self,
        module: nn.Module,
        transform: Callable[[Tensor], Tensor],
        *,
        class_names: Sequence[str] | None = None,
        name: str | None = None,
        features: Callable[[Tensor], Tensor] | None = None,
        device: torch.device | str | None = None,
        source: str | None = None,
    ) -> None:
        if not is_module(module):
            raise ProbeError(f"the classifier is a {type(module).__name__}; give a torch.nn.Module")
        if not callable(transform):
            raise ProbeError(
                f"the classifier's transform is a {type(transform).__name__}; give cp.Preprocessing((height, width)) "
                "or a function of images"
            )
        self.module = on_device(unwrapped(module), device)
        self.name = text("" if name is None else name, "name") or type(self.module).__name__
        self.transform = transform
        self.source = source
        self.made_with: dict[str, Any] = {}  # arguments of timm.create_model, to make the module again
        self._features = features
        self.device, self.dtype = home(self.module)
        self.class_names = None if class_names is None else tuple(strings(class_names, "class_names"))
        self.n_classes = self._examined()

    def __repr__(self) -> str:
        return f"Classifier({self.name!r}, {self.n_classes} classes, {self.device})"

    def logits(self, images: Tensor, *, image_range: tuple[float, float] = (0.0, 1.0)) -> Tensor:
        """Logits (n, classes), float32, of images (n, C, H, W) with values in ``image_range``, computed in batches."""
        with self.session():
            parts = self._batches(images, image_range, self.forward)
        return torch.cat(parts).clone()

    def features(self, images: Tensor, *, image_range: tuple[float, float] = (0.0, 1.0)) -> Tensor:
        """Features (n, d), float32: the input of the classifier's last layer, for Fréchet distances."""
        with self.session():
            parts = self._batches(images, image_range, self.forward_features)
        return torch.cat(parts).clone()

    def top(
        self, images: Tensor, k: int = 5, *, image_range: tuple[float, float] = (0.0, 1.0)
    ) -> list[dict[str, float]]:
        """The k most likely classes of each image, by name, with their probabilities."""
        values, numbers = self.logits(images, image_range=image_range).softmax(1).topk(min(k, self.n_classes))
        return [
            {self.class_name(number): value for number, value in zip(*row, strict=True)}
            for row in zip(numbers.tolist(), values.tolist(), strict=True)
        ]

    def class_index(self, wanted: Any) -> int:
        """The number of a class given by number or name; a ProbeError with the nearest names if there is none."""
        return class_number(wanted, self.class_names, self.n_classes, f"classifier {self.name!r}")

    def class_name(self, number: int) -> str:
        """The first of a class's names."""
        return short_name(number, self.class_names)

    def provenance(self) -> dict[str, Any]:
        """What results record: name, weights, classes and preprocessing."""
        named = [*self.module.named_parameters(), *self.module.named_buffers()]
        described: Any = getattr(self.transform, "__name__", type(self.transform).__name__)
        if isinstance(self.transform, Preprocessing):
            described = self.transform.to_json()
        return {
            "name": self.name,
            "source": self.source,
            "classes": self.n_classes,
            "weights_sha256": lt.fingerprint(dict(named)) if named else None,
            "preprocessing": described,
        }

    # --- for analyses -----------------------------------------------------------------------------

    @contextmanager
    def session(self) -> Iterator[None]:
        """Use the module for several forwards in eval mode, without gradients; it is left as it was."""
        with borrowed(self.module, draws=False):
            yield

    def unit(self, images: Tensor, image_range: tuple[float, float]) -> Tensor:
        """Images as input of the transform: values 0…1, on the classifier's device, in its precision."""
        low, high = image_range
        if not isinstance(images, Tensor) or images.dim() != 4:
            shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
            raise ProbeError(f"images are {shape}; give a tensor (n, C, H, W)")
        require_dense(images, "the images")
        self._require_range(images, low, high)
        wanted = self.dtype or torch.float32
        return ((images.to(self.device, wanted) - low) / (high - low)).clamp(0, 1)

    def transformed(self, unit: Tensor, shared: dict[Any, Tensor] | None = None) -> Tensor:
        """The module's input for images of :meth:`unit`. Classifiers with the same resizing may share its result."""
        with blamed_on(f"the transform of classifier {self.name!r}", "call it on torch.rand(2, 3, 64, 64) to see why"):
            transform = self.transform
            if shared is not None and isinstance(transform, Preprocessing):
                key = self.device, self.dtype, transform.geometry
                if key not in shared:
                    shared[key] = transform.resized(unit)
                inputs = transform.normalised(shared[key])
            else:
                inputs = transform(unit)
        if not isinstance(inputs, Tensor) or len(inputs) != len(unit):
            shape = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
            raise ProbeError(
                f"the transform of classifier {self.name!r} returned {shape} for {len(unit)} images; return a batch"
            )
        return inputs

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits of the module's input. To be called inside a session."""
        given = tuple(inputs.shape)
        cure = f"run the module by itself to see why, on a tensor of shape {given}"
        with blamed_on(f"classifier {self.name!r}", cure):
            logits = _logits(called(self.module, inputs))
        if logits is None or logits.dim() != 2 or len(logits) != len(inputs):
            shape = None if logits is None else tuple(logits.shape)
            raise ProbeError(
                f"classifier {self.name!r} gives {shape} for {len(inputs)} images; let the module return logits "
                "(n, classes)"
            )
        return logits.float()

    def forward_features(self, inputs: Tensor) -> Tensor:
        """Features of the module's input. To be called inside a session."""
        cure = "give the classifier features=, a function from its input to (n, d)"
        with blamed_on(f"the features of classifier {self.name!r}", cure):
            if self._features is not None:
                features = called(self._features, inputs)
            elif hasattr(self.module, "forward_features") and hasattr(self.module, "forward_head"):
                head: Any = self.module.forward_head
                body: Any = self.module.forward_features
                features = called(head, called(body, inputs), pre_logits=True)
            else:
                features = _input_of_last_linear(self.module, inputs)
        flat: Tensor = features.flatten(1).float()
        return flat

    # --- inside -----------------------------------------------------------------------------------

    def _batches(
        self, images: Tensor, image_range: tuple[float, float], run: Callable[[Tensor], Tensor]
    ) -> list[Tensor]:
        if isinstance(images, Tensor):
            require_dense(images, "the images")  # before slices are taken of it

        def part(index: slice) -> Tensor:
            return run(self.transformed(self.unit(images[index], image_range)))

        # Zero images reach the transform as well, where they raise an error.
        return list(in_slices(max(1, len(images)), BATCH, part, ONE_IMAGE))

    def _require_range(self, images: Tensor, low: float, high: float) -> None:
        if not low < high:
            raise ProbeError(f"image_range is {(low, high)!r}; give two numbers, the smaller first")
        if images.numel() == 0:
            raise ProbeError("a classifier was given no image; give at least one")
        smallest, largest = (float(value) for value in images.aminmax())
        if not all_finite(images):
            raise ProbeError(f"an image given to classifier {self.name!r} holds NaN or infinite values; leave it out")
        room = _ROOM * (high - low)
        if smallest < low - room or largest > high + room:
            raise ProbeError(
                f"images have values from {smallest:.3g} to {largest:.3g} and image_range is ({low:g}, {high:g}); give "
                "the range of the images"
            )

    @room_for("the classification of two images")
    def _examined(self) -> int:
        """The number of classes, from a forward with grey images."""
        grey = torch.full((2, self._colours(), *self._size()), 0.5)
        with self.session():
            logits = self.forward(self.transformed(self.unit(grey, (0.0, 1.0))))
        n_classes = logits.shape[1]
        if self.class_names is not None and len(self.class_names) != n_classes:
            raise ProbeError(
                f"classifier {self.name!r} gives {counted(n_classes, 'logit')} and has "
                f"{counted(len(self.class_names), 'class name')}; give one name for each"
            )
        if n_classes < 2:
            raise ProbeError(f"classifier {self.name!r} gives {n_classes} logit; give one with at least two classes")
        if bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-4).all()):
            raise ProbeError(
                f"classifier {self.name!r} gives probabilities, which sum to 1, and logits are needed; leave out its "
                "softmax, or return their logarithm"
            )
        return n_classes

    def _size(self) -> tuple[int, int]:
        return self.transform.size if isinstance(self.transform, Preprocessing) else (64, 64)

    def _colours(self) -> int:
        return len(self.transform.mean) if isinstance(self.transform, Preprocessing) else 3


def _logits(output: Any) -> Tensor | None:
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    elif isinstance(output, dict):
        output = output.get("logits")
    elif not isinstance(output, Tensor):
        output = getattr(output, "logits", None)
    return output if isinstance(output, Tensor) else None


def _input_of_last_linear(module: nn.Module, inputs: Tensor) -> Tensor:
    last = [part for part in module.modules() if isinstance(part, nn.Linear)]
    if not last:
        raise ProbeError("the classifier has no nn.Linear whose input could be its features; give features=")
    seen: list[Tensor] = []
    handle = last[-1].register_forward_pre_hook(lambda _part, arguments: seen.append(arguments[0]))
    try:
        module(inputs)
    finally:
        handle.remove()
    return seen[-1]
