"""The ledger in the formats of others: OpenLineage events, W3C PROV, a Provenance Run Crate.

Each needs a package of the extra [lineage], imported when it is asked for.

Files, in the order in which data meets them:
    parts.py         the runs, artefacts and checks that all three tell of
    as_openlineage.py  events, ndjson, with facets of our own (facets/*.json are their schemas)
    as_prov.py       PROV-JSON
    as_ro_crate.py   a folder with ro-crate-metadata.json

Pitfalls
    Datasets are artefacts (shards, tables), never files of an archive: one event with 400,000
    inputs is more than its receivers take.
"""
