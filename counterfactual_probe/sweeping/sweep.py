"""Run a sweep: its jobs on workers of this machine or of a Slurm cluster, as many at a time as there are workers."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..base.errors import Interrupted, ProbeError, first_line, one_of, whole
from ..base.files import as_path, require_writable, write_json
from ..base.progress import progress_bar
from .job import LOG, OUTCOME, about_job, outcome_in, run_job
from .plan import PROGRESS, Job, Plan, read_plan
from .result import Row, Sweep, numbers_in

_TRIES = 3  # of a job whose worker is killed
_SECONDS_BETWEEN_LOOKS = 0.1


def sweep(
    file: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    force: bool = False,
    show_progress: bool = False,
) -> Sweep:
    """Run one command for all combinations of settings that a TOML file lists, and gather the results in one table.

    >>> found = cp.sweep("sweep.toml", workers=2)  # doctest: +SKIP
    >>> found.to_dataframe()  # doctest: +SKIP

    The jobs run on this machine, or on a Slurm cluster where there is one. A job that is done is not run again: after
    any interruption the same call goes on with what is missing and what has failed. A job whose worker is killed is run
    again, twice at most, from where its command resumes.

    Args:
        file: what is run; the page about scaling explains it.
        out: the folder, in which every job has one of its own beside ``table.csv`` and ``table.json``; by default as
            the file says.
        workers: jobs that run at a time; by default as the file says, or two.
        cluster: ``"local"`` or ``"slurm"``; by default Slurm where its ``srun`` is found.
        force: whether jobs that are there with other settings are run anew.
        show_progress: a progress bar on stderr.

    Raises:
        ProbeError: the file cannot be read or asks for what there is not, results of other settings are there, or
            submitit is missing (the extra ``jobs``). A job that fails is no error: its row says why.
    """
    if find_spec("submitit") is None:
        raise ProbeError(
            "a sweep runs its jobs with submitit, which is not installed; run: pip install 'counterfactual-probe[jobs]'"
        )
    plan = read_plan(file)
    folder = (plan.out if out is None else as_path(out)).absolute()
    count = plan.workers if workers is None else whole(workers, "workers", 1)
    kind = plan.cluster if cluster is None else cluster
    if kind is not None:
        one_of(kind, "cluster", ("local", "slurm"))
    waiting = _to_run(plan, folder, force)
    require_writable(folder)
    if force:  # else they go on from where they were
        for left in (file for job in waiting for file in (folder / job.name).glob(f"{PROGRESS}*")):
            left.unlink()
    with progress_bar(len(plan.jobs), "sweep", "job", show_progress) as bar:
        bar.update(len(plan.jobs) - len(waiting))
        _Workers(plan, folder, count, kind, force).run(waiting, bar)
    found = Sweep(folder, tuple(_row(job, folder) for job in plan.jobs))
    found.to_csv(folder / "table.csv")
    found.to_json(folder / "table.json")
    return found


def _to_run(plan: Plan, folder: Path, force: bool) -> list[Job]:
    """The jobs that are not done yet; a ProbeError if one is there with other settings."""
    waiting = []
    for job in plan.jobs:
        outcome = outcome_in(folder / job.name)
        done = outcome is not None and not outcome["status"]
        difference = "" if outcome is None else _difference(outcome, job)
        if done and difference and not force:
            raise ProbeError(
                f"{folder / job.name} is there already, {difference}; give --force to replace it, or another --out"
            )
        if not done or difference:
            waiting.append(job)
    return waiting


def _difference(outcome: Mapping[str, Any], job: Job) -> str:
    """How the settings of an earlier outcome differ from those of a job, in words."""
    if outcome["command"] != job.command:
        return f"made by {outcome['command']!r}, not {job.command!r}"
    earlier, now = outcome["settings"], dict(job.settings)
    for name in dict.fromkeys([*now, *earlier]):
        if earlier.get(name) != now.get(name):
            return f"made with {name} {earlier.get(name)}, not {now.get(name)}"
    return ""


class _Workers:
    """As many jobs at a time as there are workers, each in a process of its own."""

    def __init__(self, plan: Plan, folder: Path, count: int, cluster: str | None, force: bool) -> None:
        import submitit

        self._plan, self._folder, self._count, self._force = plan, folder, count, force
        resources = plan.resources
        try:
            self._executor = submitit.AutoExecutor(folder / "workers", cluster=cluster)
            self._executor.update_parameters(
                name="counterfactual-probe",
                timeout_min=resources.minutes,
                gpus_per_node=resources.gpus,
                cpus_per_task=resources.cpus,
                **({} if resources.memory_gb is None else {"mem_gb": resources.memory_gb}),
                **({} if resources.partition is None else {"slurm_partition": resources.partition}),
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise ProbeError(f"no workers can be started ({first_line(error)}); try cluster='local'") from error
        local = self._executor.cluster == "local"
        self._threads = max(1, (os.cpu_count() or 1) // count) if local else resources.cpus

    def run(self, jobs: list[Job], bar: Any) -> None:
        """Run jobs until each of them has an outcome."""
        waiting = [(job, 1) for job in jobs]
        running: list[tuple[Job, int, Any]] = []
        try:
            while waiting or running:
                while waiting and len(running) < self._count:
                    job, number = waiting.pop(0)
                    running.append((job, number, self._submit(job)))
                time.sleep(_SECONDS_BETWEEN_LOOKS)
                for entry in [entry for entry in running if entry[2].done()]:
                    running.remove(entry)
                    job, number, worker = entry
                    if (self._folder / job.name / OUTCOME).exists():
                        bar.update()
                    elif number < _TRIES:
                        waiting.insert(0, (job, number + 1))
                    else:
                        self._give_up(job, worker)
                        bar.update()
        except KeyboardInterrupt as stop:
            for _, _, worker in running:
                worker.cancel(check=False)
            for _, _, worker in running:
                worker.wait()
            raise Interrupted(
                f"interrupted; the jobs that are done are in {self._folder}, and the same sweep goes on with the others"
            ) from stop

    def _submit(self, job: Job) -> Any:
        place = self._folder / job.name
        (place / OUTCOME).unlink(missing_ok=True)
        arguments = job.arguments(place, self._plan.options, force=self._force)
        about = about_job(job.command, dict(job.settings))
        return self._executor.submit(run_job, arguments, str(place), about, self._threads)

    def _give_up(self, job: Job, worker: Any) -> None:
        said = (worker.stderr() or "").strip().splitlines()
        problem = f"its worker ended {_TRIES} times without a result ({said[-1] if said else 'killed'})"
        about = about_job(job.command, dict(job.settings))
        write_json(self._folder / job.name / OUTCOME, about | {"status": 1, "problem": problem, "seconds": 0.0})


def _row(job: Job, folder: Path) -> Row:
    place = folder / job.name
    outcome = outcome_in(place)
    if outcome is None:
        raise ProbeError(f"{place / OUTCOME} has gone while the sweep ran; start the same sweep again")
    problem = f"{outcome['problem']} (see {job.name}/{LOG})" if outcome["status"] else ""
    return Row(job.name, job.settings, outcome["seconds"], problem, {} if problem else numbers_in(place))
