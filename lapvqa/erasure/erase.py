"""An erasure from the look to the receipt, in steps that may be cut off and repeated.

    look       search every store for the patient's traces; nothing is changed
    bury       the tombstone: from now on ingest keeps the patient out
    renew      the pipeline's own stages up to the firewall; only shards concerned change
    remove     what was found is removed from every store
    check      every store is searched again; what is left over is removed and searched once more
    tell       affected models are marked, a retraining is wanted
    receipt    what was done, and the proof that the new training set is without the patient

Each step is entered in the journal when it is done. A step that was cut off is done again: it
starts from what the look found, so what is gone already only makes it shorter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lapvqa import storage
from lapvqa.dicom.reasons import Reason
from lapvqa.erasure import impact, journal, receipt, traces, whom
from lapvqa.erasure.copies import find_copies
from lapvqa.erasure.journal import Journal
from lapvqa.erasure.stores import Finding, Searched, Store, remove_unlisted
from lapvqa.erasure.traces import Traces
from lapvqa.errors import MissingArtifactError, SourceError, SplitLeakError
from lapvqa.identity import Keyring, key_id
from lapvqa.ingest.ingest import files_of
from lapvqa.ingest.tombstones import Tombstones, add_tombstone, load_tombstones
from lapvqa.job import open_job
from lapvqa.lineage import ledger, merkle
from lapvqa.lineage.ancestry import Ancestry
from lapvqa.params import load_params
from lapvqa.project import Project
from lapvqa.recorder import Recorder
from lapvqa.retraining import wanted
from lapvqa.schemas import IMAGES, REJECTS, STUDIES, TOKENS
from lapvqa.uptodate.stagefile import locked

STEPS = ("look", "bury", "renew", "remove", "check", "tell")
_ROUNDS = 3


@dataclass(frozen=True)
class Place:
    """The project as an erasure needs it."""

    project: Project
    keyring: Keyring
    archive: Path
    """The raw archive: never changed by us."""
    objective: str
    stores: Sequence[Store]
    tables: Sequence[Path]
    """Of older versions too, wherever they lie: they know more of the patient's keys."""
    renew: Callable[[], None]
    """Brings the stages before pretraining up to date."""
    mark_versions: Callable[[str, set[str]], list[str]]
    """Marks the registered versions of weights (sha256) for a request; returns which."""


def open_journal(place: Place, given: str, request: str) -> Journal:
    """Return the open erasure of a patient, or a new one; ConfigError if nobody is called so."""
    erased = load_tombstones(place.project, place.keyring)
    tables = [*_tables(place.project), *place.tables]
    patient = whom.patient_key(given, place.keyring, tables, erased)
    mark = erased.mark("patient", patient)
    name = mark[:12]
    known = journal.load(place.project, name)
    if known is not None:
        return known
    found = traces.begin(patient, given.strip(), erased)
    traces.learn(found, tables, erased)
    if place.project.studies.exists():
        traces.learn_texts(
            found, storage.read_table(place.project.studies, STUDIES, made_by="ingest")
        )
    if place.project.images.exists():
        images = storage.read_table(place.project.images, IMAGES, made_by="ingest")
        copies = find_copies(place.project, images, patient)
        traces.learn_copies(found, images, copies, erased)
        traces.learn_pixels(found, images, place.project.images_dir)
    found.add(traces.PATH, _refused(place, found))
    number = receipt.next_number(place.project, name)
    return Journal(name, request or f"request-{name}", time.time(), found, number=number)


def _refused(place: Place, found: Traces) -> list[str]:
    """Return the archive's files that ingest will refuse as the patient's."""
    project, marked = place.project, Tombstones(place.keyring, frozenset(found.marks))
    params = load_params(project.params).ingest
    with closing(Recorder(project.record("erase"), stage="erase", quiet=True)) as recorder:
        try:
            return files_of(marked, params, open_job(project, recorder))
        except (SourceError, MissingArtifactError, SplitLeakError):
            return []  # an archive that cannot be read now: renew says so


