"""Files of Hugging Face repositories: find them, and fetch them into huggingface_hub's cache.

The hub's library takes 0.4 s of CPU time and 15 MB to import: what does not need the hub must not
import this module.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from huggingface_hub import (
    HfApi,
    constants,
    errors,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    WeakFileLock,
    build_hf_headers,
)

from app.errors import FormError, TransferError
from app.models import arrival, hub_client, snapshot
from app.models.arrival import Content, Target
from app.models.kept import Note
from app.models.part_file import PartFile, bytes_here
from app.models.parts import OnHub, Part
from app.models.progress import Arrived
from app.models.reference import (
    KEY,
    HubFile,
    censored,
    choose,
    is_glob,
    shards,
)
from app.models.repository import nearest, of_repository
from app.models.transfer import hasher_of
from app.models.web import Web

NOT_KEPT = "a token typed into the form is not kept for a second run"

LISTED_IN = 10.0  # seconds

# What the hub's library raises if the hub or the network is at fault. Its HTTP client raises
# HTTPError; hf_xet raises RuntimeError, should the library ever fetch from the chunked storage.
UNREACHABLE = (errors.HTTPError, OSError, RuntimeError)  # type: ignore[attr-defined]

# What the library raises where an answer is none of a hub's.
STRANGE = (AttributeError, LookupError, TypeError, json.JSONDecodeError)
NO_HUB = "what answers there is no hub"

hub_client.install()


def shared_cache() -> Path:
    """The cache that all programs of this user share, as HF_HOME and other variables say."""
    return Path(constants.HF_HUB_CACHE)


def locate(file: HubFile, cache: Path) -> OnHub:
    """Ask the hub for the file and the other parts of its set, or the cache if the hub is silent.

    Raises FormError that says what was looked for.
    """
    first: Exception | None = None
    for revision, path in file.meanings():
        try:
            return _locate(file, revision, path, cache)
        except (EntryNotFoundError, RevisionNotFoundError, FormError) as error:
            first = first or error
        except (*UNREACHABLE, *STRANGE, ValueError) as error:  # HFValidationError is one
            first = error
            break
    if isinstance(first, FormError):
        raise first
    revision, path = file.meanings()[0]
    assert first is not None
    raise FormError(KEY, _explain(file.repo, revision, path, first)) from None


def _locate(file: HubFile, revision: str, path: str, cache: Path) -> OnHub:
    repo = file.repo
    folder, commit, parts = _folder(repo, cache), "", []
    if not path:
        path = of_repository(repo, file.kind, _files(repo, revision, cache))
    elif is_glob(path):
        path = choose(path, _files(repo, revision, cache))
    for shard in shards(path):
        answer = hf_hub_download(
            repo, shard, revision=commit or revision, cache_dir=cache, dry_run=True
        )
        commit = answer.commit_hash
        parts.append(_part(repo, shard, commit, answer.file_size or 0, folder))
    return OnHub(repo, revision, commit, tuple(parts))


def _part(repo: str, path: str, commit: str, size: int, folder: Path) -> Part:
    """How much of a file the cache has. Its content may be there under an earlier commit."""
    local = folder / "snapshots" / commit / path
    if local.exists():
        return Part(path, size, cached=True, local=local)
    told = get_hf_file_metadata(hf_hub_url(repo, path, revision=commit))
    etag, size = told.etag or "", told.size or size
    if etag and not hub_client.is_name(etag):
        where = f"{repo}/{path}: {hub_client.endpoint()}"
        raise FormError(KEY, f"{where} tells of {etag[:80]!r}, which is no ETag")
    blob = folder / "blobs" / etag
    if etag and blob.exists():
        return Part(path, size, cached=True, local=snapshot.point(folder, commit, path, blob))
    partial = _part_of(folder, etag)
    return Part(path, size, False, etag, bytes_here(partial), partial)


def _files(repo: str, revision: str, cache: Path) -> list[str]:
    """The repository's files; those in the cache, if the hub does not answer."""
    try:
        return _listed(repo, revision)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise
    except (*UNREACHABLE, *STRANGE) as error:
        folder = _folder(repo, cache)
        try:
            commit = (folder / "refs" / revision).read_text()
        except OSError:
            raise LocalEntryNotFoundError(f"{repo} is not in the cache") from error
        snapshot = folder / "snapshots" / commit
        return [str(p.relative_to(snapshot)) for p in snapshot.rglob("*") if p.is_file()]


def _listed(repo: str, revision: str) -> list[str]:
    """Not by `list_repo_files`, which asks a hub that is away for 23 s."""
    found = HfApi().model_info(repo, revision=revision, timeout=LISTED_IN).siblings
    return [file.rfilename for file in found or ()]


def fetch(located: OnHub, cache: Path, arrived: Arrived, note: Note) -> list[Path]:
    """All parts, in one folder under their own names. Raises TransferError.

    The library itself throws an unfinished download away, and takes one connection for a file: so
    files are fetched here, and placed into its cache, where it finds them.
    """
    folder = _folder(located.repo, cache)
    return [_fetch_part(located, part, folder, arrived, note) for part in located.parts]


