"""`vqa train RUN/experiment.yaml`: the same run again, and whether it can be the same to the bit."""

from pathlib import Path

from vqa.errors import InputError
from vqa.experiment import RECORDED
from vqa.files import sha256_file
from vqa.overrides import read_yaml


def changed_since(named: Path) -> list[str]:
    """The data files that are others than when the run of an `experiment.yaml` was trained; none of any other file."""
    if not named.is_file():
        return []  # a recipe
    recorded = read_yaml(named).get(RECORDED)
    digests = recorded.get("data") if isinstance(recorded, dict) else None
    changed = []
    for name, digest in digests.items() if isinstance(digests, dict) else ():
        try:
            if sha256_file(Path(name)) != digest:
                changed.append(f"{name}: has changed since {named} was trained, so this run is not the same")
        except InputError:
            continue  # what is missing the reader of the data says
    return changed