def look(place: Place, opened: Journal) -> dict[str, Any]:
    """Search all stores and say what an erasure would touch; nothing is written."""
    project, patient = place.project, opened.traces.patient
    searched = [store.search(opened.traces) for store in place.stores]
    seen_in, split = opened.traces.also_in, impact.split_of(project, patient)
    models = impact.affected_models(project, patient, seen_in)
    return {
        "searched": [one.to_json() for one in searched],
        "rows": impact.rows_of(project, patient),
        "split": split,
        "shards": impact.shard_rows(project),
        "outputs": _outputs(project),
        "models": models,
        "metrics": impact.affected_metrics(project, patient, split),
        "ways": impact.ways_to_retrain(project, patient, seen_in, place.objective),
        "held_out_for": impact.held_out_for(project, patient),
        "archive_files": len(archive_files(place, opened)),
        "erased_before": sorted(_erased_files(project)),
    }


def archive_files(place: Place, opened: Journal) -> list[str]:
    """Return the patient's files that the archive still holds; for the owner's eyes only."""
    paths = opened.traces.found.get(traces.PATH, set())
    return impact.archive_files(place.project, place.archive, paths)


def erase(place: Place, opened: Journal, say: Callable[[str], None]) -> dict[str, Any]:
    """Do the steps that are not done, and return the receipt.

    What the archive itself still holds keeps the journal open: its listing names the files.
    """
    project, facts = place.project, opened.facts
    doing: dict[str, Callable[[], Any]] = {
        "look": lambda: look(place, opened),
        "bury": lambda: _bury(place, opened),
        "renew": lambda: _renew(place, opened),
        "remove": lambda: _remove(place, opened, facts["look"]["searched"]),
        "check": lambda: _check(place, opened),
        "tell": lambda: _tell(place, opened),
    }
    opened.keep(project)
    for step in STEPS:
        if step not in facts:
            say(f"{step} ...")
            facts[step] = doing[step]()
            opened.keep(project)
    told = make_receipt(place, opened)
    receipt.write(project, told)  # before the journal goes: without both nothing would tell of it
    if told["state"] == receipt.COMPLETE:
        opened.forget(project)
        facts["left"] = []
    else:  # the same command looks again, and removes what the archive's owner has made removable
        facts["left"] = [
            finding["item"]
            for one in facts["check"]["searched"]
            for finding in one["findings"]
            if not finding["listing"]
        ]
        for step in ("look", "renew", "remove", "check"):
            facts.setdefault("earlier", {}).setdefault(step, facts[step])
            del facts[step]
        opened.keep(project)
    return told


def _bury(place: Place, opened: Journal) -> dict[str, Any]:
    key = key_id(place.keyring.key)
    add_tombstone(place.project, request=opened.request, marks=opened.traces.marks, key=key)
    return {"marks": len(opened.traces.marks)}


def _renew(place: Place, opened: Journal) -> dict[str, Any]:
    place.renew()
    # Also what has come into the archive since the look.
    new = _erased_files(place.project) - set(opened.facts["look"]["erased_before"])
    opened.traces.add(traces.PATH, new)
    return {"outputs": _outputs(place.project), "shards": impact.shard_rows(place.project)}


def _erased_files(project: Project) -> set[str]:
    """Return the files of the archive that ingest turned away as somebody's who was erased."""
    if not project.rejects.exists():
        return set()
    rejects = storage.read_table(project.rejects, REJECTS, made_by="ingest").to_pylist()
    return {row["file"] for row in rejects if row["reason"] == Reason.ERASED}


