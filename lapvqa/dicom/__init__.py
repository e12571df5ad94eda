"""From an archive's files to images, studies and rejects.

Rooms
    ``layouts``    where an archive keeps its files, reports and tables; one small file each
    ``header``     the allow-list of attributes that are read, and nothing else
    ``read``       one file's bytes to one stored image: ``parse``, then ``render``; ``pixels``
                   decodes what ``encapsulated`` has looked through (``jpeg12``: 12-bit JPEG),
                   ``coding`` says how a value lies in its cell, ``grayscale`` how it is shown
    ``picture``    one PNG or JPEG to one stored image, for archives that publish pictures
    ``identity``   keyed hashes in place of identifiers; ``splits`` by patient
    ``process``    one file to one result; ``worker`` does so in a process of its own, limited in
                   time and memory; ``workers`` is the pool of them
    ``store``      finished work, kept outside DVC's outputs, so that a killed run continues
    ``reading``    what is known, what is new; ``spread``: the same over many machines
    ``reports``    the reports' texts, read once
    ``verdicts``   who is in, and why not (``reasons``); ``rejects``: how many may be out
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
