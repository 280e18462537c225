"""What is imported when: nothing heavy by the package itself, by help, by listings and by mistakes in a command."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from typing import get_args

import pytest

import counterfactual_probe as cp
from counterfactual_probe.cli import defaults
from counterfactual_probe.engine import select
from counterfactual_probe.exchanging import controls
from counterfactual_probe.fidelity import compare
from counterfactual_probe.influence import components
from counterfactual_probe.invariance import stretch
from counterfactual_probe.modules import features
from counterfactual_probe.reporting import study
from counterfactual_probe.robustness import finding
from counterfactual_probe.spectral import filters
from counterfactual_probe.training import recipe

HEAVY = ("torch", "numpy", "matplotlib", "sklearn", "scipy", "timm", "jinja2", "pandas", "PIL", "safetensors")
COMMANDS = ["influence", "modules", "hybridize", "fidelity", "invariance", "report", "demo", "robustness", "spectral"]


def loaded(code: str) -> tuple[list[str], str]:
    """Which of the heavy packages a fresh interpreter has after this code, and what else was printed."""
    told = f"import sys; print([name for name in {HEAVY!r} if name in sys.modules], flush=True)"
    made = subprocess.run([sys.executable, "-c", f"{code}\n{told}"], check=True, capture_output=True, text=True)
    *others, last = made.stdout.splitlines()
    return ast.literal_eval(last), "\n".join(others) + made.stderr


def after_command(*arguments: str) -> tuple[list[str], str]:
    return loaded(
        "from counterfactual_probe.cli import main\n"
        f"try: print('status', main({list(arguments)!r}))\n"
        "except SystemExit as stop: print('status', stop.code or 0)"
    )


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert loaded("import counterfactual_probe") == ([], "")
    # The check sees what is imported.
    assert {"torch", "numpy"} <= set(loaded("import counterfactual_probe as cp; cp.wrap")[0])


def test_all_public_names_together_import_no_plots_and_no_models() -> None:
    names, _ = loaded("from counterfactual_probe import *")
    assert "torch" in names
    assert {"matplotlib", "sklearn", "timm", "jinja2", "pandas"}.isdisjoint(names)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--help"], 0, "usage: counterfactual-probe"),
        (["--version"], 0, cp.__version__),
        (["list"], 0, "dcgan-faces"),
        (["list", "--verbose"], 0, "DigiFace-1M"),
        (["bogus"], 2, "invalid choice: 'bogus'"),
        (["influence", "dcgan-faces"], 2, "required: --layer"),
        (["modules", "dcgan-faces", "--features", "no"], 2, "invalid choice: 'no'"),
        (["explore", "--help"], 0, "--save"),
        *(([command, "--help"], 0, "--out") for command in [*COMMANDS, "train"]),
    ],
    ids=str,
)
def test_help_listings_and_usage_errors_import_nothing_heavy(arguments: list[str], status: int, said: str) -> None:
    names, text = after_command(*arguments)
    assert names == []
    assert said in text
    assert f"status {status}" in text


def test_the_package_runs_as_the_command_does() -> None:
    """The same words and status, and nothing heavier."""
    for arguments, status in ((["--version"], 0), (["list"], 0), (["bogus"], 2)):
        module, command = (
            subprocess.run([*start, *arguments], capture_output=True, text=True, check=False)
            for start in (
                [sys.executable, "-m", "counterfactual_probe"],
                [sys.executable, "-c", "import sys; from counterfactual_probe.cli import main; sys.exit(main())"],
            )
        )
        assert module.returncode == command.returncode == status
        assert (module.stdout, module.stderr) == (command.stdout, command.stderr)
    code = "import runpy, sys; sys.argv = ['x', 'list']\ntry: runpy.run_module('counterfactual_probe', {}, '__main__')"
    assert loaded(f"{code}\nexcept SystemExit: pass")[0] == []


def test_what_help_says_is_what_the_library_does() -> None:
    told = {name: value for name, value in vars(defaults).items() if name.isupper()}
    assert told == {
        "COMPONENTS": components.COMPONENTS,
        "EXCHANGE_CONTROLS": controls.DEFAULT_CONTROLS,
        "FEATURES": get_args(features.Kind),
        "FIDELITY_IMAGES": compare.DEFAULT_IMAGES,
        "FIDELITY_RESAMPLES": compare.DEFAULT_RESAMPLES,
        "INVARIANCE_IMAGES": stretch.DEFAULT_IMAGES,
        "PRECISIONS": select.PRECISIONS,
        "REMOVAL_DRAWS": filters.DRAWS,
        "REPORT_HYBRIDS": study.Settings.max_hybrids,
        "REPORT_PAIRS": study.Settings.max_pairs,
        "ROBUSTNESS_HYBRIDS": finding.HYBRIDS,
        "TRAINING_IMAGES": importlib.import_module("counterfactual_probe.training.train").DRAWN,
        "TRAINING_PRECISIONS": recipe.PRECISIONS,
    }
