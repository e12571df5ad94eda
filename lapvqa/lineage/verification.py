"""Does everything still say what it said? Every byte on disk, chain, index, what was signed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lapvqa import storage
from lapvqa.errors import LapvqaError
from lapvqa.lineage import bundle, dvc_cache, index, ledger, members, signing
from lapvqa.lineage.origins import EVALUATION, Origins
from lapvqa.lineage.row_numbers import RESTORE
from lapvqa.project import Project
from lapvqa.uptodate import hashes, stagefile

_GONE = "expected by dvc.lock, found nothing"
_LEDGER = "restore ledger/ from git or a backup"
_OUTPUT = "restore it (`dvc checkout`, git, a backup), or run the stage again"
_ERASED = "an erasure took outputs away: `lapvqa run` makes them again, nothing is to be restored"
_INDEX = "delete .lapvqa/lineage.sqlite: the next question makes it again"
_SIGNED = "restore it from git or a backup: it is signed, so nothing makes it again"
_IMPORTED = "delete that folder of imports/, then `lapvqa bundle --import` the bundle again"


@dataclass(frozen=True)
class Verification:
    """What was looked at, and what does not match, first things first."""

    artefacts: int
    bytes: int
    entries: int
    absent: tuple[str, ...]
    """Outputs that are not on this disk: no fault, a clone fetches what it needs."""
    faults: tuple[str, ...]
    remedy: str = ""
    """What to do about the first fault."""
    spoilt: tuple[str, ...] = ()
    """Objects of DVC's cache, of outputs at fault, that no longer hold what their names say.
    Relative to the project, if the cache lies in it."""


def verify(project: Project, told: Callable[[str], None] = lambda _: None) -> Verification:
    """Read every artefact of dvc.lock and of evaluations again, whatever its stat says.

    Walks the chain, compares the index with the ledger, checks signed verdicts and receipts and
    what came in bundles. ``told`` is called with each path.
    """
    of_ledger = list(ledger.verify(project))
    if project.dvc_lock.exists() and not ledger.entries(project):
        of_ledger.append("ledger/: dvc.lock names stages that have run, the ledger none")
    artefacts, absent, num_bytes = 0, [], 0
    faults: list[str] = []
    spoilt: dict[str, None] = {}
    for path, md5, sha256 in _expected(project, faults):
        told(path)
        found = hashes.Hasher(project, {}).artefact(path)
        if found is None:
            absent.append(path)
            continue
        artefacts += 1
        num_bytes += sum(facts.stat[0] for facts in found.values())
        if hashes.md5_artefact(found) != md5:
            faults += _differing(project, path, md5, found)
            for file in dvc_cache.spoilt(project, path, md5, found):
                inside = file.is_relative_to(project.root)
                spoilt[str(file.relative_to(project.root) if inside else file)] = None
        elif sha256 is not None and storage.sha256_file(project.root / path) != sha256:
            faults.append(f"{path}: expected sha256 {sha256[:12]} of the ledger, found another")
    found_here = [
        (of_ledger, _LEDGER),
        (faults, _of_output(project, faults)),
        (index.faults(project), _INDEX),
        (list(_signed(project)), _SIGNED),
        (list(bundle.faults_of_imports(project)), _IMPORTED),
        (list(members.faults(project)) if project.row_numbers.exists() else [], RESTORE),
    ]  # a clone has no row numbers
    return Verification(
        artefacts, num_bytes, len(ledger.entries(project)), tuple(absent),
        tuple(fault for named, _ in found_here for fault in named),
        next((remedy for named, remedy in found_here if named), ""), tuple(spoilt),
    )  # fmt: skip


def _of_output(project: Project, faults: Sequence[str]) -> str:
    """Return what to do about outputs at fault; an erasure takes files away and changes none."""
    erased = any(project.open_erasures.glob("*")) or any(
        entry.kind == ledger.DECISION and "erasure" in (entry.payload or {})
        for entry in ledger.entries(project)
    )
    return _ERASED if erased and all(fault.endswith(_GONE) for fault in faults) else _OUTPUT


def _expected(project: Project, faults: list[str]) -> Iterator[tuple[str, str, str | None]]:
    """Yield path, md5 and sha256 (if recorded) of what ought to be on disk."""
    with index.opened(project) as database:
        origins = Origins(database)
        try:
            locks = stagefile.locked(project)
        except LapvqaError as error:
            faults.append(error.message)
            return
        for name, lock in locks.items():
            origin = origins.present(name)
            files = origin.run.files if origin else {}
            for path, md5 in lock.outs.items():
                yield path, md5, files.get(path, {}).get("sha256")
        latest = {}
        rows = database.execute(
            "SELECT path, md5, sha256 FROM artefacts JOIN runs USING (run) WHERE stage = ? "
            "ORDER BY started, run", (EVALUATION,),
        )  # fmt: skip
        for path, md5, sha256 in rows:
            latest[path] = (path, md5, sha256)
        yield from latest.values()


def _signed(project: Project) -> Iterator[str]:
    """Name the signed verdicts and receipts of the project that are not as they were signed."""
    envelopes = sorted(
        path
        for folder in (project.verdicts, project.receipts)
        for path in folder.glob("*.dsse.json")
    )
    for path in envelopes:
        try:
            signing.check_file(path, signing.checking_key(project))
        except LapvqaError as error:
            yield f"{path.parent.name}/{error.message}"


def _differing(project: Project, path: str, md5: str, found: hashes.Artefact) -> Iterator[str]:
    """Name the files of an artefact that differ, where it is known what they were."""
    if set(found) == {""}:
        yield f"{path}: expected md5 {md5[:12]} of dvc.lock, found {found[''].md5[:12]}"
        return
    listed = dvc_cache.files(project, path, md5)
    if listed is None:
        yield f"{path}: expected the files of md5 {md5[:12]} of dvc.lock, found others"
        return
    for name in sorted(listed.keys() | found.keys()):
        if name not in found:
            yield f"{path}/{name}: {_GONE}"
        elif name not in listed:
            yield f"{path}/{name}: dvc.lock knows no such file"
        elif found[name].md5 != listed[name]:
            yield (
                f"{path}/{name}: expected md5 {listed[name][:12]} of dvc.lock, "
                f"found {found[name].md5[:12]}"
            )
