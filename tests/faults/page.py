"""docs/reliability.md: what was tried, how often, and what came out."""

import platform
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from faults.case import FAULT_WORDS, FAULTS, LETTERS, SECONDS, Outcome

# What each kind tries, for the page; a kind that is missing here is a mistake that a test finds.
ABOUT = {
    "experiments": "every key of an experiment and of an ablation dropped or given another value, "
    "overrides that are none, files that are empty, cut, nested 100,000 deep, alias bombs, folders, pipes and devices",
    "run files": "every file of a run folder damaged: tensors of other shapes and types, NaN, odd progress, odd lines, "
    "files cut, emptied, replaced by folders, pipes and devices",
    "caches": "HDF5 files with data sets and attributes missing, of other types, shapes and sizes; the files of other "
    "projects that are imported",
    "answers": "results, questions, annotations, tables, stored benchmarks and WordNet, each item dropped or given "
    "another value, each file cut, encoded otherwise or replaced",
    "images": "truncated, hostile, gigantic and odd images; transparency, 16 bits and floats",
    "archives": "packed submissions and downloads: names that leave the folder, links, devices, bombs, false sizes, "
    "servers that lie",
    "outputs": "`--json`, `--out`, `--attention`, `--plot` and folders: an input of the same call, a file of a run, a "
    "link, a pipe, a device, `-`, a folder, a full device",
    "terminals": "escape codes, control characters and markup in every string that data, files or users can give",
    "special": "pipes, devices, sockets, no home, no permission, odd paths, a closed or full standard output",
    "numbers": "infinity, NaN, negative and huge numbers in keys and options; models that no machine holds",
    "kills": "`kill -9` at moments spread over each command, then the same command again",
    "full disks": "a file system with 0 to 400 kB left, and files that may not grow; then room, and the "
    "same command again",
    "signals": "TERM, INT, HUP and USR1, once and twice, and signals that the parent had ignored",
    "trackers": "a tracker that raises, exits, hangs, prints and meddles in each of its calls; servers that refuse",
    "locks": "disks whose `flock` fails, two writers at once, and writers that were killed there",
}
HEAD = """# Reliability

The promise: bad input ends in exit status 2 and one clear sentence; nothing that was there is lost; whatever interrupts
a command, the same command again makes the same bytes. This page says how often that was tried, and what came out.

`make faults` repeats it. Each case is one command in a fresh copy of a small world (a data set of 60 images, a feature
cache, a trained run and one that was stopped), with one thing damaged. A case counts as **sentence** where the command
refused with a message, as **fine** where it did its work; anything else is a fault. Every fortieth case is part of
`make test`.
"""


def kind_of(outcome: Outcome) -> str:
    """The kind of the case that came out so."""
    return outcome.case.partition(": ")[0]


def page(outcomes: Sequence[Outcome]) -> str:
    """The whole page."""
    columns = ["sentence", "fine", "traceback", "hang", "lost", "other"]
    lines = [HEAD, f"| kind | tried | {' | '.join(columns)} |", f"| --- |{' ---: |' * (len(columns) + 1)}"]
    kinds = list(dict.fromkeys(kind_of(one) for one in outcomes))
    for kind in kinds:
        lines.append(_row(kind, [one for one in outcomes if kind_of(one) == kind], columns))
    lines += [_row("**all**", outcomes, columns), ""]
    lines += ["What each kind tries:", "", *(f"- **{kind}**: {ABOUT[kind]}." for kind in kinds), ""]
    lines += ["A fault is one of these:", "", *(f"- **{fault}**: {FAULT_WORDS[fault]}." for fault in FAULTS), ""]
    lines += [
        f"A hang is a command that takes longer than {SECONDS:.0f} seconds. A message of more than {LETTERS:,} letters",
        'is a fault, too. Column "other" counts crash, raw, long, silent and wrong. Where nothing may be mounted,',
        "or the user is not root, the cases that need it are not tried. Trackers whose server is silent have a minute.",
        "",
        f"Last run: Python {platform.python_version()}, {platform.system()} {platform.machine()}.",
        "",
    ]
    faults = [one for one in outcomes if one.failed]
    if faults:
        lines += ["Faults that are open, the first of each kind:", ""]
        for kind in kinds:
            found = [one for one in faults if kind_of(one) == kind]
            if found:
                named = found[0].case.partition(": ")[2]
                lines.append(f"- {kind}: {len(found)} ({found[0].came_out}: {_plain(named)})")
        lines.append("")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """A name without what Markdown or a terminal would read as its own."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)[:80]
    return f"`{shown}`" if "`" not in shown else shown.replace("`", "'")


def _row(name: str, outcomes: Sequence[Outcome], columns: Sequence[str]) -> str:
    counts = Counter(one.came_out if one.came_out in columns else "other" for one in outcomes)
    return f"| {name} | {len(outcomes):,} | " + " | ".join(f"{counts[column]:,}" for column in columns) + " |"


def write_page(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write the page."""
    path.write_text(page(outcomes), encoding="utf-8")
