"""From the hospital to the archive: studies and reports that arrive, whole, once, and from whom.

Files, in the order in which data meets them:
    instance.py   what a DICOM object says of itself
    inbox.py      what has arrived and is not yet a complete study
    receive.py    C-STORE: others send here
    tls.py        the same, encrypted
    dicomweb.py   QIDO and WADO: a server's studies, asked for
    pull.py       what a server has and the archive has not
    watch.py      a folder into which others write
    filing.py     a complete study into the archive
    reports.py    a report into the archive, joined by accession number
    register.py   what has arrived before: who has which accession number, which report counts

Contracts
    What is acknowledged is on disk. Whatever is repeated changes nothing and is no event. Bytes are
    kept as they came. No UID, number or name is ever the name of a file, nor stands in a line that
    is printed: sources, counts and keyed hashes do.

Pitfalls
    pynetdicom's log lines quote UIDs: they are switched off. Its accepted sockets have no timeout
    of their own.
"""
