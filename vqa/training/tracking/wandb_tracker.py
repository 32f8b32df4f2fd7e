"""Where a run's numbers go: always `metrics.jsonl`, and Weights & Biases when the experiment asks for it.

The only file that imports wandb. It never prompts, goes offline by itself when there is no key, and a tracker that
fails is reported once and left out: it never stops a run.

A resumed run goes on in the same W&B run, whose id is kept in `tracking.json`. Offline each part is a folder of its own
under that id; `wandb sync` uploads the parts in the order of their start, into one run.
"""

import json
import netrc
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from vqa.errors import InputError
from vqa.files import read_json, write_json
from vqa.progress import console


class Tracker:
    """One run's numbers.

    Args:
        folder: the run folder; `metrics.jsonl` in it gets one line a call of `log`. None keeps no numbers at all: of
            several processes only the first one tracks.
        mode: "online", "offline" or "disabled".
        config: the resolved experiment, shown by W&B.
    """

    def __init__(
        self,
        folder: Path | None,
        mode: str,
        *,
        project: str,
        group: str | None,
        tags: list[str],
        config: Mapping[str, Any],
    ) -> None:
        self._path = None if folder is None else folder / "metrics.jsonl"
        self._run: Any = None
        if mode != "disabled" and folder is not None:
            self._start(folder, mode, project, group, tags, config)

    def _start(
        self, folder: Path, mode: str, project: str, group: str | None, tags: list[str], config: Mapping[str, Any]
    ) -> None:
        if mode == "online" and not has_key():
            console.print("W&B: no API key found, so this run is kept offline (`wandb login` stores one)")
            mode = "offline"
        name = f"{config['name']}/{config['seed']}"
        identity, before = wandb_id(folder)
        if mode == "offline":
            part = f"this part of run {identity} is offline, too; sent together" if before else "offline; sent"
            console.print(f"W&B: {part} by: wandb sync {folder}/wandb/offline-run-*", soft_wrap=True, markup=False)
        try:
            import wandb

            self._run = wandb.init(
                project=project,
                group=group or config["name"],
                tags=tags,
                name=name,
                id=identity,
                resume="allow",
                config=dict(config),
                mode=mode,  # type: ignore[arg-type]
                dir=str(folder),
                reinit="create_new",  # beside the other runs of this process
                settings=wandb.Settings(silent=True, console="off", init_timeout=30),
            )
        except Exception as error:  # whatever a tracker does must not stop a run
            self._give_up(error)

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Record numbers at a step (questions' batches since the start), in both places under the same names.

        Raises:
            InputError: metrics.jsonl cannot be written, say because the disk is full.
        """
        if self._path is not None:
            try:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"step": step, **values}) + "\n")
            except OSError as error:
                raise InputError(f"{self._path}: cannot be written: {error.strerror}; what was saved is kept") from None
        if self._run is not None:
            try:
                self._run.log(dict(values), step=step)
            except Exception as error:  # as above
                self._give_up(error)

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Set W&B's summary of the run; the run folder has the same in its own files."""
        if self._run is not None:
            try:
                self._run.summary.update(dict(values))
            except Exception as error:  # as above
                self._give_up(error)

    def finish(self, failed: bool = False) -> None:
        """Close W&B's run."""
        if self._run is not None:
            try:
                self._run.finish(exit_code=int(failed))
            except Exception as error:  # as above
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._run = None
        console.print(
            f"W&B failed and is left out from here on ({type(error).__name__}: {error}); metrics.jsonl goes on"
        )


def wandb_id(folder: Path) -> tuple[str, bool]:
    """The id of a run folder's W&B run, made and written down at first, and whether it was there already."""
    path = folder / "tracking.json"
    if path.is_file():
        return read_json(path, dict[str, str])["wandb_id"], True
    identity = secrets.token_hex(4)
    write_json(path, {"wandb_id": identity})
    return identity, False


def has_key() -> bool:
    """Whether W&B could log in without asking: a key in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    for name in filter(None, [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]):
        path = Path(name).expanduser()
        try:
            if path.is_file() and netrc.netrc(str(path)).authenticators(host):
                return True
        except (netrc.NetrcParseError, OSError):
            continue  # an unreadable netrc holds no usable key
    return False