def _fetch_part(located: OnHub, part: Part, folder: Path, arrived: Arrived, note: Note) -> Path:
    try:
        local = part.local if part.cached else None
        if local is None:
            _fill(located, part, folder, arrived, note)
            blob = folder / "blobs" / part.version
            local = snapshot.point(folder, located.commit, part.path, blob)
        snapshot.name(folder, located.revision, located.commit)
    except UNREACHABLE as error:
        raise TransferError(f"{located.source(part)}: {_said(error)}") from None
    return local


def _fill(located: OnHub, part: Part, folder: Path, arrived: Arrived, note: Note) -> None:
    """Fetch the content, and give it its place among the blobs. What it is, is said by the hub: the
    storage that it redirects to has names of its own."""
    etag, source = part.version, located.source(part)
    if not etag or part.partial is None:
        raise TransferError(f"{source}: the hub does not say what it is")
    blob, digest = folder / "blobs" / etag, hasher_of(etag, part.size)
    lock = folder.parent / ".locks" / folder.name / f"{etag}.lock"

    def place(whole: PartFile) -> None:
        blob.parent.mkdir(parents=True, exist_ok=True)
        lock.parent.mkdir(parents=True, exist_ok=True)
        note(blob.resolve(), source)
        with WeakFileLock(lock):
            whole.placed(blob)

    arrival.fetch(
        web(located, part),
        Content(etag, part.size, etag if digest else "", digest),
        Target(part.partial, blob.exists, place),
        arrived,
        part.here,
    )


def web(located: OnHub, part: Part) -> Web:
    """Where the hub has it, with our token."""
    url = hf_hub_url(located.repo, part.path, revision=located.commit)
    return Web(url, build_hf_headers(), title=located.source(part))


def _folder(repo: str, cache: Path) -> Path:
    return cache / repo_folder_name(repo_id=repo, repo_type="model")


def _part_of(folder: Path, etag: str) -> Path:
    """In the repository's own folder, so that it goes where that goes; outside of `blobs`, where
    the library would take it for whole."""
    return folder / ".partial" / f"{etag}.part"


def _looked(repo: str, revision: str, path: str) -> str:
    where = f"in the repository {repo!r} (revision {revision}) at {hub_client.endpoint()}"
    if path:
        return f"looked for {path!r} {where}"
    here = f" (for what is here write './{repo}')" if Path(repo).exists() else ""
    return f"looked for a GGUF file {where}{here}"


def _explain(repo: str, revision: str, path: str, error: Exception) -> str:
    looked = _looked(repo, revision, path)
    token = "the token of HF_TOKEN"
    if isinstance(error, GatedRepoError):
        page = f"{hub_client.endpoint()}/{repo}"
        access = f"{token} has no access; ask for it at {page}"
        if not os.environ.get("HF_TOKEN"):
            access = f"ask for access at {page}, and set HF_TOKEN to a token that has it"
        return f"{looked}: the repository is gated: {access} ({NOT_KEPT})"
    if isinstance(error, RepositoryNotFoundError):
        told = f"{token} may not read it, if it is private"
        if not os.environ.get("HF_TOKEN"):
            told = f"set HF_TOKEN if it is private; {NOT_KEPT}"
        return f"{looked}: no such repository ({told})"
    if isinstance(error, RevisionNotFoundError):
        return f"{looked}: no such revision"
    if isinstance(error, OfflineModeIsEnabled | LocalEntryNotFoundError):
        return f"{looked}: not in the cache, and {_silence(error)}"
    if isinstance(error, EntryNotFoundError) and isinstance(error, HfHubHTTPError):
        return f"{looked}: no such file; {_instead(repo, revision, path)}"
    return f"{looked}: {NO_HUB if isinstance(error, STRANGE) else _said(error)}"


def _silence(error: Exception) -> str:
    """Why the hub told nothing."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE forbids to ask"
    cause = error.__cause__
    status = getattr(getattr(cause, "response", None), "status_code", None)
    if isinstance(cause, hub_client.LongWaitError):
        return str(cause)
    if isinstance(cause, (FileMetadataError, *STRANGE)) or status == 404:  # it says what is missing
        return NO_HUB
    return "it does not answer" if status is None else f"it answers with status {status}"


def _said(error: Exception) -> str:
    """The error in one line. A time-out may have no message: its type is always named."""
    text = f"{type(error).__name__}: {str(error).strip()}".rstrip(": ").splitlines()[0]
    return censored(text)  # the hub redirects to addresses that are signed


def _instead(repo: str, revision: str, path: str) -> str:
    """The GGUF files that there are, the one that may have been meant first."""
    try:
        listed = _listed(repo, revision)
    except (*UNREACHABLE, *STRANGE, ValueError):
        return "and the hub does not list its files"
    files = [name for name in listed if name.endswith(".gguf")]
    if not files:
        return "it has no GGUF file"
    return f"it has {', '.join(map(repr, nearest(path, files)))}"
