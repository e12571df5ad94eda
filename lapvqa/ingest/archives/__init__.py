"""Layouts of archives, one file each, behind one protocol.

Files, in the order in which data meets them:
    protocol.py       what a layout has to answer: images, ids, reports, tables
    names.py          names of files as tables hold them, and back
    kinds.py          what kind of file it is, by its name or by its first bytes
    members.py        members of zips and gzipped files, read where they lie
    found.py          every file of the archive, sorted out: images, faults, others by kind
    recognise.py      which layout an archive has, and the error that explains why none fits
    mimic.py          MIMIC-CXR and MIMIC-CXR-JPG, with their tables
    openi.py          Open-i's Indiana University collection, with its XML
    tree.py           any other tree of DICOM files: which report is whose
    arrived.py        where a report that has arrived lies, and when it came
    report_sources.py where the reports of such a tree are: texts, tables, messages
    report_index.py   what was found in files with several reports, remembered
    claims.py         which studies remembered reports name, all at once
    report_files.py   reports that are loose files, or members of a zip or tar
    report_table.py   a table (CSV, TSV, Parquet) with a report in each row
    messages.py       one report of a file that holds several
    hl7.py            HL7 v2 messages (ORU)
    fhir.py           FHIR DiagnosticReport
    structured_report.py DICOM SR
    headings.py       what hospitals call the sections, to the headings used here
    encodings.py      bytes to text, in the encoding they are in
    markup.py         RTF and HTML to text

A new layout is a module with a class that has the members of ``protocol.Archive`` and a
``pattern`` of its images' paths, and its name in ``recognise.NAMED``; docs/extending.md
adds one.

Contracts
    A layout reads no pixels. All that a stored result depends on goes with the task: identifiers
    and whether the file is a picture. So an edit of a layout reads nothing again, unless it says
    something else of a file; then that file is read again.
"""
