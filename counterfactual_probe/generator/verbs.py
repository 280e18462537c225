"""What a generator is asked to do that rooms above this one do: they are found by entry points, as plug-ins are."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from ..base.errors import ProbeError
from ..base.plugins import by_name, imported

GROUP = "counterfactual_probe.verbs"


class Acting:
    """Edits of pictures, and sharing on the hub.

    Attributes:
        config: what config.json of the generator's folder says, and what its model card is to: the ``architecture``,
            ``trained_on``, ``terms``; empty for a module of the user's.
        folder: where it was opened from, if that was a folder or a repository of the hub.
    """

    config: dict[str, Any]
    folder: Path | None

    def edit(
        self,
        given: Any,
        module: str,
        *,
        source: Any,
        modules: Any = None,
        strength: Any = 1.0,
        seed: int = 0,
        starts: int = 4,
        steps: int = 200,
        show_progress: bool = False,
    ) -> Any:
        """Set one module of pictures, or of latents, to the values that it takes for others (S003 §3.2).

        >>> edited = gen.edit(photos, "eyes", source=others, modules="modules.json", strength=0.7)  # doctest: +SKIP
        >>> edited.images, edited.relative_error, edited.plot()  # doctest: +SKIP

        Pictures are encoded by ``encode`` where the generator has one, and otherwise inverted, see :func:`invert`: the
        :class:`Edited` that is returned says how far the latents' images are off, and a warning does where they are off
        by much.

        Args:
            given: images (n, C, H, W) in ``image_range``, latents, or what :func:`invert` found. A tensor that could be
                either, where latents have the size of images, is taken for latents.
            module: the name of a module, or the start of it, if only one begins so.
            source: the same, n or one for all.
            modules: a fitted :class:`ModuleFinder`, the file that ``modules`` or a report wrote (also on the hub,
                ``"hf:user/name/modules.json"``), unit sets by name, or a list of these; by default modules.json of the
                folder or repository that the generator was opened from.
            strength: how far from the base (0) to the source (1), or beyond; one number, or one for each image.
            seed, starts, steps: of inversions; ``seed`` also of noise inside the forward.

        Raises:
            ProbeError: no module has the name (all are listed), or several; images of another size or range.
        """
        return self._verb("edit")(
            self,
            given,
            module,
            source=source,
            modules=modules,
            strength=strength,
            seed=seed,
            starts=starts,
            steps=steps,
            show_progress=show_progress,
        )

    def push_to_hub(
        self,
        repository: str,
        *,
        modules: Any = None,
        trained_on: str | None = None,
        terms: str | None = None,
        licence: str | None = None,
        private: bool = False,
        revision: str | None = None,
    ) -> str:
        """Write weights, configuration and model card into a repository of the Hugging Face hub; ``load`` opens it.

        >>> gen.push_to_hub("user/name", modules=finder, trained_on="my pictures", terms="CC BY 4.0")  # doctest: +SKIP
        'hf:user/name'
        >>> cp.load("hf:user/name").edit(z1, "eyes", source=z2)  # doctest: +SKIP

        The repository is created where there is none, and all files are one commit. The card shows samples and, with
        ``modules``, what they are called, how reproducible they were found to be, and hybrids of them.

        Args:
            repository: ``"user/name"``.
            modules: a fitted :class:`ModuleFinder`, which is shared as modules.json.
            trained_on, terms: what the card says of the training data and of its terms; by default what is known.
            licence: an identifier of the hub, such as ``"mit"``, for its search.
            private: whether a repository that is created is.
            revision: a branch that there is; by default the main one.

        Raises:
            ProbeError: a module of your own, whose code no architecture knows, so that ``load`` could not build it; a
                hub that cannot be reached or refuses.
        """
        return str(
            self._verb("push_to_hub")(
                self,
                repository,
                modules=modules,
                trained_on=trained_on,
                terms=terms,
                licence=licence,
                private=private,
                revision=revision,
            )
        )

    def _verb(self, name: str) -> Callable[..., Any]:
        entries = by_name(lambda: entry_points(group=GROUP), "a verb of generators")
        if name not in entries:
            raise ProbeError(f"{name} is not registered, since another version was installed; install this one again")
        function: Callable[..., Any] = imported(entries[name], "verb", Callable)  # type: ignore[arg-type]
        return function
