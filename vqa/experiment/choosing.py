"""What a run was trained on and what chose its weights, in words: those of every table, report and summary."""

from vqa.data.holdout import CONSECUTIVE, IMAGE, OWN, WORD
from vqa.experiment.reading import Experiment


def validated_on(experiment: Experiment, *, of_one_run: bool = True) -> str:
    """What a run is validated on: "split val", "held out: 20% of the images of split train, seed 0"; "" for nothing.

    Args:
        of_one_run: also which of several folds it is, which differs from run to run.
    """
    data, holdout = experiment.data, experiment.data.held_out
    if holdout is None:
        return f"split {data.val}" if data.val is not None else ""
    return f"held out{_by(holdout.by)}: {_part(experiment, of_one_run)}, seed {holdout.seed}"


def weights_chosen(experiment: Experiment, *, of_one_run: bool = True) -> str:
    """Which epoch's weights are the model, and by what they were chosen or on what trained: a sentence, no stop.

    Args:
        of_one_run: as for `validated_on`; without it the runs of all folds say the same.
    """
    data, holdout = experiment.data, experiment.data.held_out
    if experiment.training.keep == "last":
        val = validated_on(experiment, of_one_run=of_one_run)
        beside = f"; {val} chose nothing" if val else ""
        epochs = experiment.training.epochs
        which = f"last of {epochs} epoch{'s' if epochs > 1 else ''}, trained on"
        return f"Weights: {which} {'the rest' if holdout else 'all'} of {_joined(data.train_splits)}{beside}"
    if holdout is None:
        return f"Weights: best epoch on split {data.val}, trained on {_joined(data.train_splits)}"
    part = _part(experiment, of_one_run)
    return f"Weights: best epoch on {part}, held out{_by(holdout.by)} (seed {holdout.seed}), trained on the rest"


def _part(experiment: Experiment, of_one_run: bool) -> str:
    holdout = experiment.data.held_out
    assert holdout is not None
    of = f"the images of split {_joined(experiment.data.train_splits)}"
    if holdout.folds is None:
        return f"{holdout.share:.0%} of {of}"
    return f"{f'fold {holdout.fold}' if of_one_run else 'one'} of {holdout.folds} folds of {of}"


def _by(by: str) -> str:
    """How groups stay whole; nothing where every image is its own."""
    if by == IMAGE:
        return ""
    if by == CONSECUTIVE:
        return " by runs of consecutive images"
    return f" by {by}" if by in OWN or WORD.fullmatch(by) else f" by groups ({by})"


def _joined(splits: tuple[str, ...]) -> str:
    return "+".join(splits)
