"""A bundle: a run or model in one file, to be carried out of a closed network, and checked there.

A zip without compression and without times, so that the same ledger gives the same bytes:
    manifest.json           what it is, and each file's digests
    manifest.dsse.json      its signature; public_key.pem checks it
    model.dsse.json         of a model: how it was made (SLSA provenance), signed
    ledger/                 the chain of digests up to it, and what its own entries say
    parameters.json         stage -> parameters
    metrics.json            stage -> metric -> value
    card.md                 of a model: its card
    files/                  metrics.json, history.csv, ...; on request predictions, weights

No patient's key is in it unless predictions were asked for: whom a training sampled stays at home.
"""

from __future__ import annotations

import io
import json
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from lapvqa import storage
from lapvqa.errors import EXIT_BAD_DATA, ConfigError, LapvqaError, MissingArtifactError
from lapvqa.lineage import chosen, dvc_cache, file_digests, ledger, signing
from lapvqa.lineage.ancestry import WEIGHTS, Ancestry, Told
from lapvqa.lineage.card import check, document, markdown
from lapvqa.lineage.ledger import IMPORT, RELEASE, Draft, Entry
from lapvqa.lineage.provenance import provenance
from lapvqa.project import Project

FORMAT = "lapvqa-bundle/1"
MANIFEST, SIGNATURE, PUBLIC_KEY = "manifest.json", "manifest.dsse.json", "public_key.pem"
OUTSIDE = (MANIFEST, SIGNATURE, PUBLIC_KEY)
"""What the manifest does not list."""

_ALWAYS = {
    "metrics.json",
    "headline.json",
    "curves.csv",
    "history.csv",
    "training.json",
    "card.json",
}
_PREDICTIONS = {"predictions.parquet"}  # never those of sealed patients: nobody sees them
_WEIGHTS = {WEIGHTS, "model_best.pt"}
_UNREADABLE = (
    zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError,
    struct.error, zlib.error,
)  # fmt: skip
"""What zipfile raises on a damaged file."""
_TIME = (1980, 1, 1, 0, 0, 0)


class BundleError(LapvqaError):
    """A bundle is damaged, was changed, or is none."""

    exit_code = EXIT_BAD_DATA


@dataclass(frozen=True)
class Content:
    """One file of a bundle: how it is opened, and its size."""

    open: Callable[[], AbstractContextManager[BinaryIO]]
    size: int


@dataclass(frozen=True)
class Packed:
    """What was packed, or imported."""

    target: str
    """The id of the run."""
    digest: str
    """sha256 of the manifest: the bundle's identity."""
    key: str
    """Id of the key that signed."""
    files: int
    bytes: int
    absent: tuple[str, ...]
    """Files that the ledger knows and this project has no more."""
    new: bool
    """Whether the ledger did not know of it yet."""
    contaminated: bool = False
    """Whether a decision in the ledger calls a training contaminated that it stands on."""
    repaired: str = ""
    """What was damaged in the folder of an earlier import, which was made anew."""


def pack(
    project: Project, target: str, out: Path, *, predictions: bool = False, weights: bool = False
) -> Packed:
    """Write a bundle of a run or model to ``out``; the ledger keeps that it was released.

    Raises ConfigError if nothing has that name, MissingArtifactError if what was asked for is not
    here any more.
    """
    ancestry = Ancestry(ledger.entries(project))
    told = chosen.run(project, ancestry, target)
    scope = ancestry.scope(told)
    wanted = _ALWAYS | (_PREDICTIONS if predictions else set()) | (_WEIGHTS if weights else set())
    files, absent = _artefacts(project, scope, wanted)
    asked = [path for path in absent if path.rpartition("/")[2] not in _ALWAYS]
    if asked:
        raise MissingArtifactError(
            f"expected {asked[0]} as run {told.id[:12]} left it, found another or none",
            hint="`dvc checkout` the commit that holds it, or leave out --predictions, --weights",
        )
    contents = {**_texts(project, ancestry, told, scope), **files}
    chain = contents["ledger/chain.jsonl"]
    manifest = {
        "format": FORMAT,
        "run": told.id,
        "stage": told.run.stage,
        "model": told.weights,
        "head": _last_id(chain),
        "predictions": predictions,
        "weights": weights,
        "absent": absent,
        "files": {name: _described(content) for name, content in sorted(contents.items())},
    }
    text = _json(manifest)
    digest = _sha256(text)
    signed = signing.statement(
        {MANIFEST: digest}, signing.BUNDLE, {"run": told.id, "head": manifest["head"]}
    )
    key = signing.public_key(project)
    contents |= {
        MANIFEST: _of_bytes(text),
        SIGNATURE: _of_bytes(signing.sign(project, signed)),
        PUBLIC_KEY: _of_bytes(key),
    }
    released = {
        "bundle": digest, "run": told.id, "predictions": predictions, "weights": weights,
        "name": out.name,
    }  # fmt: skip
    with storage.atomic_path(out) as temporary:
        with temporary.open("wb") as file:
            _write_zip(file, contents)
        new = _tell_once(project, RELEASE, released)  # no bundle leaves that nothing tells of
    size = sum(content.size for content in contents.values())
    said = (entry.payload or {} for entry in ancestry.beside(scope))
    contaminated = any(one.get("verdict") == "contaminated" for one in said)
    return Packed(
        told.id, digest, signing.key_id(key), len(contents), size, tuple(absent), new, contaminated
    )


