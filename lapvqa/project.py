"""The paths of a project: each artefact's place under its root. No other module knows one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DEMO_MARK = "DEMO.json"
DRAWN_MARK = ".lapvqa-synth"
"""Stands in a folder that the demo is drawn into, from its first image on."""
"""A file that only the demo archive holds."""
_DEMO_SOURCE = "mimic-cxr"


def is_unrelated_demo(name: str, folders: Mapping[str, Path]) -> bool:
    """Say whether input folder ``name`` is a set of the demo while the source is not the demo.

    What was drawn for the demo says nothing about an encoder that learnt from radiographs.
    """
    return name != "source" and is_demo(name, folders) and not is_demo("source", folders)


def is_demo(name: str, folders: Mapping[str, Path]) -> bool:
    """Say whether input folder ``name`` holds what `lapvqa demo` drew: nobody's films and texts."""
    source = folders[name] if name == "source" else folders[name].parent / _DEMO_SOURCE
    return (source / DEMO_MARK).is_file()


@dataclass(frozen=True)
class Project:
    """Paths of one project folder (the one that holds dvc.yaml and params.yaml)."""

    root: Path

    @property
    def params(self) -> Path:
        """params.yaml: every value that changes a result."""
        return self.root / "params.yaml"

    @property
    def local(self) -> Path:
        """local.yaml: machine facts; may be absent."""
        return self.root / "local.yaml"

    @property
    def waivers(self) -> Path:
        """waivers.yaml: rejects that a person has waived; may be absent."""
        return self.root / "waivers.yaml"

    @property
    def tombstones(self) -> Path:
        """tombstones.json: keyed digests of erased patients, which ingest keeps out."""
        return self.root / "tombstones.json"

    @property
    def sealed(self) -> Path:
        """sealed.json: by which rule test patients are kept for the gate, unseen."""
        return self.root / "sealed.json"

    @property
    def verdicts(self) -> Path:
        """gates/: the signed verdict of each gate."""
        return self.root / "gates"

    @property
    def receipts(self) -> Path:
        """erasures/: a receipt of each erasure, JSON and page."""
        return self.root / "erasures"

    @property
    def dvc_yaml(self) -> Path:
        """dvc.yaml: the stage graph."""
        return self.root / "dvc.yaml"

    @property
    def dvc_lock(self) -> Path:
        """dvc.lock: what was made from what."""
        return self.root / "dvc.lock"

    @property
    def kept_dvc_lock(self) -> Path:
        """A copy of dvc.lock when it was last known to be whole."""
        return self.state / "dvc.lock"

    def inventory(self, name: str) -> Path:
        """Inventory of one input folder, one of ``inventory.NAMES``."""
        return self.root / "data" / "inventory" / f"{name}.parquet"

    @property
    def images_dir(self) -> Path:
        """Arrow shards, ``images-<digest>.arrow``: column ``pixels``, 384 x 384 uint8 each."""
        return self.root / "data" / "images"

    @property
    def images(self) -> Path:
        """images.parquet: one row per stored image."""
        return self.root / "data" / "images.parquet"

    @property
    def studies(self) -> Path:
        """studies.parquet: one row per study, with its report."""
        return self.root / "data" / "studies.parquet"

    @property
    def demographics(self) -> Path:
        """demographics.parquet: sex and age band of each study, where the archive says."""
        return self.root / "data" / "demographics.parquet"

    @property
    def labels(self) -> Path:
        """labels.parquet: the archive's own CheXpert labels, if it brings them."""
        return self.root / "data" / "labels.parquet"

    @property
    def rejects(self) -> Path:
        """rejects.parquet: every file, report or study that was not taken, and why."""
        return self.root / "data" / "rejects.parquet"

    @property
    def companions(self) -> Path:
        """companions.parquet: every file of the archive that is no image and no reject."""
        return self.root / "data" / "companions.parquet"

    @property
    def tokens_dir(self) -> Path:
        """Token shards, ``tokens-<digest>.parquet``."""
        return self.root / "data" / "tokens"

    @property
    def token_rejects(self) -> Path:
        """token_rejects.parquet: studies that got no tokens, and why."""
        return self.root / "data" / "token_rejects.parquet"

    @property
    def report_languages(self) -> Path:
        """report_languages.parquet: each report's language, and the length of its target text."""
        return self.root / "data" / "report_languages.parquet"

    @property
    def excluded(self) -> Path:
        """excluded.parquet: the images that training loses because a test set has them."""
        return self.root / "data" / "firewall" / "excluded.parquet"

    @property
    def firewall_account(self) -> Path:
        """account.json: what the firewall compared, found and could not check, in counts."""
        return self.root / "data" / "firewall" / "account.json"

    def tested(self, data_set: str) -> Path:
        """Test images of ``archive`` or an input folder, and whether training knows them."""
        return self.root / "data" / "firewall" / "tested" / f"{data_set}.parquet"

    def model_dir(self, objective: str) -> Path:
        """Folder with model_best.pt, encoder_final.pt, encoder.safetensors, card.json."""
        return self.root / "models" / objective

    def result_dir(self, task: str) -> Path:
        """Folder with predictions.parquet and metrics.json of one evaluation."""
        return self.root / "results" / task

    def evaluations_dir(self, encoder: str) -> Path:
        """Results of `lapvqa evaluate --encoder`, a folder per task; no output of a stage."""
        return self.root / "evaluations" / encoder

    @property
    def report_page(self) -> Path:
        """The page a person reads."""
        return self.root / "reports" / "index.html"

    @property
    def lineage_page(self) -> Path:
        """Where everything came from, drawn after each run; no output of a stage."""
        return self.root / "reports" / "lineage.html"

    @property
    def freshness_page(self) -> Path:
        """How it stayed fresh, drawn after each run and look; no output of a stage."""
        return self.root / "reports" / "freshness.html"

    @property
    def pictures_dir(self) -> Path:
        """One SVG per computed evaluation: what the page shows of it, for MLflow and DVC."""
        return self.root / "reports" / "pictures"

    @property
    def state(self) -> Path:
        """.lapvqa/: ledger, locks, embedded servers; never an output of a stage."""
        return self.root / ".lapvqa"

    @property
    def ledger(self) -> Path:
        """ledger/chain.jsonl: what happened, joining DVC, git, Prefect and MLflow; under git."""
        return self.root / "ledger" / "chain.jsonl"

    @property
    def ledger_payloads(self) -> Path:
        """ledger/payloads.jsonl: what the entries of the chain say; under git."""
        return self.root / "ledger" / "payloads.jsonl"

    @property
    def row_numbers(self) -> Path:
        """ledger/private/: the keys that stand for patients and studies, never under git."""
        return self.root / "ledger" / "private"

    @property
    def signing_key(self) -> Path:
        """The key that signs models, verdicts, receipts and bundles; mode 0600, never under git."""
        return self.row_numbers / "signing.key"

    @property
    def signing_public_key(self) -> Path:
        """ledger/signing.pub: what others check signatures with; under git."""
        return self.root / "ledger" / "signing.pub"

    def imported(self, digest: str) -> Path:
        """Folder of what came in a bundle, by the digest of its manifest."""
        return self.root / "imports" / digest[:16]

    @property
    def first_ledger(self) -> Path:
        """.lapvqa/ledger.jsonl: the ledger of version 0.1, taken over on first sight."""
        return self.state / "ledger.jsonl"

    @property
    def lineage_index(self) -> Path:
        """SQLite index over the ledger; made again from it at will."""
        return self.state / "lineage.sqlite"

    @property
    def uptodate(self) -> Path:
        """uptodate.json: what the last complete run left, so that "nothing to do" is quick."""
        return self.state / "uptodate.json"

    @property
    def unsettled(self) -> Path:
        """The mark of a run that still owes something: ledger, records, registered encoder."""
        return self.state / "unsettled.json"

    def work_dir(self, stage: str) -> Path:
        """Resumable work of one stage, kept out of DVC because DVC deletes outputs first."""
        return self.state / "work" / stage

    def record(self, stage: str) -> Path:
        """JSON lines that one run of a stage writes (progress, metrics, facts)."""
        return self.state / "records" / f"{stage.replace('@', '-')}.jsonl"

    def run_file(self, stage: str) -> Path:
        """JSON facts of the last finished run of a stage."""
        return self.state / "runs" / f"{stage.replace('@', '-')}.json"

    def failure(self, stage: str) -> Path:
        """JSON of the error that ended the last run of a stage; absent if it ended well."""
        return self.state / "runs" / f"{stage.replace('@', '-')}.failure.json"

    def log(self, stage: str) -> Path:
        """What the last run of a stage printed."""
        return self.state / "logs" / f"{stage.replace('@', '-')}.log"

    @property
    def run_lock(self) -> Path:
        """Held while a pipeline runs, so that two never run at once."""
        return self.state / "run.lock"

    @property
    def open_erasures(self) -> Path:
        """Erasures that are not finished: what is looked for, so private; gone with the last."""
        return self.state / "erasures"

    @property
    def erase_lock(self) -> Path:
        """Held while a patient is erased."""
        return self.state / "erase.lock"

    @property
    def wanted(self) -> Path:
        """wanted.json: why a retraining is wanted, and the round at work."""
        return self.state / "wanted.json"

    @property
    def accepted_loss(self) -> Path:
        """A mark: the next inventory may find any number of files gone."""
        return self.state / "accepted_loss.json"

    @property
    def arrivals(self) -> Path:
        """arrivals.jsonl: what the intake took into the archive, a line per event."""
        return self.state / "arrivals.jsonl"

    @property
    def schedule(self) -> Path:
        """schedule.json: the clock that asks for retraining."""
        return self.state / "schedule.json"

    @property
    def paused(self) -> Path:
        """paused.json: a mark; no retraining may begin by itself."""
        return self.state / "paused.json"

    @property
    def round_lease(self) -> Path:
        """round.lease: who works on the round, renewed while they live."""
        return self.state / "round.lease"

    @property
    def starts(self) -> Path:
        """Weights that a training may go on from, with their members: a folder per sha256."""
        return self.state / "starts"

    def start(self, sha256: str) -> Path:
        """Folder of such weights: model_last.pt and members.parquet."""
        return self.starts / sha256

    def champion(self, sha256: str) -> Path:
        """Folder of a registered encoder that was fetched: encoder.safetensors and card.json."""
        return self.state / "champions" / sha256[:16]

    @property
    def noticed_studies(self) -> Path:
        """When each study was first noticed, in lines, for those that no arrival names."""
        return self.work_dir("drift") / "noticed.jsonl"

    @property
    def drift_reference(self) -> Path:
        """The studies that new ones are compared with, in lines; the ledger has their digest."""
        return self.work_dir("drift") / "reference.jsonl"

    @property
    def drift_report(self) -> Path:
        """reports/drift.json: the last look at what arrives; no output of a stage."""
        return self.root / "reports" / "drift.json"

    @property
    def spool(self) -> Path:
        """Records of runs that MLflow has not confirmed yet."""
        return self.state / "spool"

    @property
    def prefect_home(self) -> Path:
        """The embedded Prefect server's home: prefect.db and its log."""
        return self.state / "prefect"

    @property
    def mlflow_db(self) -> Path:
        """MLflow's records when no server is configured."""
        return self.state / "mlflow.db"

    @property
    def mlflow_artifacts(self) -> Path:
        """MLflow's files when no server is configured."""
        return self.state / "mlartifacts"
