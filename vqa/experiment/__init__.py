"""An experiment: what its file may say, and how it is read."""

from vqa.experiment.reading import (
    Experiment,
    check_experiment,
    check_overridden,
    check_recorded,
    outside_parts,
    read_experiment,
)
from vqa.experiment.sections import (
    AnswersSection,
    FeaturesSection,
    OptimizerSection,
    PartSection,
    ScheduleSection,
    Section,
    Seed,
    TrackingSection,
    TrainingSection,
)

__all__ = [
    "AnswersSection",
    "Experiment",
    "FeaturesSection",
    "OptimizerSection",
    "PartSection",
    "ScheduleSection",
    "Section",
    "Seed",
    "TrackingSection",
    "TrainingSection",
    "check_experiment",
    "check_overridden",
    "check_recorded",
    "outside_parts",
    "read_experiment",
]
