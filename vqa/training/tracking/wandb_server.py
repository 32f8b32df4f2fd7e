"""Whether Weights & Biases can be reached, asked before anything waits for it; and what the environment says of it."""

import netrc
import os
from pathlib import Path
from urllib.parse import urlparse

from vqa.progress import console

CLOUD = "https://api.wandb.ai"
ASKING = 10  # seconds that a server has to answer
MODES = {"disabled": 0, "dryrun": 1, "offline": 1, "online": 2}  # by how much of a run they let out


def lowered(mode: str) -> str:
    """The experiment's mode, or that of WANDB_MODE where it lets out less of the run, which is printed then."""
    asked = os.environ.get("WANDB_MODE", "").strip().lower()
    if MODES.get(asked, MODES["online"]) >= MODES[mode]:
        return mode
    found = "offline" if asked == "dryrun" else asked
    console.print(f"W&B: {found}, as WANDB_MODE={asked} says (the experiment: {mode})")
    return found


def unusable() -> str:
    """Why no W&B server can be had now, in words; "" where one can, or where W&B itself had better find out."""
    import requests

    if not has_key():
        return "no API key found (`wandb login` stores one)"
    key, server = find_key(), os.environ.get("WANDB_BASE_URL", CLOUD).rstrip("/")
    asked = {"query": "query { viewer { id } }"}
    try:
        with requests.post(
            f"{server}/graphql", json=asked, auth=("api", key) if key else None, timeout=ASKING
        ) as answer:
            status = answer.status_code
    except (requests.exceptions.SSLError, requests.exceptions.InvalidURL):  # W&B's own client may know better
        return ""
    except requests.exceptions.RequestException as error:
        return f"{server} does not answer ({type(error).__name__})"
    refused = status >= 500 or (key and status in (401, 403))
    return f"{server} answers {status}" if refused else ""


def has_key() -> bool:
    """Whether W&B could log in without asking: a key in the environment or in the netrc file."""
    return bool(find_key() or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"))


def find_key() -> str:
    """The API key in the environment or in the netrc file; "" where there is none."""
    if key := os.environ.get("WANDB_API_KEY"):
        return key
    host = urlparse(os.environ.get("WANDB_BASE_URL", CLOUD)).hostname or ""
    for name in filter(None, [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]):
        try:
            path = Path(name).expanduser()
            found = netrc.netrc(str(path)).authenticators(host) if path.is_file() else None
        except (netrc.NetrcParseError, OSError, RuntimeError):
            continue  # one that cannot be read, or a user without a home, has no usable key
        if found and found[2]:
            return found[2]
    return ""