def unpack(project: Project, file: Path, *, public_key: bytes | None = None) -> Packed:
    """Check a bundle and bring it into imports/; the ledger keeps that it came, once.

    ``public_key`` (PEM) is the sender's, if it is known by another way than the bundle. Raises
    BundleError or SignatureError that name what was changed, MissingArtifactError without a file;
    nothing is written then.
    """
    if not file.is_file():
        raise MissingArtifactError(
            f"expected a bundle at {file}, found none",
            hint="name the zip that the other project's `lapvqa bundle` wrote",
        )
    with _opened(file) as (archive, contents):
        manifest, text, key = _checked_manifest(contents, public_key)
        for name, described in manifest["files"].items():
            with _readable(name), contents[name].open() as stream:
                fault = file_digests.fault(stream, contents[name].size, described)
            if fault:
                raise _refused(f"{name}: {fault}")
        with file.open("rb") as original:
            _write_zip(_Comparison(original), contents)
            if original.read(1):
                raise _refused("the zip itself: something stands behind its end")
        digest = _sha256(text)
        folder = project.imported(digest)
        damage = _damage(folder, manifest["files"], {n: _read(contents[n], n) for n in OUTSIDE})
        if damage or not folder.exists():
            _extract(archive, contents, folder)
    arrived = {
        "bundle": digest, "run": manifest["run"], "stage": manifest["stage"],
        "model": manifest["model"], "head": manifest["head"], "key": signing.key_id(key),
        "key_known": public_key is not None,
    }  # fmt: skip
    new = _tell_once(project, IMPORT, arrived)
    size = sum(content.size for content in contents.values())
    return Packed(
        manifest["run"], digest, arrived["key"], len(contents), size,
        tuple(manifest["absent"]), new, repaired=damage,
    )  # fmt: skip


def _tell_once(project: Project, kind: str, payload: dict[str, Any]) -> bool:
    """Write an entry unless one of its kind tells of this bundle; say whether it was written."""

    def unless_told(before: list[Entry]) -> list[Draft]:
        told = (e.payload for e in before if e.kind == kind and e.payload)
        known = any(one.get("bundle") == payload["bundle"] for one in told)
        return [] if known else [Draft(kind, payload)]

    return bool(ledger.extend(project, unless_told))


def _texts(
    project: Project, ancestry: Ancestry, told: Told, scope: list[Told]
) -> dict[str, Content]:
    """Return the files that are made of the ledger alone."""
    ids = {one.id for one in scope} | {entry.id for entry in ancestry.beside(scope)}
    texts: dict[str, bytes] = {}
    if told.weights:
        card = markdown.render(document.card(ancestry, told))
        ids |= check.cited(card, ancestry.entries)  # of the model before, what the card tells of it
        texts["card.md"] = card.encode()
        texts["model.dsse.json"] = signing.sign(project, provenance(ancestry, told))
    chain, payloads = ledger.part(project, ids)
    texts |= {
        "ledger/chain.jsonl": chain,
        "ledger/payloads.jsonl": payloads,
        "parameters.json": _json({one.run.stage: one.run.params for one in scope}),
        "metrics.json": _json({o.run.stage: o.run.metrics for o in scope if o.run.metrics}),
    }
    return {name: _of_bytes(text) for name, text in texts.items()}


