"""Trackers that need no account and no server: Trackio, and the event files of TensorBoard."""

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

from PIL import Image

from vqa.errors import needs_extra
from vqa.evaluation.report.figures import fit
from vqa.progress import console
from vqa.training.run_folder import read_metrics
from vqa.training.tracking.identity import TrackedRun
from vqa.training.tracking.protocol import Bundle, MediaTable, Shown

MOST_IMAGES, IMAGE_SIDE = 16, 160  # rows with images, and pixels, in TensorBoard, which takes a second for a megabyte
ELSEWHERE = (
    "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_BUCKET_ID", "TRACKIO_DATASET_ID", "TRACKIO_WEBHOOK_URL",
)  # fmt: skip


class TrackioTracker:
    """One run in Trackio's own files on this machine (`trackio show` opens them); nothing goes over the network.

    Args:
        run: whose numbers they are. Its id is part of the name, so that a run that is begun anew is another one.
    """

    def __init__(self, run: TrackedRun) -> None:
        with needs_extra("trackio", "rows for Trackio"):
            import trackio
        name = f"{run.name} {run.identity}"
        with alone():
            self._run = trackio.init(
                project=run.section.project, name=name, group=run.group, config=dict(run.config), resume="allow",
                embed=False, auto_log_gpu=False, auto_log_cpu=False,
            )  # fmt: skip
            trackio.context_vars.current_run.set(None)  # or the next run of this process would end this one
            stored = trackio.SQLiteStorage.get_logs(run.section.project, run=name, run_id=self._run.id)
        console.print(f"Trackio: kept here; look at it by: trackio show --project {run.section.project}")
        self._known = {row["step"] for row in stored}
        self._summary: dict[str, Any] = {}
        self._last = -1
        for row in read_metrics(run.folder / "metrics.jsonl"):
            self.log({key: value for key, value in row.items() if key != "step"}, row["step"])

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Store a row, unless there is one of this step."""
        self._last = max(self._last, step)
        if step not in self._known:
            self._run.log(dict(values), step=step)

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Keep them for the end: Trackio has no summary, so its last row gets them under "summary/"."""
        self._summary |= {f"summary/{name}": value for name, value in values.items()}

    def media(self, shown: Mapping[str, Shown]) -> None:
        """Store tables and images, one step after the last row."""
        import trackio

        with alone():
            self._run.log({name: self._as_media(trackio, one) for name, one in shown.items()}, step=self._last + 1)

    def _as_media(self, trackio: Any, shown: Shown) -> Any:
        if isinstance(shown, MediaTable):
            cells = [[trackio.Image(c) if isinstance(c, Image.Image) else c for c in row] for row in shown.rows]
            return trackio.Table(columns=list(shown.columns), data=cells)
        return trackio.Image(shown)

    def keep(self, bundle: Bundle) -> None:
        """They are in the run folder, on this machine as well."""

    def alert(self, title: str, text: str) -> None:
        """Store an alert, which the dashboard shows."""
        import trackio

        with alone():
            self._run.alert(title, text, level=trackio.AlertLevel.ERROR)

    def finish(self, failed: bool = False) -> None:
        """Write what is waiting."""
        with alone():
            if self._summary:
                self._run.log(self._summary, step=self._last + 1)
            self._run.finish()


@contextmanager
def alone() -> Iterator[None]:
    """Keep Trackio on this machine and quiet: without addresses in its environment, and with the Hub offline."""
    from huggingface_hub import constants

    hidden = {name: os.environ.pop(name) for name in ELSEWHERE if name in os.environ}
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True  # or it would ask who owns a stored token
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        constants.HF_HUB_OFFLINE = before
        os.environ.update(hidden)


class TensorBoardTracker:
    """Event files in `tensorboard/` of the run folder.

    Args:
        run: whose numbers they are. The files of a run in training are written anew from metrics.jsonl when it is
            gone on with, so each row is there once.
    """

    def __init__(self, run: TrackedRun) -> None:
        with needs_extra("tensorboard", "event files for TensorBoard"):
            from torch.utils.tensorboard import SummaryWriter
        folder = run.folder / "tensorboard"
        rows = read_metrics(run.folder / "metrics.jsonl")
        for path in folder.glob("events.out.tfevents.*") if run.training else ():
            path.unlink()
        self._writer = SummaryWriter(str(folder), filename_suffix="" if run.training else ".added")
        self._summary: dict[str, Any] = {}
        self._last = max((row["step"] for row in rows), default=-1)
        for row in rows if run.training else ():
            self.log({key: value for key, value in row.items() if key != "step"}, row["step"])

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Write a row's numbers; words have no place in its charts."""
        self._last = max(self._last, step)
        for name, value in values.items():
            if not isinstance(value, str):
                self._writer.add_scalar(name, value, step, new_style=True, double_precision=True)
        self._writer.flush()  # a run that is killed leaves what it had logged

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Keep them for the end."""
        self._summary |= values

    def media(self, shown: Mapping[str, Shown]) -> None:
        """Write images, and tables as text whose images stand beside them."""
        from torchvision.transforms.functional import pil_to_tensor

        for name, one in shown.items():
            if isinstance(one, Image.Image):
                self._writer.add_image(name, pil_to_tensor(one.convert("RGB")), self._last + 1)
                continue
            self._writer.add_text(name, as_markdown(one), self._last + 1)
            for number, row in enumerate(one.rows[:MOST_IMAGES]):
                images = [fit(cell, IMAGE_SIDE) for cell in row if isinstance(cell, Image.Image)]
                if images:
                    beside = pil_to_tensor(side_by_side(images))
                    self._writer.add_image(f"{name}/{number:03d}", beside, self._last + 1)

    def keep(self, bundle: Bundle) -> None:
        """They are in the run folder."""

    def alert(self, title: str, text: str) -> None:
        """Write it as text."""
        self._writer.add_text("alert", f"**{title}**\n\n{text}", max(self._last, 0))

    def finish(self, failed: bool = False) -> None:
        """Write the summary as text, and close the files."""
        if self._summary:
            rows = tuple((name, value) for name, value in self._summary.items())
            self._writer.add_text("summary", as_markdown(MediaTable(("name", "value"), rows)), max(self._last, 0))
        self._writer.close()


def as_markdown(table: MediaTable) -> str:
    """A table as TensorBoard shows text; images are left out, or named by their row."""

    def text(cell: Any, row: int) -> str:
        if isinstance(cell, Image.Image):
            return f"image {row:03d}"
        return str(cell).replace("|", "\\|").replace("\n", " ")

    lines = [" | ".join(table.columns), " | ".join("---" for _ in table.columns)]
    lines += [" | ".join(text(cell, number) for cell in row) for number, row in enumerate(table.rows)]
    return "\n".join(f"| {line} |" for line in lines)


def side_by_side(images: list[Image.Image]) -> Image.Image:
    """Images in a row, their upper edges level."""
    width, height = sum(image.width for image in images), max(image.height for image in images)
    whole, left = Image.new("RGB", (width, height), "white"), 0
    for image in images:
        whole.paste(image, (left, 0))
        left += image.width
    return whole
