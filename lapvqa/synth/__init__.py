"""The demo archive: synthetic chest radiographs whose truth is known.

Purpose: everything downstream can be tried, tested and measured without credentialed data. The
same readers serve the demo and the real archives, because ``archive.write_demo`` writes the
public datasets' own layouts, traps included.

One direction: ``anatomy`` and ``findings`` (who, what, where) -> ``history`` (a patient's studies
over time) -> ``frontal``/``lateral`` with ``pathology`` (attenuation along the beam, drawn in the
patient's centimetres) -> ``film`` (scatter, noise, processing, window) -> ``encode`` (DICOM) and
one writer per dataset; ``archive`` writes them all.

Contracts: equal parameters give equal bytes and modification times whatever the number of
workers, because every random stream is derived from (seed, dataset, patient, study). A finding's
boxes are in native pixels (x0, y0, x1, y1). Exposure, window, body size and noise are drawn
without a look at the findings.

Pitfalls: nothing here is a real patient, and nothing learnt here transfers to real radiographs.
"""