def _artefacts(
    project: Project, scope: list[Told], wanted: set[str]
) -> tuple[dict[str, Content], list[str]]:
    """Return the wanted outputs of the runs as ``files/...``, and which are not here."""
    found: dict[str, Content] = {}
    absent = []
    for told in scope:
        for path, md5 in told.run.outs.items():
            if path.rpartition("/")[2] not in wanted:
                continue
            source = _find_bytes(project, path, md5, told.run.files.get(path, {}))
            if source is None:
                absent.append(path)
            else:
                found[f"files/{path}"] = _of_file(source)
    return found, sorted(absent)


def _find_bytes(project: Project, path: str, md5: str, facts: Mapping[str, Any]) -> Path | None:
    """Return where a file lies as the run left it: in its place, or in DVC's cache."""
    for place in (project.root / path, dvc_cache.stored(project, md5)):
        if place is None or not place.is_file() or place.stat().st_size != facts.get("bytes"):
            continue
        if storage.sha256_file(place) == facts.get("sha256"):
            return place
    return None


def _checked_manifest(
    contents: Mapping[str, Content], public_key: bytes | None, *, whole: bool = True
) -> tuple[dict[str, Any], bytes, bytes]:
    """Return the manifest, its bytes and the key, once the signature holds.

    ``whole``: every file that it names is there.
    """
    for name in OUTSIDE:
        if name not in contents:
            raise _refused(f"expected {name} in the bundle, found none")
    text, envelope, brought = (_read(contents[name], name) for name in OUTSIDE)
    key = _key(brought) if public_key is None else public_key
    statement = signing.verify(envelope, key, what=SIGNATURE)
    if brought != key:
        raise _refused(f"{PUBLIC_KEY}: it is not the key that was given")
    if signing.subjects(statement) != {MANIFEST: _sha256(text)}:
        raise _refused(f"{MANIFEST}: {_changed_field(text, contents)}")
    manifest: dict[str, Any] = json.loads(text)
    if manifest["format"] != FORMAT:
        raise _refused(f"{MANIFEST}: expected format {FORMAT}, found {manifest['format']!r}")
    named = {*manifest["files"], *OUTSIDE}
    if odd := set(contents) - named | (named - set(contents) if whole else set()):
        raise _refused(f"{min(odd)}: the manifest and the zip do not both hold it")
    return manifest, text, key


def _key(brought: bytes) -> bytes:
    try:
        signing.key_id(brought)
    except ConfigError:
        raise _refused(f"{PUBLIC_KEY}: it was changed, and is no key any more") from None
    return brought


def _changed_field(text: bytes, contents: Mapping[str, Content]) -> str:
    """Say which field of an unsigned manifest disagrees with the files, where that tells it."""
    try:
        files = json.loads(text)["files"]
        for name, described in files.items():
            if _described(contents[name]) != described:
                return f"files.{name} was changed since it was signed"
    except (ValueError, KeyError, TypeError):
        return "it is damaged"
    return "a field beside files was changed since it was signed"


def faults_of_imports(project: Project) -> Iterator[str]:
    """Name what in imports/ is not as it came; what an erasure took away is no fault."""
    for folder in sorted(project.imported("").glob("*")):
        files = [path for path in folder.rglob("*") if path.is_file()]
        contents = {path.relative_to(folder).as_posix(): _of_file(path) for path in files}
        where = f"{folder.parent.name}/{folder.name}"
        try:
            manifest, text, _ = _checked_manifest(contents, None, whole=False)
        except LapvqaError as error:
            yield f"{where}/{error.message}"
            continue
        if project.imported(_sha256(text)) != folder:
            yield f"{where}/{MANIFEST}: it is another bundle's"
        for name in contents.keys() & manifest["files"].keys():
            with contents[name].open() as stream:
                fault = file_digests.fault(stream, contents[name].size, manifest["files"][name])
            if fault:
                yield f"{where}/{name}: {fault}"


