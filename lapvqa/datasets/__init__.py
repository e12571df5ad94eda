"""Readers of the public datasets that the heads are trained and judged on.

``vindr`` ``vindr_tables``
    VinDr-CXR, PhysioNet's and Kaggle's form: boxes of 14 findings, three readers fused
``ms_cxr``
    MS-CXR 0.1 and 1.1: phrases of reports with their boxes
``diff_vqa`` ``ext_vqa`` ``questions``
    MIMIC-Diff-VQA and MIMIC-Ext-MIMIC-CXR-VQA: questions about one image or two
``stored``
    the project's own images, found by the identifiers that a dataset uses
``boxes`` ``images``
    several readers' boxes to one; from a file's pixels to stored pixels
``leaks`` ``account`` ``keys`` ``tables``
    patients in two splits; what was left out and why; keys without identity; files by column name

Contracts
    A reader is given a folder as published and returns a frozen value: rows or an Arrow table, and
    an ``Account`` in which read = kept + left out, by reason. Identifiers of patients, studies and
    images leave a reader as keys only: by the project's Keyring where the dataset refers to
    MIMIC-CXR, by a plain digest where it stands for itself. Boxes are xyxy in pixels of the
    original until ``boxes.place`` maps them into the stored square. No torch in this room.
    An error names file, line and column, what was expected, and what to do.

Pitfalls
    * Four words for three splits: validate, val, valid, validation. Readers say train, validate,
      test.
    * The question sets bring splits of their own, unrelated to the one that the encoder was
      pretrained on: see ``leaks``.
    * MS-CXR: x, y, width, height; VinDr-CXR: corners. Both in pixels of the original, so a resized
      copy needs the original's size.
    * The id of a study says nothing about its time: only dates do.
"""
