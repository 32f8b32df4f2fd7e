"""Weights & Biases. The only file that imports wandb, but for `wandb_files`, which reads what it writes.

It never prompts, and goes offline by itself where no server takes its rows. A resumed run goes on in the same W&B run,
whose id is kept in `tracking.json`, and sends the rows that a killed part has not. Offline each part is a folder of its
own under that id; `wandb sync` uploads the parts in the order of their start, into one run.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import msgspec
from PIL import Image

from vqa.progress import console
from vqa.training.run_folder import read_metrics
from vqa.training.tracking.facts import cache_sources
from vqa.training.tracking.identity import TrackedRun, write_tracking
from vqa.training.tracking.protocol import Bundle, MediaTable, Shown
from vqa.training.tracking.summary import OF_KEPT, summary_of
from vqa.training.tracking.wandb_files import steps_on_disk

STARTING, ENDING = 30, 60  # seconds that a server has to begin a run, and to take its last rows
UPLOAD_RATE = 1e6  # bytes/s that an upload is given time for, which the user has asked for
SWEEP = ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH")


class WandbTracker:
    """One part of a W&B run, which lasts as long as this process works on it.

    Args:
        run: whose numbers they are.
        mode: where they go.
    """

    def __init__(self, run: TrackedRun, mode: Literal["online", "offline"]) -> None:
        import wandb

        self._tracked = run
        if mode == "offline":
            part = f"this part of run {run.identity} is offline, too; sent together" if run.resumed else "offline; sent"
            console.print(f"W&B: {part} by: {sync_command(run, 'offline-run-*')}", soft_wrap=True)
        rows = read_metrics(run.folder / "metrics.jsonl")
        # what is on the disk the files say; the server drops what is behind its last step
        self._known = steps_on_disk(run.folder, run.identity) if mode == "offline" else set()
        settings = wandb.Settings(
            silent=True, console="off", init_timeout=STARTING, finish_timeout=ending(run), finish_timeout_raises=True
        )
        if run.is_trial:
            settings.sweep_id = os.environ["WANDB_SWEEP_ID"]
        with as_agent_or_alone(run):
            self._run = wandb.init(
                **filed(run),
                config=dict(run.config),
                dir=str(run.folder.absolute()),  # W&B's own process keeps the folder that it was started in
                resume="allow",
                mode=mode,
                reinit="create_new",  # beside the other runs of this process
                settings=settings,
            )
        # of a resumed run; its `step` is 0 until the first row
        self._began_at = getattr(self._run, "starting_step", 0)
        self._first = self._began_at if mode == "online" else run.tracking.complete + 1
        self._last = run.tracking.complete
        for names in (f"{beginning}*" for beginning in OF_KEPT):
            self._run.define_metric(names, step_metric="epoch", summary="none")  # the kept epoch's are set below
        for row in rows:
            self.log({name: value for name, value in row.items() if name != "step"}, row["step"])
        if summary := summary_of(run.folder, keep=run.keep):
            self.summarise(summary)

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Send a row, unless W&B has one of this step: a killed run takes the steps since its last save again."""
        self._last = max(self._last, step)
        if step >= self._first and step not in self._known:
            self._run.log(dict(values), step=step, commit=True)

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Set the run's summary."""
        self._run.summary.update(dict(values))

    def media(self, shown: Mapping[str, Shown]) -> None:
        """Show tables and images, one step after the last row."""
        step = max(self._last + 1, self._began_at)
        self._run.log({name: as_media(one) for name, one in shown.items()}, step=step, commit=True)

    def keep(self, bundle: Bundle) -> None:
        """Upload files as an artifact. A model's feature caches are its inputs, by address and digest alone."""
        import wandb

        sources = cache_sources(self._tracked.config) if bundle.kind == "model" else {}
        metadata = dict(bundle.metadata) | {"digests": self._tracked.config.get("digests", {})}
        for name, (path, digest) in sources.items():
            source = wandb.Artifact(f"features-{digest[:16]}", "features", metadata={"sha256": digest, "file": name})
            source.add_reference(path.absolute().as_uri(), name=name, checksum=False)
            if self._run.offline:  # W&B has no inputs offline: the cache is only named
                self._run.log_artifact(source)
            else:
                self._run.use_artifact(source)
        artifact = wandb.Artifact(bundle.name, bundle.kind, metadata=metadata)
        for name, path in bundle.files.items():
            artifact.add_file(str(path), name=name, policy="immutable")  # no copy of it in W&B's cache
        self._run.log_artifact(artifact)

    def alert(self, title: str, text: str) -> None:
        """Send an alert, by mail or Slack as the user has told W&B."""
        self._run.alert(title[:63], text, level="ERROR")

    def finish(self, failed: bool = False) -> None:
        """Close the part, and note that W&B has every row."""
        self._run.finish(exit_code=int(failed))
        complete = max(self._last, self._tracked.tracking.complete)
        write_tracking(self._tracked.folder, msgspec.structs.replace(self._tracked.tracking, complete=complete))


