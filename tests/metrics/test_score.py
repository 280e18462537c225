"""What metrics return: kept as JSON, printed and drawn; and what importing them loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import counterfactual_probe as cp
from counterfactual_probe import metrics
from support.analyses.factors import FACTORS, QUICK, TEST, codes_of
from support.processes import imported_by


@pytest.mark.parametrize("metric", QUICK, ids=lambda f: f.__name__)
def test_results_are_kept_as_json(metric: Any, tmp_path: Path) -> None:
    found = metric(codes_of("noisy", FACTORS), FACTORS, test=(codes_of("noisy", TEST), TEST))
    path = found.save(tmp_path / "score.json")
    loaded = type(found).load(path)
    assert repr(loaded) == repr(found)
    for name, value in vars(found).items():
        assert np.array_equal(getattr(loaded, name), value), name
    assert repr(found).startswith(
        f"{type(found).__name__}({found.score:.3f}; 600 and 300 test rows, 3 codes, 3 factors"
    )
    figure, ax = found.plot()
    assert len(ax.texts) == 9
    assert found.plot(ax)[0] is figure
    with pytest.raises(cp.ProbeError, match=rf"holds {type(found).__name__} of format 1 and not DCI of format 1"):
        metrics.DCI.load(path)
    (tmp_path / "bad.json").write_text("[1")
    with pytest.raises(cp.ProbeError, match=r"bad\.json holds no score"):
        metrics.MIG.load(tmp_path / "bad.json")
    path.write_text(path.read_text().replace('"matrix"', '"matrixx"'))
    with pytest.raises(cp.ProbeError, match="lacks a part of"):
        type(found).load(path)


def test_importing_loads_no_scikit_learn() -> None:
    assert "sklearn" not in imported_by()
