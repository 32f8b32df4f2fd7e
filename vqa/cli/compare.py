"""Commands about several runs at once: `vqa compare` and `vqa ensemble`."""

from pathlib import Path
from typing import Annotated

import typer

from vqa.cli.options import (
    AllowCode,
    AllowSeen,
    Caches,
    ColumnsOption,
    ExcludeSeen,
    JsonOption,
    ProtocolOption,
    TaskOption,
    WhereOption,
    table_options,
)
from vqa.errors import InputError

compare_app = typer.Typer()


@compare_app.command(epilog="Example: vqa compare experiments/runs/concat experiments/runs/san --out comparison.html")
def compare(
    systems: Annotated[
        list[Path],
        typer.Argument(
            metavar="A B...",
            help="Run folders, folders of several seeds (experiments/runs/<name>), results files, or folders of them; "
            "the first is the baseline.",
        ),
    ],
    split: Annotated[str, typer.Option(help="train, val, test, or an official split name.")] = "val",
    multiple_choice: Annotated[
        bool, typer.Option("--multiple-choice", help="Compare multiple-choice answers instead of open-ended ones.")
    ] = False,
    protocol: ProtocolOption = "2021",
    questions: Annotated[Path | None, typer.Option(help="The question file that results files answer.")] = None,
    annotations: Annotated[Path | None, typer.Option(help="Its annotation file.")] = None,
    data: Annotated[Path | None, typer.Option(help="Instead of the two: the data set's folder.")] = None,
    format: Annotated[str | None, typer.Option(help="How it is laid out, e.g. vqa_v2.")] = None,
    columns: ColumnsOption = None,
    where: WhereOption = None,
    resamples: Annotated[int, typer.Option(help="Of the bootstrap and of the test.", min=100, max=1_000_000)] = 10_000,
    seed: Annotated[int, typer.Option(help="Of the resamples and the examples.", min=0, max=2**63 - 1)] = 0,
    examples: Annotated[int, typer.Option(help="Questions of each kind of change on the page.", min=0, max=200)] = 8,
    cache: Caches = None,
    allow_seen: AllowSeen = False,
    exclude_seen: ExcludeSeen = False,
    allow_code: AllowCode = False,
    out: Annotated[Path, typer.Option(help="The page.")] = Path("comparison.html"),
    json: JsonOption = None,
) -> None:
    """Compare systems question by question: what is fixed and broken, the difference with interval and p.

    Images are resampled, not questions. Several runs of one name in a folder are one system: with two or more runs of
    each, the interval is that of the methods; with one, that of these trained models. docs/statistics.md says more.

    Of results files: vqa compare a.json b.json --questions Q.json --annotations A.json
    """
    if (questions is None) != (annotations is None) or (data is None) != (format is None) or (questions and data):
        raise InputError("say what results files answer by --questions and --annotations, or by --data and --format")
    from vqa.evaluation.statistics.differences import Sampling
    from vqa.studies.comparison.compare import CompareOptions, run_compare

    options = CompareOptions(
        split=split, task="multiple-choice" if multiple_choice else "open-ended", protocol=protocol,
        caches=cache or (), allow_seen=allow_seen, exclude_seen=exclude_seen, allow_code=allow_code,
        sampling=Sampling(resamples=resamples, seed=seed), examples=examples,
    )  # fmt: skip
    official = (questions, annotations) if questions is not None and annotations is not None else None
    described = (format, data, table_options(columns, where)) if format is not None and data is not None else None
    run_compare(systems, options, official=official, data=described, out=out, json_file=json)


@compare_app.command(
    epilog="Example: vqa ensemble experiments/runs/san experiments/runs/ban/0 --split test --select-on val"
)
def ensemble(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders, or folders of several seeds of one.")
    ],
    split: Annotated[str, typer.Option(help="train, val, test, or an official split name.")] = "val",
    task: TaskOption = "both",
    protocol: ProtocolOption = "2021",
    select_on: Annotated[
        str | None, typer.Option(help="Choose members greedily on this split; without it every run counts once.")
    ] = None,
    cache: Caches = None,
    allow_seen: AllowSeen = False,
    allow_code: AllowCode = False,
    keep_scores: Annotated[
        Path | None, typer.Option(help="Also keep the mean probabilities, float16, in this .npz file.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where its files go.", show_default="experiments/runs/ensembles/…")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Average the probabilities of several runs, answers aligned by their text, and evaluate the mean as one model.

    Writes official results files, numbers and report.html, as vqa evaluate does; prints how far the members agree, each
    one's accuracy, and what choosing the best member for every question would reach.
    """
    from vqa.studies.comparison.ensemble import EnsembleOptions
    from vqa.studies.comparison.ensemble import ensemble as run_ensemble

    options = EnsembleOptions(
        split=split, protocol=protocol, caches=cache or (), allow_seen=allow_seen, allow_code=allow_code,
        tasks=task, select_on=select_on,
    )  # fmt: skip
    run_ensemble(runs, options, out=out, json_file=json, keep_scores=keep_scores)
