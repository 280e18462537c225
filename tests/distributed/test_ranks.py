"""Shares of the work, and what the collectives of one and of several ranks give."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from counterfactual_probe.distributed.exchange import together
from counterfactual_probe.distributed.ranks import Ranks, current_ranks
from support.processes import finish, start


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("items", [0, 1, 5, 14])
@pytest.mark.parametrize("how", ["share", "dealt"])
def test_shares_cover_everything_once(how: str, world: int, items: int) -> None:
    shares = [getattr(Ranks(rank, world), how)(items) for rank in range(world)]
    found = [item for share in shares for item in share]
    assert sorted(found) == list(range(items))
    assert (found == sorted(found)) == (how == "share" or items <= world or world == 1)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert len(shares[0]) == max(map(len, shares))


def test_without_a_launcher_there_is_one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert current_ranks(torch.device("cpu")) == Ranks(0, 1)
    assert Ranks().first("x") == "x"
    arrays = {"maps": torch.ones(2)}
    assert Ranks().gather(arrays, 2, torch.device("cpu")) == arrays
    assert Ranks().objects("x") == ["x"]
    assert torch.equal(Ranks().batch(rows := torch.arange(4.0)), rows)
    assert torch.equal(Ranks().mean(rows), rows)
    with together(Ranks()) as exchange:
        assert exchange.from_first("x") == "x"
        exchange.complete(array := torch.ones(2))
    assert torch.equal(array, torch.ones(2))
    with pytest.raises(ValueError, match="as it is"), together(Ranks()):
        raise ValueError("as it is")


def test_collectives_of_three_ranks(tmp_path: Path) -> None:
    """A batch is put together from its shares bit for bit, a mean is over ranks, and dealt rows come back in order."""
    program = f"""
import json, torch
from pathlib import Path
from counterfactual_probe.distributed.ranks import current_ranks
ranks = current_ranks(torch.device("cpu"))
batch = torch.rand(6, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
rows = ranks.rows(batch)
whole, mean = ranks.batch(rows), ranks.mean(rows)
dealt = batch.detach()[list(ranks.dealt(5))]
found = {{
    "rows": rows.tolist(),
    "whole": whole.tolist(),
    "mean": mean.tolist(),
    "gathered": ranks.gather({{"a": dealt}}, 5, torch.device("cpu"))["a"].tolist(),
    "objects": ranks.objects(ranks.rank),
    "gradients": whole.requires_grad or mean.requires_grad,
}}
Path(f"{tmp_path}/{{ranks.rank}}").write_text(json.dumps(found))
"""
    for status, errors in finish(start(3, program)):
        assert status == 0, errors
    batch = torch.rand(6, 2, generator=torch.Generator().manual_seed(0))
    for rank in range(3):
        found = json.loads((tmp_path / str(rank)).read_text())
        assert torch.equal(torch.tensor(found["rows"]), batch[2 * rank : 2 * rank + 2])
        assert torch.equal(torch.tensor(found["whole"]), batch)
        torch.testing.assert_close(torch.tensor(found["mean"]), batch.reshape(3, 2, 2).mean(0))
        assert torch.equal(torch.tensor(found["gathered"]), batch[:5])
        assert found["objects"] == [0, 1, 2]
        assert not found["gradients"]
