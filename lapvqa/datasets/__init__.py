"""Readers of the public datasets that the heads are trained and judged on.

Files, in the order in which data meets them:
    pictures.py      an image file, DICOM or PNG or JPEG, to stored pixels
    image_folder.py  a data set's folder of image files, decoded once
    image_paths.py   which of its files are images, renamed or converted or not
    tables.py        files by column name; the account of their rows
    splits.py        keys, splits by hash, patients in two splits
    labelled.py      a classification set: labels in three splits
    chexpert.py      CheXpert-5
    nih14.py         NIH ChestX-ray14
    boxes.py         several readers' boxes to one; boxes into the stored square
    vindr_tables.py  VinDr-CXR's annotation tables, PhysioNet's and Kaggle's form
    vindr.py         VinDr-CXR: boxes of 14 findings, three readers fused
    stored.py        the project's own images, found by MIMIC-CXR's identifiers
    ms_cxr.py        MS-CXR 0.1 and 1.1: phrases of reports with their boxes
    questions.py     the table that both question sets become
    ext_vqa.py       MIMIC-Ext-MIMIC-CXR-VQA: questions about one image
    diff_vqa.py      MIMIC-Diff-VQA: questions about a study and one before it

Contracts
    A reader is given a folder as published and returns a frozen value: rows or an Arrow table, and
    an ``Account`` in which read = kept + left out, by reason. Identifiers of patients, studies and
    images leave a reader as keys only: by the project's Keyring where the dataset refers to
    MIMIC-CXR, by a plain digest where it stands for itself. Boxes are xyxy in pixels of the
    original until ``boxes.to_stored_square`` maps them. No torch in this room.
    An error names file, line and column, what was expected, and what to do.

Pitfalls
    * Four words for three splits: validate, val, valid, validation. Readers say train, validate,
      test.
    * The question sets bring splits of their own, unrelated to the one that the encoder was
      pretrained on: see ``splits``.
    * MS-CXR: x, y, width, height; VinDr-CXR: corners. Both in pixels of the original, so a resized
      copy needs the original's size.
    * The id of a study says nothing about its time: only dates do.
"""
