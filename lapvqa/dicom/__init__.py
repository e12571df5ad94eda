"""From an archive's files to images, studies and rejects.

Rooms
    ``layouts``    where an archive keeps its files, reports and tables; one small file each
    ``header``     the allow-list of attributes that are read, and nothing else
    ``read``       one file's bytes to one stored image; ``pixels`` decodes, ``grayscale`` shows
    ``identity``   keyed hashes in place of identifiers; ``splits`` by patient
    ``workers``    many files in many processes; a crash costs one file
    ``store``      finished work, kept outside DVC's outputs, so that a killed run continues
    ``reading``    what is known, what is new; ``verdicts``: who is in, and why not (``reasons``)
    ``tables``     the results of all files to images, studies, labels and rejects
    ``ingest``     the stage
    ``samples``    a tiny file of each transfer syntax, to prove that its decoder works

Contracts
    In = out + rejects, for files, studies and reports, checked at the end of every run. Every
    reject has a code of ``reasons`` with a remedy. No identifier leaves a worker process unhashed.

Pitfalls
    A file's bytes are read once, and header, sha256 and pixels come from that one read. DVC
    deletes the outputs before a run: what must survive lives in ``store``. Exceptions of
    decoders may quote a patient's data: only their type is kept.
"""
