"""Send an exported folder to the Hugging Face hub.

`find_repository` asks the hub before anything is exported, so that a wrong name, a missing token or
no network is told at once. `listing` shows what would be sent; `send` sends it, in one commit. The
client is that of `huggingface_hub`, with its variables: HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import join
from typing import Any

from tell_lightning.settings import ConfigError

CARD = "README.md"
PUSH, PUBLIC, YES = "--push", "--public", "--yes"


@dataclass(frozen=True)
class Repository:
    """A repository of the hub, as it was before anything is sent."""

    name: str
    """As owner/name."""
    public: bool
    exists: bool = False
    files: frozenset[str] = frozenset()
    """Paths of the files that it holds."""

    @property
    def shown(self) -> str:
        """Name, state and who can read it, in words."""
        state = "" if self.exists else "new, "
        readers = "public: everybody can read it" if self.public else "private"
        return f"{self.name} ({state}{readers})"


def find_repository(name: str, *, public: bool) -> Repository:
    """Ask the hub whether a repository can be pushed to, and what it holds.

    Args:
        name: The repository, as owner/name.
        public: Whether everybody may read it.

    Raises:
        ConfigError: The name cannot be one, there is no token that may write, the owner is
            somebody else, a public repository was not asked for, or the hub does not answer.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    _check_name(name)
    api = HfApi()
    with _told(f"to push to '{name}'", "Check the network."):
        user = api.whoami()
    if (user.get("auth") or {}).get("accessToken", {}).get("role") == "read":
        raise ConfigError(
            "HF_TOKEN: must be a token that may write, got one that may only read. Make one at "
            f"{api.endpoint}/settings/tokens, and log in with it: `hf auth login --force`."
        )
    owner = name.partition("/")[0]
    owners = [user["name"], *(each["name"] for each in user.get("orgs") or [])]
    if owner.casefold() not in map(str.casefold, owners):
        raise ConfigError(
            f"{PUSH}: the owner must be one of {', '.join(owners)}, whose token this is, got "
            f"'{owner}'. Change the name, or log in as another user: `hf auth login`."
        )
    with _told(f"to push to '{name}'", "Check the network."):
        try:
            found = api.model_info(name)
        except RepositoryNotFoundError:
            return Repository(name, public)
    if not found.private and not public:
        raise ConfigError(
            f"{PUSH}: must be a private repository unless {PUBLIC} is given, got '{name}', which "
            f"everybody can read. Add {PUBLIC}, or name another one."
        )
    files = frozenset(each.rfilename for each in found.siblings or [])
    return Repository(name, not found.private, exists=True, files=files)


def listing(folder: Path, repository: Repository) -> list[list[str]]:
    """List the files of a folder and of its repository: path, size, and what happens to each.

    Args:
        folder: The exported folder.
        repository: Where it would be sent.
    """
    mine = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    return [
        *([path, f"{(folder / path).stat().st_size:,}", _fate(path, repository)] for path in mine),
        *(
            [path, "", "stays there"]
            for path in sorted(repository.files.difference(mine, {".gitattributes"}))
        ),
    ]


def send(folder: Path, repository: Repository) -> str:
    """Make the repository if there is none, send the files, and return the address of the commit.

    Args:
        folder: The exported folder.
        repository: What `find_repository` returned. A card that it holds is kept.

    Raises:
        ConfigError: The hub refuses, or does not answer.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    with _told(f"to take '{folder}'", f"Send it again: `{upload_line(folder, repository)}`."):
        api.create_repo(repository.name, private=not repository.public, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository.name,
            folder_path=folder,
            commit_message="Export of tell_lightning",
            ignore_patterns=[CARD] if CARD in repository.files else None,
        )
    return str(done.commit_url)


def upload_line(folder: Path, repository: Repository) -> str:
    """Return the command that sends the files later."""
    words = ["hf", "upload", repository.name, str(folder), "."]
    if not repository.public:
        words.append("--private")
    if CARD in repository.files:
        words += ["--exclude", CARD]
    return join(words)


def _check_name(name: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
        fits = "/" in name
    except HFValidationError:
        fits = False
    if not fits:
        raise ConfigError(
            f"{PUSH}: must be OWNER/NAME, of letters, digits, '-', '_' and '.', got '{name}'. "
            "Write your name on the hub, a slash, and a name for the model."
        )


def _fate(path: str, repository: Repository) -> str:
    if path not in repository.files:
        return ""
    return "not sent: the card there is kept" if path == CARD else "replaces the one there"


@contextmanager
def _told(what: str, advice: str) -> Iterator[None]:
    """Turn an error of the hub's client into one line.

    Args:
        what: What the hub was needed for.
        advice: What to do where the hub does not say it.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
    )

    # The bases are OSError and the error of httpx or httpx2, by the version of huggingface_hub; its
    # storage raises RuntimeError, and metadata that the hub does not take ValueError.
    failures: tuple[type[BaseException], ...]
    failures = (*HfHubHTTPError.__bases__, RuntimeError, ValueError)
    rule = f"{PUSH}: needs the hub, {constants.ENDPOINT}, {what}, got"
    try:
        yield
    except LocalTokenNotFoundError as error:
        raise ConfigError(
            f"{PUSH}: needs a token of the hub, got none. Log in with `hf auth login`, or set "
            "HF_TOKEN."
        ) from error
    except OfflineModeIsEnabled as error:
        raise ConfigError(
            f"{rule} HF_HUB_OFFLINE, which is set, or no answer earlier. Unset it. {advice}"
        ) from error
    except HfHubHTTPError as error:
        raise ConfigError(
            f"{rule} {_answer(error)}. See `hf auth whoami`, and what the token may do. {advice}"
        ) from error
    except failures as error:
        said = [str(each).strip().rstrip(".") for each in (error, error.__cause__) if each]
        reason = ": ".join(filter(None, said)) or type(error).__name__
        raise ConfigError(f"{rule}: {reason}. {advice}") from error


def _answer(error: Any) -> str:
    """Return the status and the reason that the hub gives."""
    reason = error.server_message or str(error).strip().splitlines()[0]
    return f"{error.response.status_code}: {reason.rstrip('. ')}"
