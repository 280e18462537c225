"""What a launcher says is believed only where it makes sense, and nobody waits for an address that does not."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import counterfactual_probe as cp
from counterfactual_probe.distributed import launcher
from counterfactual_probe.distributed.launcher import PATIENCE, Launched, launched, patience_of_ranks
from counterfactual_probe.distributed.ranks import current_ranks
from support.processes import finish, free_port, start

NAMES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), max_size=12)
NUMBERS = st.integers(-(2**70), 2**70).map(str)


@pytest.fixture(autouse=True)
def _unlaunched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, PATIENCE, "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.delenv(name, raising=False)


def say(patch: pytest.MonkeyPatch, *values: str) -> None:
    for name, value in zip(NAMES, values, strict=True):
        patch.setenv(name, value)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (("x", "2", "localhost", "1234"), "RANK is 'x' and not a number; let torchrun set it, or unset RANK"),
        (("", "2", "localhost", "1234"), "RANK is '' and not a number"),
        (("0", "two", "localhost", "1234"), "WORLD_SIZE is 'two' and not a number"),
        (("0", "1.5", "localhost", "1234"), "WORLD_SIZE is '1.5' and not a number"),
        (("0", "2", "localhost", "http"), "MASTER_PORT is 'http' and not a number"),
        (("2", "2", "localhost", "1234"), "RANK is 2 and WORLD_SIZE 2; give each process a rank from 0"),
        (("-1", "2", "localhost", "1234"), "RANK is -1 and WORLD_SIZE 2"),
        (("0", "0", "localhost", "1234"), "RANK is 0 and WORLD_SIZE 0"),
        (("0", "2", " ", "1234"), "MASTER_ADDR is '' and MASTER_PORT 1234; give the name of the machine of rank 0"),
        (("0", "2", "localhost", "0"), "MASTER_ADDR is 'localhost' and MASTER_PORT 0"),
        (("0", "2", "localhost", "65536"), "MASTER_PORT 65536"),
    ],
)
def test_rubbish_is_told(monkeypatch: pytest.MonkeyPatch, values: tuple[str, ...], sentence: str) -> None:
    say(monkeypatch, *values)
    with pytest.raises(cp.ProbeError, match=sentence):
        current_ranks(torch.device("cpu"))


@given(st.tuples(*[st.one_of(TEXT, NUMBERS)] * 4))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_said_is_taken_or_refused(values: tuple[str, str, str, str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        say(patch, *values)
        try:
            found = launched()
        except cp.ProbeError:
            return
        assert found is not None
        assert 0 <= found.rank < found.world
        assert 0 < found.port < 2**16


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("host", ["no such host", "no-such-host.invalid", "203.0.113.1", "\x07"])
def test_an_address_that_is_none_is_told_at_once(monkeypatch: pytest.MonkeyPatch, host: str, rank: int) -> None:
    """The third is reserved for documentation: nobody answers there."""
    monkeypatch.setattr(launcher, "_OWN_STORE", timedelta(seconds=1))
    monkeypatch.setenv(PATIENCE, "1.5")
    say(monkeypatch, str(rank), "2", host, str(free_port()))
    with pytest.raises(cp.ProbeError, match=rf"rank {rank} cannot reach rank 0 at .*set MASTER_ADDR and MASTER_PORT"):
        current_ranks(torch.device("cpu"))


def test_a_rank_that_never_comes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATIENCE, "0.5")
    place = Launched(0, 4, "127.0.0.1", free_port())
    with pytest.raises(cp.ProbeError, match=rf"ranks 1, 2, 3 did not come within 0\.5 s; .* set {PATIENCE} to more"):
        place.store()


@pytest.mark.parametrize("given_", ["soon", "0", "-3", "nan", "inf", "1e9"])
def test_a_patience_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch, given_: str) -> None:
    monkeypatch.setenv(PATIENCE, given_)
    with pytest.raises(cp.ProbeError, match=f"{PATIENCE} is '{given_}'; give a number of seconds above 0"):
        patience_of_ranks()


def test_patience_is_half_an_hour_or_what_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert patience_of_ranks() == timedelta(minutes=30)
    monkeypatch.setenv(PATIENCE, "7.5")
    assert patience_of_ranks() == timedelta(seconds=7.5)


def test_ranks_on_devices_that_cannot_talk_to_each_other_are_told_at_once(tmp_path: Path) -> None:
    """One on a GPU and one without, as where CUDA_VISIBLE_DEVICES is empty for some."""
    code = f"""
import os, torch
from pathlib import Path
import counterfactual_probe as cp
from counterfactual_probe.distributed.group import join_group
rank = int(os.environ["RANK"])
try:
    join_group(torch.device("cpu") if rank == 1 else torch.device("cuda", 0))
except cp.ProbeError as error:
    Path(f"{tmp_path}/{{rank}}").write_text(str(error))
"""
    for status, errors in finish(start(3, code)):
        assert status == 0, errors
    for rank in range(3):
        assert (tmp_path / str(rank)).read_text().startswith("rank 1 runs on 'cpu' and rank 0 on 'cuda:0'; give every")
