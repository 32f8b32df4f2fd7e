"""A data set check on the terminal: what `vqa data check` prints."""

from pathlib import Path

from rich.table import Table
from rich.text import Text

from vqa.data.check import CheckOptions, CheckReport, check_dataset
from vqa.files import write_json
from vqa.progress import console

STYLES = {"error": "bold red", "warning": "yellow", "note": "dim", "ok": "green"}


def run_check(root: Path, format: str, options: CheckOptions, json_file: Path | None = None) -> bool:
    """Check a data set, print every finding, and say whether it may be trained on (no finding is an error).

    Args:
        json_file: where to write the findings.

    Raises:
        InputError: for an unknown format or a root that is not there.
    """
    report = check_dataset(root, format, options)
    if json_file is not None:
        write_json(json_file, report.as_json())
    _print(report)
    return not report.failed


def _print(report: CheckReport) -> None:
    shown = Table(title=f"{report.format} in {report.root}", title_justify="left")
    for name in ("", "file", "about", "finding"):
        shown.add_column(name, overflow="fold")
    for row in report.rows:
        file = Path(row.file)
        name = str(file.relative_to(report.root)) if file.is_relative_to(report.root) else row.file
        shown.add_row(Text(row.level, style=STYLES[row.level]), Text(name), Text(row.item), Text(row.finding))
    console.print(shown)
    count = {level: sum(row.level == level for row in report.rows) for level in ("error", "warning", "note")}
    said = ", ".join(f"{number} {level}{'s' if number != 1 else ''}" for level, number in count.items())
    console.print(f"{said}: {report.verdict}")
