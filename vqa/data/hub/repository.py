"""A repository of data on the hub: what is in it, by configuration and split, and fetching it with huggingface_hub.

What was fetched lies in huggingface_hub's cache (`HF_HOME`) and is read from there when the hub cannot be reached.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from vqa.errors import InputError, first_line, quoted, shortened, unknown_name

PREFIX = "hub:"
CONVERTED = "refs/convert/parquet"  # where the hub keeps what it converted itself
SHARDED = re.compile(r"(?P<split>.+?)-\d{5}-of-\d{5}(-[0-9a-f]+)?")
NUMBERED = re.compile(r"\d+")
TABLES = (".parquet", ".jsonl", ".json", ".csv")
NAMED_SPLIT = re.compile(r"train|val|valid|validate|validation|dev|test|testdev|test-dev", re.IGNORECASE)
SAFE_NAME = re.compile(r"\w[\w.+-]{0,99}")
DEFAULT = "default"
SPLIT_NAMES = {"validation": "val", "validate": "val", "valid": "val"}  # as every other format here calls it
README = "README.md"
IMAGES, INSTRUCTIONS = "_images", "_instructions"  # endings of two configurations that belong together, as GQA's


@dataclass(frozen=True)
class Address:
    """What `hub:OWNER/NAME[:CONFIG]` names."""

    repository: str
    configuration: str = ""

    @classmethod
    def of(cls, text: str) -> "Address":
        """Read an address; raises InputError for what is none.

        >>> Address.of("hub:lmms-lab-encoder/DocVQA:InfographicVQA")
        Address(repository='lmms-lab-encoder/DocVQA', configuration='InfographicVQA')
        """
        found = re.fullmatch(r"hub:([\w.-]+/[\w.-]+)(?::([\w.-]+))?", text)
        if found is None:
            raise InputError(f"{shortened(text)!r}: an address is hub:OWNER/NAME or hub:OWNER/NAME:CONFIGURATION")
        return cls(found[1], found[2] or "")


@dataclass(frozen=True)
class Repository:
    """One revision of a repository.

    Attributes:
        name: "OWNER/NAME".
        revision: the commit.
        sizes: bytes of every file by its path; 0 where the hub does not say.
        configurations: by name, the files of each split, in order.
    """

    name: str
    revision: str
    sizes: Mapping[str, int]
    configurations: Mapping[str, Mapping[str, Sequence[str]]]

    def choose(self, configuration: str) -> str:
        """The configuration of that name, or the only one; one that is kept in two (`X_images` and `X_instructions`)
        goes by their common name.

        Raises:
            InputError: there is none of that name, or there are several to choose from.
        """
        pairs = [name.removesuffix(IMAGES) for name in self.configurations if name.endswith(IMAGES)]
        joined = [name for name in pairs if name + INSTRUCTIONS in self.configurations]
        halves = {name + half for name in joined for half in (IMAGES, INSTRUCTIONS)}
        names = [*(name for name in self.configurations if name not in halves), *joined]
        if configuration:
            if configuration not in names:
                raise InputError(unknown_name(f"configuration of {self.name}", configuration, names))
            return configuration
        if len(names) == 1 or DEFAULT in names:
            return DEFAULT if DEFAULT in names else names[0]
        example = f"{PREFIX}{self.name}:{names[0]}"
        raise InputError(
            f"{self.name}: has {len(names)} configurations; choose one, as {example}: {', '.join(sorted(names))}"
        )


def look_up(name: str, revision: str | None = None) -> Repository:
    """What a repository holds, from the hub or, when it cannot be reached, from the cache.

    Args:
        name: "OWNER/NAME".
        revision: the commit of an earlier call, so that it goes on with the same files; None takes the newest.

    Raises:
        InputError: there is no such repository, or it has no file that can be read.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RevisionNotFoundError

    with _explained(name):
        commit, sizes = _files(name, revision)
        if revision is None and README in sizes:
            hf_hub_download(name, README, repo_type="dataset")  # so that the cache knows which commit is the newest
        found = _configurations(name, commit, sizes)
        if not found and revision is None:
            with suppress(RevisionNotFoundError):
                commit, sizes = _files(name, CONVERTED)
                found = _configurations(name, commit, sizes)
    if not found:
        raise InputError(f"{name}: has no parquet file, and no JSON or CSV file named as a split")
    return Repository(name, commit, sizes, found)


def fetch(repository: Repository, file: str) -> Path:
    """One file, from the cache where it is there; raises InputError when it cannot be fetched."""
    from huggingface_hub import hf_hub_download

    with _explained(repository.name):
        return Path(hf_hub_download(repository.name, file, repo_type="dataset", revision=repository.revision))


