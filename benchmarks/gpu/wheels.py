"""What the command needs beyond torch, as wheels: gathered where there is a network, installed where there is none.

    python benchmarks/gpu/wheels.py gather --python 3.12      into out/wheels; add --all for a machine with torch alone
    python benchmarks/gpu/wheels.py install out/gpu           the library and the wheels into that folder

By default the wheels are those that a machine for computing with torch usually lacks; they and the weights of
dcgan-faces take 18 MB. It runs on the standard library and pip.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WHEELS = ROOT / "out" / "wheels"
# What a package is imported as, where that is another word.
MODULES = {"scikit-learn": "sklearn", "PyWavelets": "pywt", "pillow": "PIL"}
RARE = ("msgspec", "PyWavelets", "pytest", "pluggy", "iniconfig")
# Without their dependencies; each makes rows of the table, which are named as skipped without it.
OPTIONAL = ("gan-face-generate==1.1.1", "pytorch-pretrained-biggan==0.1.1")
TESTS = ("hypothesis", "sortedcontainers", "pygments")
# Of matplotlib, scikit-learn and jinja2.
OF_DEPENDENCIES = (
    *("contourpy", "cycler", "fonttools", "kiwisolver", "packaging", "pyparsing", "python-dateutil", "six"),
    *("joblib", "narwhals", "markupsafe"),
)
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def project() -> dict[str, object]:
    found: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def dependencies() -> list[str]:
    """The names of what the library imports, without torch."""
    listed = project()["dependencies"]
    assert isinstance(listed, list)
    names = [re.split(r"[<>=!~;\[ ]", item)[0] for item in listed]
    return [name for name in names if name != "torch"]


def gather(python: str, everything: bool) -> int:
    """Download wheels of binary packages for that version of Python on Linux, and the optional ones."""
    names = [*RARE, *({*dependencies(), *OF_DEPENDENCIES, *TESTS} - {*RARE} if everything else ())]
    shutil.rmtree(WHEELS, ignore_errors=True)
    WHEELS.mkdir(parents=True)
    versions = ["--python-version", python, "--implementation", "cp", "--only-binary", ":all:"]
    for platform in PLATFORMS:
        versions += ["--platform", platform]
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(WHEELS)]
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    failed = subprocess.run([*download, *versions, *constraints, *names], check=False).returncode
    for name in OPTIONAL:
        # Only files are taken from them, so that neither their dependencies nor the Python they ask for matter.
        if subprocess.run([*download, "--ignore-requires-python", name], check=False).returncode:
            print(f"{name} was not found; its rows will be named as skipped")
    for wheel in sorted(WHEELS.iterdir()):
        print(f"{wheel.stat().st_size / 2**20:8.1f} MB  {wheel.name}")
    return failed


def install(folder: Path, wheels: Path = WHEELS) -> int:
    """Put this checkout and the wheels into a folder for PYTHONPATH; needs neither a network nor a build."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    given = sorted(wheels.glob("*.whl")) if wheels.is_dir() else []
    if given:
        target = ["--no-index", "--no-deps", "--no-compile", "--ignore-requires-python", "--target", str(folder)]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", *target, *map(str, given)]
        if subprocess.run(pip, check=False).returncode:
            return 1
    put_library(folder)
    sys.path.insert(0, str(folder))
    missing = [name for name in ("torch", *dependencies()) if find_spec(MODULES.get(name, name)) is None]
    if missing:
        print(
            f"{', '.join(missing)} is missing; gather wheels where there is a network, with make gpu-wheels "
            f"ARGS=--all, and bring {WHEELS.relative_to(ROOT)} along",
            file=sys.stderr,
        )
    return 1 if missing else 0


def put_library(folder: Path) -> None:
    """The packages as they are installed, and the entry points by which plug-ins are found."""
    package = folder / "counterfactual_probe"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "counterfactual_probe", package, ignore=ignored)
    shutil.rmtree(package / "adapters", ignore_errors=True)  # which leads a clone to the folder below
    shutil.copytree(ROOT / "adapters", package / "adapters", ignore=ignored)
    about, version = project(), (package / "version.py").read_text(encoding="utf-8").split('"')[-2]
    information = folder / f"counterfactual_probe-{version}.dist-info"
    information.mkdir()
    head = f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {version}\n"
    (information / "METADATA").write_text(head, encoding="utf-8")
    groups = about["entry-points"]
    assert isinstance(groups, dict)
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {path}\n" for name, path in some.items()) for group, some in groups.items()
    ]
    (information / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    gathering = commands.add_parser("gather")
    gathering.add_argument("--python", default="3.12", help="of the machine with the GPU (default 3.12)")
    gathering.add_argument("--all", action="store_true", help="also what usually is there: NumPy, SciPy, …")
    installing = commands.add_parser("install")
    installing.add_argument("folder", type=Path)
    args = parser.parse_args()
    sys.exit(gather(args.python, args.all) if args.command == "gather" else install(args.folder))


if __name__ == "__main__":
    main()
