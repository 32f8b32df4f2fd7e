"""Commands that answer and score: `vqa evaluate`, `predict`, `submit`, `score`, `score-wups`."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vqa.cli.options import (
    AllowCode,
    AllowSeen,
    Caches,
    ColumnsOption,
    DataOption,
    ExcludeSeen,
    FormatOption,
    JsonOption,
    Protocol,
    ProtocolOption,
    SharesImages,
    TaskOption,
    WhereOption,
    WordNetOption,
    table_options,
)
from vqa.errors import InputError

RESULTS_HELP = (
    "Results files: JSON ({question_id, answer}, {id: answer}, GQA's, VizWiz's, …), JSON lines (lmms-eval, LLaVA, …), "
    "CSV, TSV or XLSX (VLMEvalKit)."
)

answers_app = typer.Typer()


def external_option(help: str, **settings: Any) -> Any:
    """An option of `vqa evaluate` for external models only, in a panel of its own."""
    return typer.Option(help=help, rich_help_panel="With --hf", **settings)


@answers_app.command(epilog="Example: vqa evaluate experiments/runs/san/0 --split val --slice 'colours=what colou?r'")
def evaluate(
    run: Annotated[Path | None, typer.Argument(help="A run folder, experiments/runs/<name>/<seed>.")] = None,
    split: Annotated[str, typer.Option(help="train, val, test, or an official split name.")] = "val",
    task: TaskOption = "both",
    protocol: ProtocolOption = "2021",
    cache: Caches = None,
    allow_seen: AllowSeen = False,
    exclude_seen: ExcludeSeen = False,
    shares_images: SharesImages = False,
    allow_code: AllowCode = False,
    image_matters: Annotated[
        bool, typer.Option(help="Also answer with a blank image and with other questions' images.")
    ] = True,
    choices_outside: Annotated[
        bool, typer.Option(help="In multiple choice, pick choices that are no answer of the vocabulary, too.")
    ] = True,
    slice: Annotated[list[str] | None, typer.Option(help="NAME=REGEX: report these questions on their own.")] = None,
    wordnet: WordNetOption = None,
    json: JsonOption = None,
    hf: Annotated[str | None, external_option("Instead of a run: a transformers model, by name or folder.")] = None,
    data: Annotated[Path | None, typer.Option(help="The data set's folder, if not the run's.")] = None,
    format: Annotated[str | None, external_option("How it is laid out, e.g. vqa_v2.")] = None,
    columns: ColumnsOption = None,
    where: WhereOption = None,
    prompt: Annotated[str | None, external_option("What it reads, e.g. 'Question: {question} Short answer:'.")] = None,
    batch_size: Annotated[int | None, external_option("Questions answered together.", min=1, show_default="16")] = None,
    max_new_tokens: Annotated[
        int | None, external_option("Longest generated answer.", min=1, show_default="16")
    ] = None,
    limit: Annotated[int | None, external_option("Only so many questions, a random sample.", min=1)] = None,
    workers: Annotated[int | None, external_option("Threads that prepare images.", min=1, show_default="4")] = None,
    out: Annotated[
        Path | None, external_option("Where its files go.", show_default="experiments/runs/external/…")
    ] = None,
) -> None:
    """Print accuracy beside floors and ceilings; write official results files and report.html into the run folder.

    Takes a trained run, or with --hf any transformers model that answers questions about images (ViLT, BLIP, BLIP-2,
    GIT, chat models): vqa evaluate --hf dandelin/vilt-b32-finetuned-vqa --data data/vqa_v2 --format vqa_v2
    """
    asking = _given(prompt=prompt, batch_size=batch_size, max_new_tokens=max_new_tokens, limit=limit, workers=workers)
    of_run = {
        "--cache": cache, "--allow-seen": allow_seen, "--exclude-seen": exclude_seen,
        "--shares-images": shares_images, "--allow-code": allow_code,
        "--no-choices-outside": not choices_outside, "--no-image-matters": not image_matters,
    }  # fmt: skip
    _require_one(run, hf, of_run, _given(format=format, columns=columns, where=where) | asking | _given(out=out))
    from vqa.evaluation.report.diagnostics import parse_slices
    from vqa.evaluation.wups import open_wordnet

    judging: dict[str, Any] = {"task": task, "protocol": protocol, "slices": parse_slices(slice or ())}
    judging["wordnet"] = wordnet and open_wordnet(wordnet)
    if run is not None:
        from vqa.runs.evaluate import EvaluationOptions, evaluate_run

        options = EvaluationOptions(
            caches=cache or (), data=data, allow_seen=allow_seen, exclude_seen=exclude_seen, allow_code=allow_code,
            choices_outside=choices_outside, image_matters=image_matters, shares_images=shares_images, **judging,
        )  # fmt: skip
        evaluate_run(run, split, options, json_file=json).judgement.print(run)
    elif hf is not None:
        from vqa.external.evaluate import ExternalOptions, evaluate_external

        if data is None or format is None:
            raise InputError("--hf needs --data and --format: the data set that the model is asked about")
        command = shlex.join(["vqa", *sys.argv[1:]])
        external = ExternalOptions(**judging, **asking, table=table_options(columns, where))
        evaluation = evaluate_external(hf, data, format, split, external, out=out, json_file=json, command=command)
        evaluation.judgement.print(evaluation.folder.path)


def _require_one(run: Path | None, hf: str | None, of_run: dict[str, Any], of_hf: dict[str, Any]) -> None:
    """Raise InputError unless there is either a run or a model of others, and no option of the other one."""
    if (run is None) == (hf is None):
        raise InputError("give either a run folder or --hf NAME_OR_PATH with --data and --format")
    if run is not None and of_hf:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in of_hf)
        raise InputError(f"{flags}: only for --hf, not for a run")
    if hf is not None and (given := [flag for flag, value in of_run.items() if value]):
        raise InputError(f"{', '.join(given)}: for a run, not for --hf")


def _given(**options: Any) -> dict[str, Any]:
    """The options that are on the command line."""
    return {name: value for name, value in options.items() if value is not None}


@answers_app.command(
    epilog="Example: vqa predict experiments/runs/san/0 photo.jpg 'what color is the bus?' --attention out.png"
)
def predict(
    run: Annotated[Path, typer.Argument(help="A run folder, experiments/runs/<name>/<seed>.")],
    image: Annotated[Path, typer.Argument(help="Any image.")],
    question: Annotated[str, typer.Argument(help="A question about it.")],
    more: Annotated[
        list[str] | None,
        typer.Argument(metavar="CHOICE", help="The choices after the first, where --choices is given."),
    ] = None,
    choices: Annotated[
        list[str] | None, typer.Option("--choices", help="Choose among these: --choices red blue 'dark green'.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Where the encoder's weights are, if they were moved.")] = None,
    attention: Annotated[
        Path | None, typer.Option(help="Write where the model looked to this PNG, JPEG, WebP or PDF.")
    ] = None,
    allow_code: AllowCode = False,
    json: JsonOption = None,
) -> None:
    """Ask a trained run one question about one image."""
    from vqa.runs.answerer import Answerer, all_choices, print_answer, require_questions

    require_questions([question])
    among = all_choices(question, choices, more)
    answer = Answerer.load(run, weights=weights, allow_code=allow_code).answer(image, question, choices=among)
    print_answer(answer, attention=attention, json_file=json)


@answers_app.command(epilog="Example: vqa submit experiments/runs/san/0 --split test-dev")
def submit(
    run: Annotated[Path | None, typer.Argument(help="A run folder, experiments/runs/<name>/<seed>.")] = None,
    split: Annotated[str, typer.Option(help="test, test-dev, or another official split name.")] = "test",
    task: TaskOption = "both",
    cache: Caches = None,
    data: Annotated[Path | None, typer.Option(help="The data set's folder, if not the run's.")] = None,
    allow_seen: AllowSeen = False,
    allow_code: AllowCode = False,
    check: Annotated[Path | None, typer.Option(help="Check this results file or zip instead of making one.")] = None,
    questions: Annotated[Path | None, typer.Option(help="The official questions file, for --check.")] = None,
) -> None:
    """Check and pack a run's answers for the challenge server: every question, allowed answers, official name, zip."""
    from vqa.runs.evaluate import EvaluationOptions
    from vqa.runs.submit import submit as submit_answers

    options = EvaluationOptions(task=task, caches=cache or (), data=data, allow_seen=allow_seen, allow_code=allow_code)
    submit_answers(run, split, options, check=check, questions=questions)