def filed(run: TrackedRun) -> dict[str, Any]:
    """How W&B files a run: its own environment variables first, then what the experiment says.

    A sweep's agent has chosen id, project and entity of its trial; W&B takes them from the agent and no others.
    """
    import wandb

    said, section = os.environ, run.section
    by_agent = run.is_trial and wandb.setup().settings.sweep_id
    tags = [tag.strip() for tag in said.get("WANDB_TAGS", "").split(",") if tag.strip()]
    chosen = {
        "id": run.identity,
        "project": said.get("WANDB_PROJECT") or section.project,
        "entity": said.get("WANDB_ENTITY") or section.entity,
    }
    return {
        **({} if by_agent else chosen),
        "group": said.get("WANDB_RUN_GROUP") or run.group,
        "tags": tags or section.tags,
        "notes": said.get("WANDB_NOTES") or section.notes,
        "name": said.get("WANDB_NAME") or run.name,
        "job_type": said.get("WANDB_JOB_TYPE") or run.job_type,
    }


@contextmanager
def as_agent_or_alone(run: TrackedRun) -> Iterator[None]:
    """Hide a sweep's agent from W&B for a run that is not the agent's trial: it keeps its own id, and none is mixed."""
    import wandb

    if run.is_trial or not any(map(os.environ.get, SWEEP)):
        yield
        return
    hidden = {name: os.environ.pop(name) for name in SWEEP if name in os.environ}
    settings = wandb.setup().settings  # W&B reads the environment once
    before = settings.sweep_id, settings.run_id
    settings.sweep_id = settings.run_id = None
    try:
        yield
    finally:
        os.environ.update(hidden)
        settings.sweep_id, settings.run_id = before


def reopened(run: TrackedRun) -> WandbTracker:
    """The same run, offline from here on; W&B's own process must have left it before."""
    import wandb

    wandb.teardown(exit_code=1)
    return WandbTracker(run, "offline")


def sync_command(run: TrackedRun, parts: str) -> str:
    """What sends a run's parts."""
    return f"wandb sync {run.folder}/wandb/{parts}"


def ending(run: TrackedRun) -> int:
    """Seconds that the end may take: longer where the user has asked for uploads."""
    size = sum(path.stat().st_size for path in run.folder.glob("*") if path.is_file()) if run.section.artifacts else 0
    return ENDING + round(size / UPLOAD_RATE)


def as_media(shown: Shown) -> Any:
    """A table or an image as W&B has it; images within tables, too."""
    import wandb

    if isinstance(shown, MediaTable):
        cells = [[as_media(cell) if isinstance(cell, Image.Image) else cell for cell in row] for row in shown.rows]
        return wandb.Table(columns=list(shown.columns), data=cells, allow_mixed_types=True)
    return wandb.Image(shown, file_type="jpg")
