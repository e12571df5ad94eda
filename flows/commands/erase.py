"""``lapvqa erase``: what a patient's erasure would touch; on request, the erasure and its receipt.

Paths of the archive are shown on this terminal only: they may hold the patient's number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.commands import terminal
from lapvqa import storage
from lapvqa.errors import EXIT_BAD_DATA, ConfigError
from lapvqa.lineage import ledger
from lapvqa.project import Project

if TYPE_CHECKING:
    from rich.console import Console

    from lapvqa.erasure.erase import Place
    from lapvqa.erasure.journal import Journal

_AMONG = {
    True: "the patient is among them", False: "the patient is not among them",
    None: "cannot be told: somebody else was erased since, or it is of an archive with another key",
}  # fmt: skip


def execute(project: Project, *, patient: str, request: str, do: bool, also: Sequence[Path]) -> int:
    """Show what would go; with ``do``, erase, write the receipt, and say what is left to others."""
    from lapvqa.erasure import erase

    console = terminal.console()
    place = _place(project, request, also, console)
    if not do:
        with storage.lock(project.run_lock, what="a run of this project"):
            opened = erase.open_journal(place, patient, request)
            found = erase.look(place, opened)
        _show(found, opened, place.keyring.keep_ids, console)
        _show_archive(place, opened, console)
        console.print("nothing was changed: a look; `--yes` does it")
        return 0
    return _erase(place, patient, request, console)


def check(project: Project, path: Path) -> int:
    """Check signature and proof of a receipt."""
    from lapvqa.erasure import receipt
    from lapvqa.lineage import signing

    receipt.read(path)
    key = signing.checking_key(project)
    content = receipt.check(path, key)
    told = content["training_set"]
    console = terminal.console()
    console.print(f"signed by {signing.key_id(key)[:16]}: the receipt is as it was written")
    console.print(
        f"the proof holds: not among the {told['patients']} patients of the training set with root "
        f"{told['root'][:16]}"
    )
    return _check_trainings(project, content, console)


def _check_trainings(project: Project, content: Mapping[str, Any], console: Console) -> int:
    """Say of each training since whether its recorded patients are without the one erased."""
    from lapvqa.erasure.impact import trainings_since

    found = trainings_since(project, content)
    for one in found:
        console.print(
            f"training {one['run'][:12]}, {one['patients']} patients with root "
            f"{one['root'][:16]}: {_AMONG[one['has_the_patient']]}"
        )
    return EXIT_BAD_DATA if any(one["has_the_patient"] for one in found) else 0


def _erase(place: Place, patient: str, request: str, console: Console) -> int:
    from lapvqa.erasure import erase, receipt

    project = place.project
    with storage.lock(project.erase_lock, what="an erasure in this project"):
        opened = erase.open_journal(place, patient, request)
        if _was_erased(place, opened):
            console.print(
                f"erased before, and nothing is left: the receipts are erasures/{opened.name}*.json"
            )
            return 0
        content = erase.erase(place, opened, lambda text: console.print(f"erase: {text}"))
        left_to_owner = erase.archive_files(place, opened)
        left = opened.facts.get("left", ())
        paths = receipt.paths(project, content)
    _show_stores(content["stores"], console)
    for kind, own in content["over_deletion"].items():
        console.print(
            f"{kind}: {own['shards_rewritten']} of {own['shards']} shards rewritten, "
            f"{own['rows_rewritten']} rows for {own['rows_of_patient']} of the patient"
        )
    if content["decision"]["retraining_wanted"]:
        console.print(
            "models affected: marked as contaminated; `lapvqa retrain` trains from scratch"
        )
    console.print(f"state: {content['state']}", markup=False)
    for item in left:
        console.print(f"holds traces still: {item}", markup=False, soft_wrap=True)
    _list_archive(left_to_owner, console)
    names = ", ".join(str(path.relative_to(project.root)) for path in paths)
    console.print(f"receipt: {names}", soft_wrap=True)
    return 0


def _was_erased(place: Place, opened: Journal) -> bool:
    """Tell whether a complete receipt exists, which is not to be written over, and nothing else."""
    from lapvqa.erasure import erase

    if opened.facts or opened.number == 1:
        return False
    searched = erase.look(place, opened)["searched"]
    return not any(one["findings"] for one in searched) and not erase.archive_files(place, opened)


def _place(project: Project, request: str, also: Sequence[Path], console: Console) -> Place:
    from flows.commands.run import bring_stage_up_to_date
    from lapvqa.erasure.erase import Place
    from lapvqa.erasure.stores import project_stores
    from lapvqa.identity import Keyring, find_key
    from lapvqa.inventory import NAMES
    from lapvqa.lineage import members
    from lapvqa.lineage.row_numbers import lost
    from lapvqa.machine import load_machine
    from lapvqa.params import load_params
    from tasks.erasing import dvc_store, mlflow_store

    ledger.require_whole(project)
    if project.dvc_lock.exists() and not ledger.entries(project):
        raise ConfigError(
            "expected a ledger that tells which models sampled the patient, found none",
            hint="restore ledger/ from git or a backup; `lapvqa sync` writes what dvc.lock knows",
        )
    missing = [str(path) for path in also if not path.exists()]
    if missing:
        raise ConfigError(
            f"expected a file or folder at {', '.join(missing)}, found nothing",
            hint="give --also the exported bundles and copies that are to be searched too",
        )
    params, machine = load_params(project.params), load_machine(project)
    folders = {name: machine.folder(name, params.inventory, project) for name in NAMES}
    key = find_key(folders["source"], project, machine)
    if key is None:  # a look makes no key
        raise ConfigError(
            "expected the key by which ingest hides identifiers, found none: no archive was read "
            "here yet",
            hint="run `lapvqa run` first, or restore .lapvqa/deid.key (deid_key_file of "
            "local.yaml) from its backup",
        )
    if fault := next(members.faults(project), ""):
        raise lost(fault)
    keyring = Keyring(key, keep_ids=params.ingest.deid.keep_ids)
    in_dvc = dvc_store.stores(project)
    own = project_stores(project, folders.values(), also, request)
    return Place(
        project, keyring, folders["source"], params.pretrain.objective,
        stores=[mlflow_store.DeletedRuns(project), *own, *in_dvc],
        tables=in_dvc[0].tables() if in_dvc else [],
        renew=lambda: bring_stage_up_to_date(project, "firewall", console),
        mark_versions=lambda name, weights: mlflow_store.mark_versions(project, name, weights),
    )  # fmt: skip


def _show(found: Mapping[str, Any], opened: Journal, keep_ids: bool, console: Console) -> None:
    rows = found["rows"]
    told = ", ".join(f"{number} {name}" for name, number in rows.items())
    console.print(f"patient {opened.name}: {told}; split {found['split'] or 'none'}")
    # With keep_ids a key is an id, which is not printed.
    key = "" if keep_ids else f"; the key in the tables and of lineage is {opened.traces.patient}"
    console.print(
        f"{opened.name} is the name that receipt and tombstone give{key}",
        soft_wrap=True, markup=False,
    )  # fmt: skip
    if opened.traces.shared_films:
        console.print(
            f"{opened.traces.shared_films} films stand under another patient's id too, and go with "
            "this one's"
        )
    for copy in opened.traces.copies:
        whose = "" if keep_ids else f" image {copy.image} of patient {copy.patient},"
        console.print(
            f"edited copy under another id:{whose} split {copy.split}, likeness {copy.score} "
            f"({copy.verdict}): it goes with this patient's; if both are one person, erase that "
            "patient too",
            soft_wrap=True, markup=False,
        )  # fmt: skip
    for reason, number in found["held_out_for"].items():
        console.print(
            f"held out of training because of this patient's test films ({reason}): {number} "
            "images of others; without the patient they train again, but for the copies",
            soft_wrap=True,
        )
    _show_stores(
        [{"store": one["store"], "files": one["files"], "bytes": one["size"],
          "held_traces": len(one["findings"])} for one in found["searched"]],
        console,
    )  # fmt: skip
    for model in found["models"]:
        console.print(
            f"model affected: training {model['run'][:12]} ({', '.join(model['roles'])}), "
            f"{terminal.counted(len(model['weights']), 'file')} of weights, judged by "
            f"{terminal.counted(len(model['evaluations']), 'task')}"
        )
    for metric in found["metrics"]:
        how = terminal.counted(metric["samples_of_patient"], "sample")
        if metric["head_may_have_learnt"]:
            how = "its head may have learnt from the patient"
        console.print(f"metric affected: {metric['task']}, {how}")
    for way in found["ways"]:
        seconds = "time not known" if way["seconds"] is None else terminal.span(way["seconds"])
        takes = f"{terminal.counted(way['steps'], 'step')}, {seconds}; " if way["steps"] else ""
        console.print(f"retraining by {way['way']}: {takes}{way['remark']}", soft_wrap=True)


def _show_stores(stores: Sequence[Mapping[str, Any]], console: Console) -> None:
    from rich.table import Table

    columns = {
        "files": "files", "bytes": "size", "held_traces": "held", "removed": "removed",
        "hold_traces_after": "left", "only_list_the_archive": "listed",
    }  # fmt: skip
    shown = {name: heading for name, heading in columns.items() if name in stores[0]}
    table = Table("store")
    for heading in shown.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for one in stores:
        cells = [terminal.size(one[n]) if n == "bytes" else str(one[n]) for n in shown]
        table.add_row(one["store"], *cells)
    console.print(table)


def _show_archive(place: Place, opened: Journal, console: Console) -> None:
    from lapvqa.erasure import erase

    _list_archive(erase.archive_files(place, opened), console)


def _list_archive(paths: Sequence[str], console: Console) -> None:
    if paths:
        console.print(
            f"{terminal.counted(len(paths), 'file')} in the archive, which LAPVQA never changes; "
            "for its owner to delete, then run the same again:"
        )
    for path in paths:
        console.print(f"  {path}", markup=False, soft_wrap=True)
