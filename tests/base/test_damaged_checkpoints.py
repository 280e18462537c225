"""A file of progress that was damaged, edited or exchanged is refused, whatever was done to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import counterfactual_probe as cp
from counterfactual_probe.base import checkpoint as checkpoints
from counterfactual_probe.base.checkpoint import Checkpoint
from counterfactual_probe.base.files import load_tensors, save_tensors
from counterfactual_probe.distributed.exchange import Exchange
from counterfactual_probe.distributed.ranks import Ranks
from counterfactual_probe.influence.request import MapRequest
from counterfactual_probe.influence.run import Run
from support import toys
from support.analyses.ranks import MANY
from support.toy_training import Toy, train

LAYER, PAIRS = "main.6", 12
Tensors, Header = dict[str, Tensor], dict[str, Any]


@pytest.fixture
def half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a run that was interrupted half way."""
    path = tmp_path / "progress"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "SECONDS_BETWEEN", 0.0)
        original = Checkpoint.save

        def save(self: Checkpoint, *state: Any) -> None:
            original(self, *state)
            raise KeyboardInterrupt

        patch.setattr(Checkpoint, "save", save)
        with pytest.raises(cp.Interrupted):
            attribute(path)
    return path


def attribute(path: Path | None) -> cp.InfluenceMaps:
    return cp.InfluenceMap(toys.PLAIN.generator(), LAYER).attribute(
        n_pairs=PAIRS, hybrids_per_eval=4, normalise="pair", checkpoint=path
    )


def altered(path: Path, change: Callable[[Tensors, Header], object], *, signed: bool) -> None:
    """Change what a file holds; ``signed`` gives it the digest of what it then holds."""
    tensors, header = load_tensors(path, checkpoints.KIND)
    change(tensors, header)
    if signed:
        header["digest"] = checkpoints._digest(tensors, header["identity"], header["progress"])
    save_tensors(path, checkpoints.KIND, tensors, header)


def progress(**values: Any) -> Callable[[Tensors, Header], object]:
    return lambda _, header: header["progress"].update(values)


CHANGES: dict[str, Callable[[Tensors, Header], object]] = {
    "position of 10⁹": progress(position=10**9),
    "position below 0": progress(position=-1),
    "no position": lambda _, header: header["progress"].pop("position"),
    "position as text": progress(position="3"),
    "no hybrids": progress(hybrids_per_eval=0),
    "hybrids as text": progress(hybrids_per_eval="many"),
    "sets that there are not": progress(active=[0, 99]),
    "sets in another order": progress(active=[1, 0]),
    "no sets": progress(active=None),
    "no precision": progress(precision=None),
    "a tensor less": lambda tensors, _: tensors.pop("mean"),
    "a tensor more": lambda tensors, _: tensors.update(more=torch.zeros(2)),
    "a scalar": lambda tensors, _: tensors.update(mean=torch.tensor(0.5)),
    "another type": lambda tensors, _: tensors.update(mean=tensors["mean"].double()),
    "another shape": lambda tensors, _: tensors.update(mean=tensors["mean"][:-1].contiguous()),
}


@pytest.mark.parametrize("signed", [False, True], ids=["", "with a digest that fits"])
@pytest.mark.parametrize("change", CHANGES)
def test_an_edited_file_is_refused(half: Path, change: str, signed: bool) -> None:
    altered(half, CHANGES[change], signed=signed)
    with pytest.raises(cp.ProbeError, match=r"was damaged, edited, or written by another version .*delete it to start"):
        attribute(half)


def test_an_edited_value_is_refused(half: Path) -> None:
    altered(half, lambda tensors, _: tensors["mean"].view(-1)[7].add_(1e-6), signed=False)
    with pytest.raises(cp.ProbeError, match="its digest is not that of its content"):
        attribute(half)


def test_a_file_of_an_earlier_version_is_refused(half: Path) -> None:
    altered(half, lambda _, header: header.pop("digest"), signed=False)
    with pytest.raises(cp.ProbeError, match="it has no digest, as those of earlier versions"):
        attribute(half)


def test_an_untouched_file_goes_on(half: Path) -> None:
    """Negative control: rewriting it as it is, with its digest, changes nothing."""
    altered(half, lambda *_: None, signed=False)
    resumed, expected = attribute(half), attribute(None)
    assert torch.equal(resumed.maps, expected.maps)
    assert torch.equal(resumed.standard_error, expected.standard_error)


def test_every_flipped_bit_is_told(half: Path) -> None:
    """A few hundred, over the whole file: never another exception, and never other maps."""
    content, expected = half.read_bytes(), attribute(None)
    length = int.from_bytes(content[:8], "little")
    places = [*range(0, 8 + length, 7), *range(8 + length, len(content), max(1, (len(content) - length) // 40))]
    influence = cp.InfluenceMap(toys.PLAIN.generator(), LAYER)
    refused = 0
    for number, place in enumerate(places):
        changed = bytearray(content)
        changed[place] ^= 1 << number % 8
        half.write_bytes(changed)
        try:
            maps = influence.attribute(n_pairs=PAIRS, hybrids_per_eval=4, normalise="pair", checkpoint=half)
        except cp.ProbeError:
            refused += 1
        else:  # a bit that means nothing, such as one of the spaces that fill the header up
            assert torch.equal(maps.maps, expected.maps)
    assert refused >= len(places) - 5


def test_the_files_of_two_ranks_are_not_exchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[MapRequest] = []

    def noted(request: MapRequest, exchange: Exchange) -> Run:
        requests.append(request)
        return Run(request, exchange)

    monkeypatch.setattr("counterfactual_probe.influence.influence_map.Run", noted)
    influence = cp.InfluenceMap(toys.PLAIN.generator(), LAYER)
    influence.attribute(n_pairs=2, units=MANY)  # shared by sets, of which each rank keeps its own
    identity = requests[0].identity(requests[0].generator.provenance())
    kept = Run(requests[0], Exchange(Ranks(0, 2))).progress_files(tmp_path / "p", identity)
    files = [kept.of(Ranks(rank, 2)).checkpoint for rank in (0, 1)]
    for rank, file in enumerate(files):
        file.save({"mean": torch.full((2,), float(rank))}, {"position": 1})
    mine, other = (tmp_path / f"p.rank{rank}of2" for rank in (0, 1))
    mine.write_bytes(other.read_bytes())
    with pytest.raises(cp.ProbeError, match="is of another run: its rank is 1 and this run's 0"):
        files[0].load()


def test_the_state_of_a_training_is_refused_when_it_was_edited(tmp_path: Path) -> None:
    train(Toy(), tmp_path, steps=4)
    state, losses = tmp_path / "state.safetensors", tmp_path / "losses.csv"
    kept, text = state.read_bytes(), losses.read_text()
    content = bytearray(kept)
    content[-3] ^= 4
    state.write_bytes(content)
    with pytest.raises(cp.ProbeError, match="its digest is not that of its content"):
        train(Toy(), tmp_path, steps=8, resume=True)
    state.write_bytes(kept)
    lines = text.splitlines()
    number, value, *others = lines[2].split(",")
    lines[2] = ",".join([number, str(float(value) * 2), *others])
    losses.write_text("\n".join(lines) + "\n")
    with pytest.raises(cp.ProbeError, match=r"losses.csv holds no losses of 4 steps of this training, or altered ones"):
        train(Toy(), tmp_path, steps=8, resume=True)
    losses.write_text(text)
    assert train(Toy(), tmp_path, steps=8, resume=True).resumed_at == 4