def _damage(folder: Path, files: Mapping[str, Any], outside: Mapping[str, bytes]) -> str:
    """Say what in the folder of an earlier import is not as it came; nothing if all is, or none."""
    if not folder.exists():
        return ""
    for name, described in {**files, **dict.fromkeys(outside)}.items():
        path = folder / name
        if not path.is_file():
            return f"{name}: it is gone"
        if described is None:
            if path.read_bytes() != outside[name]:
                return f"{name}: it was changed"
            continue
        with path.open("rb") as stream:
            fault = file_digests.fault(stream, path.stat().st_size, described)
        if fault:
            return f"{name}: {fault}"
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    strangers = sorted(found - {*files, *outside})
    return f"{strangers[0]}: the bundle does not hold it" if strangers else ""


def _extract(archive: zipfile.ZipFile, contents: Mapping[str, Content], folder: Path) -> None:
    """Write all files into a new folder whose ledger and card hold; none if anything fails."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        for name in contents:
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as source, path.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
        brought = Project(temporary)
        faults = ledger.verify(brought, partly=True)
        if (temporary / "card.md").exists():
            card = (temporary / "card.md").read_bytes().decode()
            faults += [f"card.md {one}" for one in check.faults(card, ledger.entries(brought))]
        if faults:
            raise _refused(faults[0])
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier import, and damaged
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _opened(file: Path) -> Iterator[tuple[zipfile.ZipFile, dict[str, Content]]]:
    try:
        archive = zipfile.ZipFile(file)
    except _UNREADABLE as error:
        raise _refused(f"{file.name}: expected a zip, found another thing ({error})") from None
    with archive:
        contents = {}
        for info in archive.infolist():
            path = PurePosixPath(info.filename)
            if path.is_absolute() or ".." in path.parts or path.as_posix() != info.filename:
                raise _refused(f"{info.filename!r}: a name that leads out of the bundle")
            del info.CRC  # the manifest's digests say more, and are looked at
            contents[info.filename] = Content(_opener(archive, info), info.file_size)
        yield archive, contents


def _opener(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo
) -> Callable[[], AbstractContextManager[BinaryIO]]:
    return lambda: archive.open(info)  # type: ignore[return-value]


def _write_zip(file: Any, contents: Mapping[str, Content]) -> None:
    """Write the files to a stream that is never moved back, in the order of their names."""
    with zipfile.ZipFile(_Stream(file), "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        for name, content in sorted(contents.items()):
            info = zipfile.ZipInfo(name, _TIME)
            info.create_system, info.external_attr = 3, 0o100644 << 16
            with content.open() as source, archive.open(info, "w", force_zip64=True) as sink:
                shutil.copyfileobj(source, sink, 1 << 20)


class _Stream:
    """A file that zipfile may only write to."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        return int(self._file.write(data))

    def flush(self) -> None:
        self._file.flush()


class _Comparison:
    """Takes what is written and compares it with a file: the zip around the files is checked so."""

    def __init__(self, original: BinaryIO) -> None:
        self._original, self._place = original, 0

    def write(self, data: bytes) -> int:
        found = self._original.read(len(data))
        if found != data:
            pairs = enumerate(zip(found, bytes(data), strict=False))
            at = next((at for at, (one, other) in pairs if one != other), len(found))
            raise _refused(f"the zip itself, byte {self._place + at}: it was changed")
        self._place += len(data)
        return len(data)

    def flush(self) -> None:
        pass


@contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        raise _refused(f"{name}: it cannot be read ({error})") from None


def _read(content: Content, name: str) -> bytes:
    with _readable(name), content.open() as stream:
        return stream.read()


def _described(content: Content) -> dict[str, Any]:
    with content.open() as stream:
        return file_digests.describe(stream, content.size)


def _of_bytes(data: bytes) -> Content:
    return Content(lambda: io.BytesIO(data), len(data))


def _of_file(path: Path) -> Content:
    return Content(lambda: path.open("rb"), path.stat().st_size)


def _last_id(chain: Content) -> str:
    with chain.open() as stream:
        return str(json.loads(stream.read().splitlines()[-1])["id"])


def _json(value: Any) -> bytes:
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def _sha256(data: bytes) -> str:
    return str(file_digests.describe(io.BytesIO(data), len(data))["sha256"])


def _refused(why: str) -> BundleError:
    return BundleError(why, hint="nothing was taken in; have the bundle sent again")
