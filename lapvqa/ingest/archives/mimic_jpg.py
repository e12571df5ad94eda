"""MIMIC-CXR-JPG 2.0.0 / 2.1.0: files/pNN/pSUBJECT/sSTUDY/DICOMID.jpg, and its tables.

Resized copies of the tree, as .jpg or .png, have the same paths. The release holds no reports:
mimic-cxr-reports.zip of MIMIC-CXR has to be added, or the loose files. Its pictures were windowed
and histogram-equalised by its makers, so greys are not those of the DICOM files.
"""

from __future__ import annotations

import re

from lapvqa.ingest.archives.mimic import MimicArchive


class MimicJpgArchive(MimicArchive):
    """An archive of pictures in MIMIC-CXR's layout."""

    name = "mimic-cxr-jpg"
    pattern = re.compile(
        r"(?:^|/)p\d\d/p(\d{8})/s(\d{8})/([^/]+)\.(?:jpg|jpeg|png)$", re.IGNORECASE
    )