@answers_app.command(
    epilog="Example: vqa score results.json --questions v2_OpenEnded_mscoco_val2014_questions.json "
    "--annotations v2_mscoco_val2014_annotations.json"
)
def score(
    results: Annotated[list[Path], typer.Argument(metavar="RESULTS...", help=RESULTS_HELP)],
    questions: Annotated[
        Path | None,
        typer.Option(help="The question file; or one that holds the answers, too: a table, GQA's, VizWiz's."),
    ] = None,
    annotations: Annotated[Path | None, typer.Option(help="The annotation file.")] = None,
    data: Annotated[Path | None, typer.Option(help="Instead of files: the data set's folder.")] = None,
    format: Annotated[str | None, typer.Option(help="How it is laid out: vqa_v2, gqa, table, …")] = None,
    split: Annotated[str | None, typer.Option(help="val, test, or an official split name.", show_default="val")] = None,
    columns: ColumnsOption = None,
    where: WhereOption = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="May be given several times: vqa-2021, vqa-2015, vqa-harness, exact, anls, anls-harness, relaxed, "
            "list, wups, wups-0.0; pope, gqa, answerability.",
            show_default="the data set's own",
        ),
    ] = None,
    protocol: Annotated[
        Protocol | None, typer.Option(help="2021, 2015 or harness: the same as --metric vqa-2021 and so on.")
    ] = None,
    task: Annotated[Literal["open-ended", "multiple-choice"] | None, typer.Option(help="Which task.")] = None,
    part: Annotated[bool, typer.Option("--part", help="Score what is there; every number says so.")] = False,
    wordnet: WordNetOption = None,
    choices: Annotated[Path | None, typer.Option(help="GQA's choices file, for validity and plausibility.")] = None,
    train_questions: Annotated[
        Path | None, typer.Option(help="The training split's question file, for floors of most frequent answers.")
    ] = None,
    train_annotations: Annotated[Path | None, typer.Option(help="The training split's annotation file.")] = None,
    write: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYOUT=FILE",
            help="Also write the answers anew: official, by-id, jsonl, csv, lmms-eval, vlmevalkit, gqa, vizwiz, "
            "docvqa, a-okvqa.",
        ),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Score results files of anyone by the data set's own metric or others, beside floors, ceilings and each other.

    Of any data set: vqa score a.jsonl b.tsv --data data/docvqa --format docvqa --metric anls --metric exact

    Of a table: vqa score answers.csv --questions mine/val.csv

    In another layout: vqa score results.json --questions Q.json --annotations A.json --write lmms-eval=samples.jsonl
    """
    from vqa.evaluation.layouts.write import parse_write
    from vqa.evaluation.score_files import Against, ScoreOptions, print_score, rewrite, score_results
    from vqa.evaluation.wups import open_wordnet

    to = [parse_write(text) for text in write or ()]
    if to and len(results) > 1:
        raise InputError("--write takes one results file")
    files = (questions, annotations, train_questions, train_annotations)
    against = Against(data, format, split, *files, table_options(columns, where))
    against.check()
    names = [*(metric or ()), *([f"vqa-{protocol}"] if protocol else ())]
    corpus = None if wordnet is None else open_wordnet(wordnet)
    options = ScoreOptions(tuple(names), part, task, corpus, choices)
    if not to or rewrite(results[0], against, to, part=part):
        print_score(score_results(results, against, options), json_file=json)


@answers_app.command(
    "score-wups",
    epilog="Example: vqa score-wups results.json --data data/daquar --format daquar --split test "
    "--wordnet ~/nltk_data/corpora/wordnet",
)
def score_wups(
    results: Annotated[Path, typer.Argument(help="A results file in the official format, with vqa's question ids.")],
    data: DataOption,
    format: FormatOption,
    split: Annotated[str, typer.Option(help="train, val, test, or an official split name.")] = "test",
    wordnet: WordNetOption = None,
    json: JsonOption = None,
) -> None:
    """Score a results file by WUPS and list accuracy, for DAQUAR, COCO-QA and other sets with one answer a question."""
    from vqa.evaluation.score_files import score_wups as score_near
    from vqa.tables import print_table

    print_table(score_near(results, data, format, split, wordnet, json_file=json).table())
