"""The demo archive: synthetic chest radiographs whose truth is known.

Files, in the order in which data meets them:
    __main__.py         python -m lapvqa.synth ROOT
    archive.py          write every dataset's copy, whole or marked incomplete
    findings.py         what can be wrong in a chest, and its names in the label sets
    anatomy.py          the patient, the posture, the outlines of one exposure
    patient_history.py  the findings of a patient's studies over time
    report_grammar.py   a report of one study, in MIMIC-CXR's format
    layers.py           the film's plane, thickness maps, attenuation along the beam
    skeleton.py         bones of the frontal chest
    frontal.py          the healthy frontal chest
    pathology.py        findings drawn on it, and their boxes
    lateral.py          the lateral chest, findings included
    radiograph.py       an exposure to a film: scatter, noise, processing, window
    encode.py           a film to a DICOM file
    shots.py            one image taken and written, as DICOM, JPEG or PNG
    mimic_copy.py       MIMIC-CXR: images, reports, tables
    chexpert_copy.py    CheXpert-v1.0-small
    nih14_copy.py       NIH ChestX-ray14
    vindr_copy.py       VinDr-CXR
    ms_cxr_copy.py      MS-CXR, of the MIMIC copy
    diff_vqa_copy.py    MIMIC-Diff-VQA, of the MIMIC copy
    ext_vqa_copy.py     MIMIC-Ext-MIMIC-CXR-VQA, of the MIMIC copy

Purpose: everything downstream can be tried, tested and measured without credentialed data. The
same readers serve the demo and the real archives, because ``archive.write_demo`` writes the
public datasets' own layouts, traps included.

Contracts: equal parameters give equal bytes and modification times whatever the number of
workers, because every random stream is derived from (seed, dataset, patient, study). A finding's
boxes are in native pixels (x0, y0, x1, y1). Exposure, window, body size and noise are drawn
without a look at the findings.

Pitfalls: nothing here is a real patient, and nothing learnt here transfers to real radiographs.
"""
