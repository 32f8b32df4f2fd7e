"""The plan of a data set as tables: what `vqa data plan` prints."""

from pathlib import Path

from vqa.data.formats.table import PLAIN, TableOptions
from vqa.evaluation.accuracy import protocol_name
from vqa.files import PLOT_FORMATS, format_of, write_json
from vqa.planning.plan import Plan, plan, plot
from vqa.progress import console
from vqa.tables import Column, Row, Table, print_table


def run_plan(
    root: Path,
    format: str,
    split: str | None = None,
    options: TableOptions = PLAIN,
    *,
    plot_file: Path | None = None,
    json_file: Path | None = None,
) -> Plan:
    """Plan a data set and print the tables.

    Args:
        split: what vocabularies are tried on; see `plan`.
        options: how a table is read.
        plot_file: where to draw coverage and ceilings, PNG, SVG or PDF.
        json_file: where to write the numbers.

    Raises:
        InputError: for missing or damaged files, a split without answers, and an ending that names no plot.
    """
    if plot_file is not None:
        format_of(plot_file, PLOT_FORMATS, "a plot")  # before the work
    found = plan(root, format, split, options=options)
    if json_file is not None:
        write_json(json_file, found.as_json())
    if plot_file is not None:
        plot(found, plot_file)
    for table in plan_tables(found):
        print_table(table)
    if plot_file is not None:
        console.print(f"plot: {plot_file}")
    return found


def plan_tables(found: Plan) -> tuple[Table, Table, Table]:
    """Answer vocabulary, question lengths, feature caches."""
    return _vocabulary(found), _lengths(found), _caches(found)


def _vocabulary(found: Plan) -> Table:
    types = list(found.vocabulary[0].ceiling_per_answer_type)
    columns = (Column("covered"), Column("all", "best accuracy"), *(Column(name, "best accuracy") for name in types))
    rows = tuple(
        Row(f"{row.answers:,}", (row.coverage, row.ceiling, *(row.ceiling_per_answer_type.get(t) for t in types)))
        for row in found.vocabulary
    )
    caption = (
        f"Percent. The K most frequent of {found.distinct_answers:,} answers of {found.train}: questions of "
        f"{found.evaluated} whose most frequent answer is one of them, and the best VQA accuracy that K answers allow "
        f"there, {protocol_name(found.protocol)}."
    )
    return Table("Answer vocabulary", caption, columns, rows, row_heading="K", best="none")


def _lengths(found: Plan) -> Table:
    columns = tuple(Column("longest" if p == 100 else f"{p}%", decimals=0) for p in found.question_length)
    rows = (Row("words a question, at most", tuple(float(words) for words in found.question_length.values())),)
    caption = f"{found.train}: {found.words:,} distinct words. {found.questions:,} questions in both splits."
    return Table("Question length", caption, columns, rows, row_heading="Share of questions", best="none")


def _caches(found: Plan) -> Table:
    columns = (Column("regions", decimals=0), Column("channels", decimals=0), Column("float16 GB"), Column("int8 GB"))
    rows = tuple(
        Row(
            f"{one.encoder} {one.layer}, {one.image_size} px ({one.kept})",
            (float(one.regions), float(one.channels), one.float16_bytes / 1e9, one.int8_bytes / 1e9),
        )
        for one in found.caches
    )
    caption = (
        f"Disk and memory for the features of {found.images:,} images; in brackets where residency: auto would "
        "keep the float16 ones on this machine now (device, host memory, or disk)."
    )
    return Table("Feature caches", caption, columns, rows, row_heading="Encoder", best="none")
