"""A stand-in for Slurm: `sbatch`, `srun` and `scontrol` that run jobs of this machine, and a way to signal them."""

import os
import signal
from contextlib import suppress
from pathlib import Path

SBATCH = r"""#!/bin/bash
script=$(mktemp "$CLUSTER/job-XXXXXX.sh")
cp "$1" "$script"
last=$(sed -n 's/^#SBATCH --array=0-\([0-9]*\).*/\1/p' "$script")
for task in $([ -z "$last" ] || seq 0 "$last"); do
    SLURM_JOB_ID=$((200 + task)) SLURM_ARRAY_JOB_ID=123 SLURM_ARRAY_TASK_ID=$task JOB_SCRIPT=$script \
        setsid bash "$script" >> "$CLUSTER/task-$task.log" 2>&1 < /dev/null &
done
echo "Submitted batch job 123"
"""
SRUN = r"""#!/bin/bash
while [[ "$1" == --* ]]; do
    [[ "$1" == --output || "$1" == --error ]] && shift
    shift
done
echo $$ > "$CLUSTER/step-$SLURM_ARRAY_TASK_ID"
exec "$@"
"""
SCONTROL = r"""#!/bin/bash
echo "$*" >> "$CLUSTER/requests"  # not into this file, of which bash has read a part only
(sleep 1; exec setsid bash "$JOB_SCRIPT") >> "$CLUSTER/task-$SLURM_ARRAY_TASK_ID.log" 2>&1 < /dev/null &
"""


def make_cluster(folder: Path) -> dict[str, str]:
    """The commands in a folder, and the environment in which they are found."""
    folder.mkdir()
    for name, script in (("sbatch", SBATCH), ("srun", SRUN), ("scontrol", SCONTROL)):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SUBMITIT"))}
    return kept | {"CLUSTER": str(folder), "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def children(process: int) -> list[int]:
    """The processes that a process has started."""
    with suppress(OSError):
        return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return []


def signal_step(process: int, number: signal.Signals) -> None:
    """Signal a process and those that it started, as Slurm signals every process of a step."""
    for one in [process, *children(process)]:
        with suppress(ProcessLookupError):
            os.kill(one, number)
