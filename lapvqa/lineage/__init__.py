"""Where a result came from, and what came of a patient's films: one ledger, asked both ways.

The ledger ties DVC (which bytes), git (which code), Prefect (which run) and MLflow (which records)
together. It is the truth; the index is made from it at will.

Files, in the order in which data meets them:
    environment.py   where a stage ran
    runs.py          what the ledger says of one run
    recording.py     a run's entry from dvc.lock, with the runs that it stands on
    ledger.py        append-only entries under ledger/, chained by digests, payloads erasable
    row_numbers.py   numbers in place of patients' and studies' keys
    first_ledger.py  the ledger of version 0.1, taken over
    evaluations.py   the entry of `lapvqa evaluate --encoder`
    members.py       the patients of each training against the root that it recorded
    merkle.py        the root of a training's patients; the proof that somebody is not among them
    contents.py      what a table or a metrics.json says that a model card tells
    ancestry.py      what of the ledger belongs to one run or model
    file_digests.py  digests of a file that say where it changed
    signing.py       what leaves the project, signed
    provenance.py    how a model was made, as a statement to be signed
    card/            model card and datasheet from the ledger alone, and their checker
    bundle.py        a run or model in one signed file, and its import elsewhere
    exports/         the ledger in the formats of others
    index.py         all of it as SQLite, for questions
    origins.py       the run behind an artefact, and the runs that stand on it
    dvc_cache.py     what DVC's cache here holds of an md5
    registered.py    registered versions of the encoder
    targets.py       what a person asks about: a file, metric, run, model, digest, patient
    chosen.py        the run or model that a card, bundle or export tells of
    walk.py          up: the walk to the inventory
    impact.py        down: the walk to metrics and releases, and whom a training sampled
    changes.py       what changed between two runs of a stage
    difference.py    diff: two models or runs
    reasons.py       why a stage is stale, or last ran
    verification.py  verify: every byte, the chain, the index
    story.py         log: what happened, in sentences
    wording.py       what is known of a run, in words
    graph.py         answers as graphs
    drawing.py       a graph as a page of its own, with page.html

Pitfalls
    Run ids never stand inside an output (its hash would change on every run).
    Two runs may leave equal bytes: edges go by run, never by md5 alone.
    Nothing here imports dvc, prefect, mlflow or torch: `lapvqa lineage` must answer in a moment
    and must work while DVC holds its locks.
"""
