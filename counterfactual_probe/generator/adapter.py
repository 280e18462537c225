"""What a generator is: a module, a way to sample its latents, and how to read an image off it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from ..base.caller import blamed_on
from ..base.display.described import Described
from ..base.display.description import Description, Picture
from ..base.display.plot import Plot
from ..base.display.text import counted
from ..base.errors import Interrupted, ProbeError, brief, text, whole
from ..base.memory import default_batch, in_slices, memory_kept, room_for
from . import latents as lt
from .device import cure_of_forward, flat_graph, home, is_module, no_module, on_device, unwrapped
from .examination import SAMPLES, TRACED, Examination, examine
from .images import default_image, plot_samples, read_image, require_finite, thumbnails
from .latents import Latents
from .layers import Action, Address, LayerIndex, LayerInfo, Layers, Site, clean_name, hooked, listed, named_layers
from .state.disturbance import Draws, Modes
from .state.pickling import Picklable
from .state.randomness import random_state_kept, seed_everything
from .state.session import borrowed, called, needs_inference
from .state.settings import fresh_settings, torch_defaults, unusual_settings
from .verbs import Acting

if TYPE_CHECKING:
    from matplotlib.axes import Axes

T = TypeVar("T")
SampleLatents: TypeAlias = Callable[..., Latents]
BASE, SOURCE, NOISE = 0, 1, 2  # streams of random numbers


class GeneratorAdapter(Acting, Picklable, Described):
    """A module, its latents and its images: what every analysis takes. Made by :func:`wrap`.

    Attributes:
        layers: ``{name: LayerInfo}`` in execution order; prints as a table.
        image_size: (C, H, W) of one image; (C, L) of sound, (C, D, H, W) of a volume.
        image_range: smallest and largest pixel value.
        batchable: False when samples must run one at a time: the forward draws noise, or the
            samples of a batch influence one another.
        draws_noise: whether the forward draws random numbers.
        noise_is_latent: whether the seeds of these are a part of the latents.
        axes: what the user says of the axes of layers.
        halves: which half of a batch that guidance folds is "conditional", and which "unconditional", where that is
            known: 0 or 1.
        make_partner: called when ``partner`` is first asked for.
    """

    def __init__(
        self,
        module: nn.Module,
        sample_latents: SampleLatents,
        *,
        layers: str | Sequence[str] | None = None,
        image: Callable[[Any], Tensor] | None = None,
        image_range: tuple[float, float] = (-1.0, 1.0),
        axes: Mapping[str, str] | None = None,
        noise: Literal["latent"] | None = None,
        device: torch.device | str | None = None,
        name: str | None = None,
    ) -> None:
        if not is_module(module):
            raise no_module(module)
        try:
            low, high = map(float, image_range)
        except Exception:  # a TypeError, or what an object of the user's raises
            low, high = 1.0, 0.0
        if not low < high:
            raise ProbeError(f"image_range is {image_range!r}; give two numbers, the smaller first")
        if not (noise is None or (isinstance(noise, str) and noise == "latent")):
            raise ProbeError(f"noise is {brief(noise)}; give 'latent', or None for noise that base and source share")
        self.module = on_device(unwrapped(module), device)
        self.name = text("" if name is None else name, "name") or type(self.module).__name__
        self.image_range = (low, high)
        self._sample_latents = sample_latents
        if image is not None and not callable(image):
            raise ProbeError(
                f"image is {brief(image)}; give a function from the module's output to images (n, C, H, W)"
            )
        self._read_image = default_image if image is None else image
        self.draws_noise = True  # until a forward has shown that it does not
        self.noise_is_latent = noise == "latent"
        self._inference = False
        self._draws, self._modes = Draws(), Modes()
        self._known_hash: str | None = None
        self.config, self.folder = {}, None
        self.make_partner: Callable[[], nn.Module] | None = None
        self.device, self.dtype = home(self.module)
        self.submodules, aliases = named_layers(self.module)
        examination = self._examine()
        trace, *alone = examination.traces
        self.axes = axes
        self.halves: dict[str, int] = {}
        self._index = LayerIndex(aliases, trace, alone, axes)
        self.draws_noise = examination.draws_noise
        if self.noise_is_latent and not self.draws_noise:
            raise ProbeError(f"noise='latent' is given and the forward of {self.name} draws none; leave it out")
        self.batchable = examination.batchable
        self._thumbnails = thumbnails(examination.images)
        self.image_size: tuple[int, ...] = tuple(examination.images.shape[1:])
        names = self._index.listed() if layers is None else [self.layer(item).name for item in listed(layers)]
        if not names:
            raise ProbeError(f"{self.name} has no {flat_graph(self.module) or self._index.why_none()}")
        self.layers = Layers({item: self.layer(item) for item in names})
        examination.warn_if_latents_are_ignored(self.name)

    def describe(self) -> Description:
        """Its layers, and two samples."""
        size = "×".join(map(str, self.image_size))
        return Description(
            "GeneratorAdapter",
            f"{self.name!r}, image {size}, {counted(len(self.layers), 'layer')}, {self.device}",
            table=self.layers.describe().table,
            pictures=(Picture("Two samples.", partial(plot_samples, self._thumbnails, self.image_range)),),
            page="your-own-generator",
        )

    def show(self, n: int = 8, *, seed: int = 0, ax: Axes | None = None, **conditions: Any) -> Plot[Axes]:
        """A sheet of the images of ``sample(n, seed=seed, **conditions)``.

        >>> gen.show(4)  # doctest: +SKIP
        """
        return plot_samples(self(self.sample(n, seed=seed, **conditions)), self.image_range, ax=ax)

    @cached_property
    def partner(self) -> nn.Module | None:
        """The network it was trained with, such as a GAN's discriminator or a VAE's encoder; None if it was not kept.

        >>> cp.load("dcgan-cifar10").partner  # doctest: +SKIP
        DCGANDiscriminator(...)
        """
        if self.make_partner is None:
            return None
        with fresh_settings():
            return self.make_partner().to(self.device).eval()

    def layer(self, name: str) -> LayerInfo:
        """The layer of this name, listed or not; raises a ProbeError that names the nearest."""
        return self.span(name)[0]

    def calls(self, name: str) -> list[str]:
        """The names of the calls of a layer that runs several times, in order.

        >>> gen.calls("unet.mid_block")  # doctest: +SKIP
        ['unet.mid_block#1', 'unet.mid_block#2']
        """
        return self._index.calls(name)

    def span(self, name: str) -> tuple[LayerInfo, tuple[Site, ...]]:
        """The layer of this name, and where in the forward it stands: once, or in each of several calls."""
        return self._index.span(name)

    def site(self, name: str) -> Site:
        """The layer of this name, and where in the forward it stands."""
        return self._index.resolve(name)

    def site_at(self, address: Address) -> Site | None:
        """The layer that stands at this address of a forward, if there is one."""
        return self._index.at(address)

    @room_for("the sampling of latents")
    def sample(self, n: int, *, seed: int = 0, stream: int = BASE, start: int = 0, **conditions: Any) -> Latents:
        """Sample ``n`` latents; sample i depends on (seed, stream, i) alone, never on the batch.

        >>> z1, z2 = gen.sample(8, seed=0), gen.sample(8, seed=1)  # doctest: +SKIP

        ``stream`` 0 is the base's and 1 the source's of an influence map with the same seed;
        ``start`` is the first index. ``conditions`` go to ``sample_latents``: a list, tuple, array or
        tensor holds one value for each of the n samples, anything else is for all.
        """
        n, start, stream = whole(n, "n", 1), whole(start, "start", 0), whole(stream, "stream", 0)
        lt.require_conditions(conditions, n, self._sample_latents, self.name)
        drawn = []
        cure = "it gets a CPU torch.Generator and must return latents for one sample, drawn on the CPU"
        # Latents are ordinary tensors of float32 whatever the caller's settings are, so that the seed fixes them.
        with self._interruptible(), random_state_kept(self.module), torch.inference_mode(False), torch_defaults():
            for i in range(n):
                rng = torch.Generator().manual_seed(lt.stream_seed(seed, stream, start + i))
                of_sample = {name: value[i] if lt.one_each(value) else value for name, value in conditions.items()}
                with blamed_on("sample_latents(1, rng)", cure):
                    one = self._sample_latents(1, rng, **of_sample)
                if (count := lt.count(one, "the latents of sample_latents")) != 1:
                    raise ProbeError(f"sample_latents(1, rng) returned {count} samples; return as many as asked for, 1")
                drawn.append(lt.with_noise(one, lt.drawn_seeds(rng)) if self.noise_is_latent else one)
        return lt.apply(lt.join(drawn), self._placed)

    def __call__(self, latents: Latents, *, seed: int = 0) -> Tensor:
        """The images of the latents, (n, C, H, W), in batches that fit.

        ``seed`` matters only to a forward that draws noise: image i gets the noise of (seed, i).
        """
        n, seed = self.check(latents), whole(seed, "the seed", 0)
        with self.session():
            images = self.batches(
                n, lambda index: self.forward(lt.take(latents, index), noise=range(n)[index], seed=seed)
            )
            parts = list(images)
            with torch.inference_mode(False):  # ordinary tensors: users train on images, or scale them in place
                result = torch.cat(parts)
        self.require_finite(result, lambda i: f"of latent {i}")
        return result

    # --- for the engine -------------------------------------------------------------------------

    @contextmanager
    def session(self) -> Iterator[None]:
        """Borrow the module for several forwards; nests, and gives it back at the outermost exit."""
        with self._interruptible(), ExitStack() as stack:
            if stack.enter_context(borrowed(self.module, draws=self.draws_noise, inference=self._inference)):
                stack.enter_context(memory_kept(self.device))
            yield
            self._modes.require(self.name, self.submodules)

    def forward(
        self,
        latents: Latents,
        actions: Mapping[str, Action] | None = None,
        *,
        noise: Sequence[int],
        seed: int = 0,
    ) -> Tensor:
        """One forward inside a session, with actions on layers.

        An action gets a view (samples, channels, …) of its layer's activation and returns the replacement, or
        None to leave it. ``noise`` numbers the noise of each sample, so that base, source and hybrid share it. A
        generator that is not batchable must be given one sample.
        """
        sites = [(self.site(layer), action) for layer, action in (actions or {}).items()]

        def run() -> Any:
            if self.draws_noise:
                self.seed_noise(self.noise_seeds(latents, noise, seed)[0])
            with hooked(self.submodules, sites):
                return self._call(latents)

        watched = self.draws_noise and len(noise) == 1  # a recording is of two samples
        output = self._draws.watched(self.name, self.module, run) if watched else run()
        self._modes.require(self.name, self.submodules)
        return self._image(output, len(noise))

    def noise_seeds(self, latents: Latents, numbers: Sequence[int], seed: int) -> list[int]:
        """The seed of the noise of each of these samples: a part of the latents, or from the number of the sample."""
        if self.noise_is_latent:
            return lt.noise_of(latents)[1]
        return [lt.stream_seed(seed, NOISE, number) for number in numbers]

    def seed_noise(self, seed: int) -> None:
        """Seed the global random generators for the forward of one sample. Inside a session only."""
        seed_everything(seed, self.module)

    def check(self, latents: Latents, what: str = "the latents") -> int:
        """How many samples there are; a ProbeError if their form or device does not fit."""
        n = lt.count(latents, what)
        expected, given = lt.named_tensors(self.example), lt.named_tensors(latents)
        if dict(expected).keys() != dict(given).keys():  # in whatever order a dict has them
            raise ProbeError(
                f"{what} are {lt.form(given)} and this generator takes {lt.form(expected)}; give them in the form "
                "that .sample() returns"
            )
        for label, have in given:
            if have.device != self.device:
                raise ProbeError(
                    f"{label} of {what} are on {have.device} and the generator on {self.device}; "
                    f"move them with .to({str(self.device)!r})"
                )
        return n

    def batch_limit(self) -> int:
        """How many samples fit into one batch: from shapes and a memory limit, never from timings."""
        return default_batch(self._index.bytes_per_sample, self.device)

    def batches(self, n: int, run: Callable[[slice], T]) -> Iterator[T]:
        """Results of ``run`` on consecutive slices of n samples; slices are halved when memory runs out.

        A slice that ran out of memory is run again, so ``run`` must return its results, not accumulate them.
        """
        return in_slices(n, self.batch_limit() if self.batchable else 1, run, "the run of a single latent")

    def require_finite(self, images: Tensor, where: Callable[[int], str]) -> None:
        """Raise a ProbeError that says which image holds a NaN or an infinity."""
        require_finite(images, where, self.dtype)

    def weights_hash(self) -> str:
        """SHA-256 over the names, types and values of all parameters and buffers."""
        if self._known_hash is not None:
            return self._known_hash
        named = [*self.module.named_parameters(), *self.module.named_buffers()]
        # Without the names that torch.compile puts in; buffers that are not saved count as well.
        return lt.fingerprint({clean_name(name): value for name, value in named})

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Inside, weights are assumed not to change, so they are hashed only once."""
        before, self._known_hash = self._known_hash, self.weights_hash()
        try:
            yield
        finally:
            self._known_hash = before

    def provenance(self) -> dict[str, Any]:
        """The provenance that every result records about its generator."""
        from ..version import __version__

        return {
            "generator": self.name,
            "weights_sha256": self.weights_hash(),
            "image_range": list(self.image_range),
            "device": self.device.type,
            "dtype": str(self.dtype).removeprefix("torch."),
            **unusual_settings(),
            "versions": {"counterfactual-probe": __version__, "torch": str(torch.__version__)},
        }

    # --- inside -----------------------------------------------------------------------------------

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Re-raise Ctrl-C inside as an :class:`Interrupted` that says what was left unsaved."""
        try:
            yield
        except Interrupted:
            raise
        except KeyboardInterrupt as stop:
            raise Interrupted(
                f"interrupted; {self.name} is as it was and nothing was saved; start again to get a result"
            ) from stop

    @room_for("the first forwards, of one to three samples")
    def _examine(self) -> Examination:
        """Run a few samples for shapes, and check that the same random state gives the same latent and image."""
        example = self.sample(SAMPLES)
        self.example = lt.take(example, slice(0, TRACED))
        with random_state_kept(self.module):
            seed_everything(1, self.module)  # another global state, which must make no difference
            redrawn = dict(lt.named_tensors(self.sample(1)))
        for label, value in lt.named_tensors(example):
            if label not in redrawn or not torch.equal(value[:1], redrawn[label]):
                raise ProbeError(
                    f"sample_latents(1, rng) gives other {label} when sample 0 is drawn again; draw everything from "
                    "the rng that it is given, such as torch.randn(n, 128, generator=rng)"
                )
        return self._first_forwards(example)

    def _first_forwards(self, example: Latents) -> Examination:
        """With gradients disabled or, if the forward writes into what inference mode made, in that mode."""

        def run(latents: Latents) -> Tensor:
            return self._image(self._call(latents), lt.count(latents))

        def seed(latents: Latents) -> None:
            self.seed_noise(lt.noise_of(latents)[1][0] if self.noise_is_latent else 0)

        def examined() -> Examination:
            with self.session():
                found = examine(self.name, self.module, self.submodules, example, run=run, seed=seed, dtype=self.dtype)
                self._draws.note(self.module)  # which has just run a sample alone
                self._modes.require(self.name, self.submodules, first=True)
                return found

        try:
            return examined()
        except ProbeError as error:
            if not needs_inference(error.__cause__):
                raise
        self._inference = True
        return examined()

    def _call(self, latents: Latents) -> Any:
        if self.noise_is_latent:
            latents, _ = lt.noise_of(latents)
        given = lt.form(lt.named_tensors(latents))
        latents = lt.apply(latents, Tensor.clone)  # a forward may work in place on what it is given
        with blamed_on(f"the forward of {self.name}", cure_of_forward(self.module, given)):
            if isinstance(latents, Tensor):
                return called(self.module, latents)
            if isinstance(latents, dict):
                return called(self.module, **latents)
            return called(self.module, *latents)

    def _image(self, output: Any, n: int) -> Tensor:
        return read_image(self._read_image, output, n, self.name)

    def _placed(self, value: Tensor) -> Tensor:
        dtype = self.dtype if value.is_floating_point() and self.dtype is not None else value.dtype
        return value.to(self.device, dtype)