def is_fetched(repository: Repository, file: str) -> bool:
    """Whether the file lies in the cache."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository.name, file, repo_type="dataset", revision=repository.revision)
    return isinstance(found, str)


def cache_folder() -> Path:
    """Where huggingface_hub keeps what it fetched."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _files(name: str, revision: str | None) -> tuple[str, dict[str, int]]:
    """The commit and the sizes of its files."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        info = HfApi().dataset_info(name, revision=revision, files_metadata=True)
    except HfHubHTTPError:
        raise  # the hub answered
    except (OfflineModeIsEnabled, HTTPError, ConnectionError) as error:
        try:
            folder = Path(snapshot_download(name, repo_type="dataset", revision=revision, local_files_only=True))
        except LocalEntryNotFoundError:
            raise InputError(f"{name}: the hub cannot be reached, and the cache has nothing of it ({error})") from None
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        return folder.name, {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
    siblings = info.siblings or []
    return str(info.sha), {one.rfilename: one.size or 0 for one in siblings}


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """The hub's errors as InputError."""
    from huggingface_hub.errors import GatedRepoError, HTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        yield
    except GatedRepoError:
        raise InputError(
            f"{name}: its owner lets in only whom it knows; accept the terms at the hub, then `hf auth login`"
        ) from None
    except RepositoryNotFoundError:
        raise InputError(f"{name}: no such data set on the hub, or a private one (`hf auth login`)") from None
    except (HTTPError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"{name}: the hub did not answer: {shortened(first_line(error))}; run again to go on"
        ) from None


def _configurations(name: str, commit: str, sizes: Mapping[str, int]) -> dict[str, dict[str, list[str]]]:
    """By configuration and split: as the data set's card says, else as folders and names say."""
    files = sorted(sizes)
    stated = _stated(name, commit, files) if README in sizes else {}
    if stated:
        return stated
    found: dict[str, dict[str, list[str]]] = {}
    for file in files:
        place = _place(file)
        if place is not None and file.endswith(".parquet"):
            found.setdefault(place[0], {}).setdefault(place[1], []).append(file)
    if found:
        return found
    for file in files:  # tables at the root that are named as splits
        path = PurePosixPath(file)
        if len(path.parts) == 1 and path.suffix in TABLES and NAMED_SPLIT.fullmatch(path.stem):
            found.setdefault(DEFAULT, {}).setdefault(_split_name(path.stem), []).append(file)
    return found


def _stated(name: str, commit: str, files: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """What the card at the head of README.md says under `configs`."""
    text = fetch(Repository(name, commit, {}, {}), README).read_text(encoding="utf-8", errors="replace")
    head = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
    try:
        card: Any = yaml.safe_load(head[1]) if head else None
    except yaml.YAMLError:
        card = None
    configs = card.get("configs") if isinstance(card, dict) else None
    found: dict[str, dict[str, list[str]]] = {}
    for config in configs if isinstance(configs, list) else []:
        stated = config.get("data_files") if isinstance(config, dict) else None
        for one in stated if isinstance(stated, list) else []:
            if not isinstance(one, dict) or "split" not in one:
                continue
            patterns = one.get("path")
            patterns = patterns if isinstance(patterns, list) else [patterns]
            matching = [file for file in files if any(fnmatch(file, str(pattern)) for pattern in patterns)]
            readable = [file for file in matching if file.endswith(TABLES)]
            if readable:
                splits = found.setdefault(str(config.get("config_name", DEFAULT)), {})
                splits.setdefault(_split_name(str(one["split"])), []).extend(readable)
    return found


def _place(file: str) -> tuple[str, str] | None:
    """Configuration and split of a parquet file by its path."""
    path = PurePosixPath(file)
    folders = [part for part in path.parts[:-1] if part != "data"]
    if NUMBERED.fullmatch(path.stem) and folders:  # CONFIGURATION/SPLIT/0000.parquet
        *folders, split = folders
    else:
        shard = SHARDED.fullmatch(path.stem)
        split = shard["split"] if shard else path.stem
    return "-".join(folders) or DEFAULT, _split_name(split)


def _split_name(name: str) -> str:
    """A split as it is called here; raises InputError for a name that could not be that of a table in the folder."""
    if not SAFE_NAME.fullmatch(name):
        raise InputError(f"the data set calls a split {quoted(name)}, which is no name of a file")
    return SPLIT_NAMES.get(name.lower(), name)