def _remove(place: Place, opened: Journal, searched: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    found = {one["store"]: [_finding(f) for f in one["findings"]] for one in searched}
    if any(not finding.listing for own in found.values() for finding in own):
        _remove_page(place.project)
        remove_unlisted(place.project)
    keep = bool(archive_files(place, opened))
    return {
        store.name: store.remove(found.get(store.name, []), opened.traces, keep_listings=keep)
        for store in place.stores
    }


def _finding(values: Mapping[str, Any]) -> Finding:
    return Finding(values["item"], tuple(values["kinds"]), values["size"], values["listing"])


def _remove_page(project: Project) -> None:
    """Remove the report page, and what MLflow has of older ones, whose pictures name no film."""
    for path in (project.report_page, *project.pictures_dir.glob("*")):
        path.unlink(missing_ok=True)
    for folder in (project.mlflow_artifacts, project.spool):
        for path in folder.rglob("*.svg"):
            if b"data:image/png;base64" in path.read_bytes():
                path.unlink()


def _check(place: Place, opened: Journal) -> dict[str, Any]:
    """Search again, remove what is left, and search once more; return the last search."""
    for _ in range(_ROUNDS):
        searched = [store.search(opened.traces) for store in place.stores]
        listed = sum(finding.listing for one in searched for finding in one.findings)
        if not any(map(_left, searched)) and (not listed or archive_files(place, opened)):
            break
        _remove(place, opened, [one.to_json() for one in searched])
    return {
        "searched": [one.to_json() for one in searched],
        "left": {one.store: _left(one) for one in searched if _left(one)},
        "listed": listed,
    }  # fmt: skip


def _tell(place: Place, opened: Journal) -> dict[str, Any]:
    """Mark the affected models in the ledger and the registry, and want a retraining of them."""
    project = place.project
    before = opened.facts.get("earlier", {}).get("look", opened.facts["look"])
    models = before["models"]
    told = {
        "erasure": opened.name, "request": opened.request,
        "runs": [model["run"] for model in models], "verdict": "contaminated",
        "decision": "retrain from scratch" if models else "no model is affected",
    }  # fmt: skip
    known = [entry.payload for entry in ledger.entries(project) if entry.kind == ledger.DECISION]
    if told not in known:
        ledger.append(project, ledger.DECISION, told)
    weights = {digest for model in models for digest in model["weights"].values()}
    versions = place.mark_versions(opened.request, weights) if weights else []
    if models:
        wanted.want(project, wanted.ERASURE, request=opened.request)
    return {
        **told, "registered_versions_marked": versions, "retraining_wanted": bool(models),
        "recipients": _released(project, {model["run"] for model in models}),
    }  # fmt: skip


def _released(project: Project, affected: set[str]) -> list[str]:
    """Return the bundles that carry a run which stands on one of these, as the ledger tells."""
    entries = ledger.entries(project)
    ancestry = Ancestry(entries)
    found = []
    for entry in entries:
        if entry.kind != ledger.RELEASE or not entry.payload:
            continue
        run = ancestry.runs.get(entry.payload["run"])
        if run is not None and affected & {told.id for told in ancestry.scope(run)}:
            found.append(f"bundle {entry.payload.get('name') or entry.payload['bundle']}")
    return found


def _left(searched: Searched) -> int:
    return sum(not finding.listing for finding in searched.findings)


def make_receipt(place: Place, opened: Journal) -> dict[str, Any]:
    """Return the receipt of an erasure; it names nobody."""
    project, facts = place.project, opened.facts
    before = facts.get("earlier", {}).get("look", facts["look"])
    renewed = facts["renew"]
    remaining = archive_files(place, opened)
    state = receipt.COMPLETE
    if facts["check"]["left"]:
        state = "not clean: see absence.left"
    elif remaining or facts["check"]["listed"]:
        state = "open: the archive still holds files of the patient"
    return {
        "receipt": "lapvqa erasure", "version": 1, "state": state,
        "request": opened.request, "number": opened.number,
        "begun": _moment(opened.started), "written": _moment(time.time()),
        "patient": opened.name,
        "scope": {
            "rows": before["rows"], "split": before["split"],
            "films_under_other_ids": opened.traces.shared_films,
            "edited_copies_under_other_ids": len(opened.traces.copies),
            "traces_looked_for": {k: len(v) for k, v in sorted(opened.traces.found.items())},
        },
        "stores": _stores(before, facts["check"], place.stores),
        "outputs": _compared(before["outputs"], renewed["outputs"]),
        "over_deletion": impact.over_deletion(before["shards"], renewed["shards"], before["rows"]),
        "tombstone": {
            "file": project.tombstones.name, "marks": facts["bury"]["marks"],
            "remark": "keyed digests; a keyed digest of a patient is itself personal data, kept "
            "so that the patient's files stay out when they are delivered again",
        },
        "absence": {
            "searched_again": True, "left": facts["check"]["left"],
            "named_by_the_archive": facts["check"]["listed"], "limits": LIMITS,
        },
        "archive": {
            "files_still_there": len(remaining),
            "remark": "the raw archive is never changed by LAPVQA; its owner deletes the files, "
            "then the same command closes the erasure",
        },
        "models": before["models"], "metrics": before["metrics"], "ways": before["ways"],
        "decision": facts["tell"],
        "recipients": {
            "remark": "who downloaded a model or a file before is not recorded here; registry "
            "downloads: not known", "known": facts["tell"].get("recipients", []),
        },
        "training_set": _absence_from_training(place, opened.traces),
    }  # fmt: skip


LIMITS = (
    "of edited copies under other ids frontal films are found, as far as the firewall finds them "
    "(docs/firewall.md)",
    "backups and snapshots of disks, and other clones of this project, are not reached",
    "unlinked blocks are overwritten by the file system in its own time",
    "weights of affected models stay until they are replaced: they hold no copy that the search "
    "could find, which does not mean that they hold nothing",
    "git's history holds hashes of the data as it was (dvc.lock), and no data",
    "pictures on older report pages are found by the data that they were made of, not by pixels",
    "what was released, published or mailed is not reached",
    "input folders are their owners': the archive's files are listed; tables beside it that "
    "name a study (labels, questions, phrases) are not searched",
)


def _stores(
    before: Mapping[str, Any], check: Mapping[str, Any], stores: Sequence[Store]
) -> list[dict[str, Any]]:
    """Return a row per store: what was there, how it was removed, what the last search found."""
    after = {one["store"]: one for one in check["searched"]}
    methods = {store.name: store.method for store in stores}
    rows = []
    for one in before["searched"]:
        kinds = [kind for finding in one["findings"] for kind in finding["kinds"]]
        later = after.get(one["store"], {"files": 0, "findings": []})
        left = check["left"].get(one["store"], 0)
        still = {finding["item"] for finding in later["findings"]}
        rows.append(
            {
                "store": one["store"], "files": one["files"], "bytes": one["size"],
                "held_traces": len(one["findings"]),
                "kinds": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
                "method": methods.get(one["store"], ""),
                "removed": sum(finding["item"] not in still for finding in one["findings"]),
                "files_after": later["files"], "hold_traces_after": left,
                "only_list_the_archive": len(later["findings"]) - left,
            }
        )  # fmt: skip
    return rows


def _outputs(project: Project) -> dict[str, str]:
    """Return the digests of what the data stages made, as dvc.lock has them."""
    return {
        path: md5
        for lock in locked(project).values()
        if lock.name in ("ingest", "tokens", "firewall")
        for path, md5 in lock.outs.items()
    }


def _compared(before: Mapping[str, str], after: Mapping[str, str]) -> list[dict[str, str | None]]:
    return [
        {"path": path, "before": before.get(path), "after": after.get(path)}
        for path in sorted({*before, *after})
    ]


def training_members(project: Project) -> set[str]:
    """Return the patients whose studies or images are in train or validate."""
    members: set[str] = set()
    for path, schema in ((project.images, IMAGES), (project.tokens_dir, TOKENS)):
        table = storage.read_table(path, schema, made_by="ingest")
        rows = zip(table["patient_key"].to_pylist(), table["split"].to_pylist(), strict=True)
        members |= {patient for patient, split in rows if split in ("train", "validate")}
    return members


def _absence_from_training(place: Place, found: Traces) -> dict[str, Any]:
    key = place.keyring.key
    members = training_members(place.project)
    ordered = merkle.leaves(merkle.member_digest(key, one) for one in members)
    absent = merkle.member_digest(key, found.patient)
    proof = merkle.prove_absence(ordered, absent)
    root = merkle.root(ordered)
    if not merkle.is_absent(root, absent, proof):
        raise AssertionError("the proof of absence does not hold")
    return {
        "patients": len(members), "root": root, "key": key_id(key), "absent": absent.hex(),
        "proof": asdict(proof),
        "remark": "Merkle root over keyed digests of all patients in train and validate; the proof "
        "is checked by `lapvqa erase --check RECEIPT`",
    }  # fmt: skip


def _moment(seconds: float) -> str:
    """Return a time in UTC, to the millisecond: a training may have ended in the same second."""
    said = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return said.replace("+00:00", "Z")


def _tables(project: Project) -> list[Path]:
    """Return the tables of data/ and of the finished work."""
    folders = (project.root / "data", project.work_dir("ingest"), project.work_dir("tokens"))
    return [path for folder in folders for path in sorted(folder.rglob("*.parquet"))]
