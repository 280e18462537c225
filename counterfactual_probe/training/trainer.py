"""The loop: batches, losses, optimisers, and the checkpoints in between."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..base import checkpoint as checkpoints
from ..base.checkpoint import Checkpoint
from ..base.errors import Interrupted, ProbeError
from ..base.formats.schema import conform
from ..base.progress import progress_bar
from ..data.images import to_floats
from ..data.order import epoch_order
from ..distributed.exchange import Exchange
from ..distributed.group import collective
from ..distributed.ranks import Ranks
from ..generator.latents import stream_seed
from ..generator.state.randomness import random_state_kept, seed_everything
from ..generator.state.settings import fresh_settings, torch_defaults
from .launch import network_of, ranks_of
from .plan import TrainingPlan
from .record.grids import COLUMNS, save_grid
from .record.losses import LARGEST, Diverged, Losses, gradient_norm
from .record.output import Output
from .record.state import Progress, packed, unpack
from .result import Trained
from .step import DRAWS, Networks, Step

if TYPE_CHECKING:
    from accelerate import Accelerator

START, GRIDS = 7, 8  # streams of random numbers
FLUSH = 16  # steps between two checks of the losses
_SHARE = 50  # a checkpoint is due after this many times as long as the last one took,
_LONGEST = 600.0  # or after so many seconds


class Trainer:
    """Networks and optimisers of a plan, on the devices of an Accelerator.

    Ranks agree that none has failed before each of the collectives that Accelerate makes, in which all others would
    wait for one that is missing.
    """

    def __init__(self, plan: TrainingPlan, accelerator: Accelerator, exchange: Exchange) -> None:
        self.plan, self.accelerator, self.recipe, self._exchange = plan, accelerator, plan.recipe, exchange
        self.ranks = ranks_of(accelerator, self.recipe.batch)
        with fresh_settings():
            seed_everything(stream_seed(plan.seed, START, 0), nn.Module())
            made = self.recipe.networks(plan.images.size)
        if plan.start is not None:
            self.recipe.begin(made, plan.start.files)
        optimisers = self.recipe.optimisers(made)
        exchange.agree()
        prepared = accelerator.prepare(*made.values(), *optimisers.values())
        prepared = prepared if isinstance(prepared, tuple) else (prepared,)
        modules = dict(zip(made, prepared[: len(made)], strict=True))
        self.networks = Networks(modules, {name: network_of(accelerator, module) for name, module in modules.items()})
        self.optimisers: dict[str, Any] = dict(zip(optimisers, prepared[len(made) :], strict=True))
        self.rates = {name: [group["lr"] for group in each.param_groups] for name, each in self.optimisers.items()}
        self.checkpoint = Checkpoint(plan.out / "state.safetensors", plan.identity)
        self.output = Output(plan, accelerator.device, self.ranks)
        self.losses = Losses()
        self._holder = nn.ModuleList(self.networks.plain.values())
        # A single parameter stands for the device: searching all of them in every step takes time.
        self._on_device = nn.ParameterList(list(self._holder.parameters())[:1])
        self._pixels = plan.images.placed(accelerator.device)
        self.done, self.saved, self.seconds = 0, 0, 0.0
        self._next_save = 0.0

    # --- one step ---------------------------------------------------------------------------------

    def make_step(self, number: int, order: Tensor) -> dict[str, Tensor]:
        """All updates of one step; returns what it shows."""
        batch = self.recipe.batch
        position = number % self.plan.epoch_steps * batch
        index = self.ranks.rows(order[position : position + batch])
        # Bytes are transferred, a quarter of the size of floats.
        images = to_floats(self._pixels[index.to(self._pixels.device)].to(self.accelerator.device))
        labels = self.plan.images.labels
        if labels is not None:
            labels = labels[index].to(self.accelerator.device)
        step = Step(number, self.networks, images, seed=self.plan.seed, ranks=self.ranks, labels=labels)
        seed_everything(stream_seed(self.plan.seed, DRAWS, number), self._on_device)  # for dropout and the like
        shown: dict[str, Tensor] = {}
        updates = self.recipe.step(step)
        while True:
            with self.accelerator.autocast():
                update = next(updates, None)
            if update is None:
                return shown
            shown |= {name: value.detach() for name, value in update.shown.items()}
            shown[f"gradient {update.optimiser}"] = self._update(update.optimiser, update.loss)

    def _update(self, name: str, loss: Tensor) -> Tensor:
        if name not in self.optimisers:
            raise ProbeError(f"an update names the optimiser {name!r}; the recipe's are {', '.join(self.optimisers)}")
        optimiser = self.optimisers[name]
        for group, rate in zip(optimiser.param_groups, self.rates[name], strict=True):
            group["lr"] = rate * self.recipe.rate(self.done)
        optimiser.zero_grad()
        if self.ranks.world > 1:
            self._exchange.agree()
        with collective(with_work=True):
            self.accelerator.backward(loss)
        norm = gradient_norm([value for group in optimiser.param_groups for value in group["params"]])
        optimiser.step()
        return norm

    # --- the run ----------------------------------------------------------------------------------

    def run(self, show_progress: bool) -> Trained:
        """From where the checkpoint is to the last step."""
        plan = self.plan
        start = self.done
        began = self._clock = time.perf_counter()
        with (
            random_state_kept(self._holder),
            torch_defaults(),
            torch.inference_mode(False),
            torch.enable_grad(),
            self._stopping(),
            progress_bar(plan.steps, plan.name, "step", show_progress and self.accelerator.is_main_process) as bar,
        ):
            bar.update(start)
            order = torch.empty(0)
            while self.done < plan.steps:
                epoch, position = divmod(self.done, plan.epoch_steps)
                if position == 0 or len(order) == 0:
                    order = epoch_order(len(plan.images), seed=plan.seed, epoch=epoch)
                self.losses.add(self.make_step(self.done, order))
                self.done += 1
                bar.update()
                self._look(bar)
        passed = time.perf_counter() - began
        rate = (self.done - start) / passed if self.done > start else 0.0
        losses = self.losses.columns()
        return Trained(plan.out, self.done, start, losses, self.seconds, rate, plan.images.notes)

    def _look(self, bar: Any) -> None:
        """Every few steps, check the losses; draw grids and write a checkpoint when they are due."""
        last, grids = self.done == self.plan.steps, self.plan.grids_due(self.done)
        if not (last or grids or self.done % FLUSH == 0):
            return
        self.losses.flush(self.ranks.mean)
        self._require_sound()
        bar.set_postfix({name: f"{value:.3g}" for name, value in self._shown()}, refresh=False)
        if grids:
            self._draw()
        if self.accelerator.is_main_process and (last or time.monotonic() >= self._next_save):
            self.save()
        self._exchange.agree()

    def _require_sound(self) -> None:
        """Check the weights: the losses do not yet reflect those after the last step."""
        values = [value for value in self._holder.state_dict().values() if value.is_floating_point()]
        largest = float(torch.nn.utils.get_total_norm(values, float("inf")))
        if not largest < LARGEST:
            raise Diverged(f"step {self.done}, after which the largest weight is {largest:.3g}")

    def _shown(self) -> list[tuple[str, float]]:
        return [item for item in self.losses.last().items() if not item[0].startswith("gradient ")]

    @torch.no_grad()
    def _draw(self) -> None:
        """Save grids of samples of fixed latents and of reconstructions of fixed images."""
        if not self.accelerator.is_main_process:
            return
        plan, epoch = self.plan, -(-self.done // self.plan.epoch_steps)
        networks = Networks(self.networks.plain, self.networks.plain)
        count = min(COLUMNS, len(plan.images))
        shown = plan.images.floats(epoch_order(len(plan.images), seed=plan.seed, epoch=0)[:count])
        shown = shown.to(self.accelerator.device)
        for module in self._holder:
            module.eval()
        try:
            with self.accelerator.autocast():
                like_samples = shown.new_zeros(COLUMNS**2, *shown.shape[1:])
                step = Step(0, networks, like_samples, seed=plan.seed, ranks=Ranks(), stream=GRIDS)
                samples = self.recipe.samples(networks, step)
                reconstructions = self.recipe.reconstructions(networks, shown)
        finally:
            for module in self._holder:
                module.train()
        save_grid(plan.out / f"samples-{epoch:04d}.png", list(torch.split(samples, COLUMNS)))
        if reconstructions is not None:
            save_grid(plan.out / f"reconstructions-{epoch:04d}.png", [shown, reconstructions])

    # --- checkpoints ------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the model, its card and losses, and last the state to resume from."""
        began = time.monotonic()
        now = time.perf_counter()
        self.seconds += now - self._clock
        self._clock = now
        tensors, groups = packed(self.networks.plain, self._plain_optimisers(), self.recipe.state)
        self.output.write(self.recipe.files(self.networks.plain), self.losses, self.seconds)
        progress = {"step": self.done, "seconds": self.seconds, "optimisers": groups, "losses": self.losses.digest()}
        self.checkpoint.save(tensors, progress)
        self.saved = self.done
        ended = time.monotonic()
        self._next_save = ended + max(checkpoints.SECONDS_BETWEEN, min(_LONGEST, _SHARE * (ended - began)))

    def resume(self) -> None:
        """Continue from the checkpoint, if there is one."""
        checkpoint = self.checkpoint.load()
        if checkpoint is None:
            return
        tensors, progress = checkpoint
        try:
            step = conform(progress, Progress, "progress").step
        except ValueError as error:
            raise self.checkpoint.damaged(str(error)) from error
        if step > self.plan.steps:
            raise ProbeError(
                f"{self.plan.out} holds a training of {step} steps and {self.plan.steps} are asked for; ask for more"
            )
        extra = unpack(tensors, progress["optimisers"], self.networks.plain, self._plain_optimisers())
        self.recipe.state.update({name: value.to(self.accelerator.device) for name, value in extra.items()})
        self.losses.load(self.output.losses, step, progress["losses"])
        self.done = self.saved = step
        self.seconds = float(progress["seconds"])

    def _plain_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        return {name: optimiser.optimizer for name, optimiser in self.optimisers.items()}

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """Errors that stop a run say where the last good checkpoint is."""
        try:
            yield
        except Diverged as error:
            if self.accelerator.is_main_process:
                self.losses.save(self.output.losses)  # to see how it diverged
            raise Diverged(
                f"{self.plan.name} diverged at {error}; {self._kept()}; start again with a lower lr than "
                f"{self.recipe.lr:g}, or a longer warmup than {self.recipe.warmup}"
            ) from error
        except KeyboardInterrupt as stop:
            more = ", and resume goes on from it" if self.saved else ""
            raise Interrupted(f"interrupted at step {self.done}; {self._kept()}{more}") from stop

    def _kept(self) -> str:
        if not self.saved:
            return "no checkpoint had been written yet"
        return f"the last good checkpoint, of step {self.saved}, is in {self.plan.out}"
