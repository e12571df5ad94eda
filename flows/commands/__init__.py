"""The commands of ``lapvqa``, one file each, imported only when they are asked for.

Files, in the order in which data meets them:
    demo.py           make the demo archive, then run the pipeline on it
    doctor.py         is this machine fit for a run?
    device_trials.py  three small computations that training needs, tried on the device
    inspection.py     `inspect`: what would become of a file, a folder or a report
    run.py            bring the project up to date: nothing to do, or server, flow, results
    edit_settings.py  `run --params` and `--source`: params.yaml and local.yaml, edited
    presets.py        sizes that fit a machine, and what a run with them takes
    cost.py           the disk that a run takes, and the images that it trains on
    run_summary.py    what came out of a run: counts, metrics, where to look
    retrain.py        is the encoder trained anew? decide, and do it
    schedule.py       wait for what asks for a retraining; the clock
    timers.py         a line of crontab, units of systemd: what looks without that process
    intake.py         what the next three share
    receive.py        studies that others send by C-STORE
    pull.py           what a DICOMweb server has and the archive lacks
    watch.py          a folder into which others write
    plan.py           what would run, and why
    status.py         stages, what is running, champion, what arrived and is wanted, rejects
    rejects.py        what was rejected and why; read it again, or waive it
    plan_memory.py    what pretraining needs, and the largest micro-batch that fits
    replay.py         a stretch of the training, computed again
    evaluate.py       judge the pipeline's encoder or others
    comparison.py     the table of encoders side by side
    gate.py           candidate against champion, the sealed share, the way back
    score.py          score anybody's predictions
    using.py          `embed`, `caption`, `ask`: films to features and words
    try_page.py       `try`: a page for a film and what the model makes of it
    chosen_model.py   the model that is used: a folder, the champion, a registered version
    lineage.py        up, down, diff, why, verify, log: where from, what became of it
    drift.py          has what arrives changed?
    erase.py          a patient, out of every store
    export.py         the encoder as a model repository of others
    card.py           a model's card and datasheet, and their check
    bundle.py         a run or model in one signed file, out and in
    export_lineage.py the ledger in the formats of others
    sync.py           records that waited for MLflow
    own_files.py      a command writes over nothing but what it wrote itself
    open_pages.py     the report page, or MLflow's and Prefect's pages
    whois.py          from a keyed hash back to the files, for who holds the key
    terminal.py       printing: consoles, errors, times and sizes in words

Contracts
    A command is ``execute(project, ...) -> int`` (the exit code). Errors for the reader are
    LapvqaErrors; ``flows.cli`` prints them.

Pitfalls
    Importing torch, prefect or mlflow takes seconds each: `lapvqa --help`, and a run with nothing
    to do, must not import them. Put such imports inside the function that needs them.
"""
