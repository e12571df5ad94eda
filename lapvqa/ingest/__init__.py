"""The archive to images, studies, labels and rejects.

Files, in the order in which data meets them:
    ingest.py         the stage: opens the archive, reads, judges, writes the tables
    last_run.py       what the last run wrote, given back if nothing differs
    archives/         where an archive keeps its files, reports and tables; one layout a file
    plan.py           which files are known, which are new; reads the new ones
    cluster.py        the same reading on many machines
    pool.py           the pool of worker processes, limited in time and memory
    worker.py         one worker process, and the messages between it and the pool
    tombstones.py     who was erased and must not come back
    one_file.py       one file to one result: bytes, header, pixels, hashed identifiers
    result_store.py   results kept outside DVC's outputs, so that a killed run continues
    columns.py        whole columns at once: look up, map, group
    verdicts.py       which files are taken, why the others are not, and the split of a patient
    reports.py        the reports' texts, read once and searched for identities
    study_tables.py   results and reports to images, studies, labels and rejects
    account.py        every file's fate, and that none is missing
    rejects.py        how many rejects a run may have, and which are waived

Contracts
    In = out + rejects for studies and reports, in = out + rejects + companions + others for files,
    checked at the end of every run. Every reject has a code of ``lapvqa.dicom.reasons`` with a
    remedy. No identifier leaves a worker process unhashed.

Pitfalls
    A file's bytes are read once, and header, sha256 and pixels come from that one read. DVC
    deletes the outputs before a run: what must survive lives in ``result_store``.
"""
