"""Of the person on the film: sex, and age in bands of ten years; nothing finer is kept.

Ages from 90 on are one band, as the HIPAA Privacy Rule asks of de-identified data
(45 CFR 164.514(b)(2)(i)(C)). A date of birth is not read.
"""

from __future__ import annotations

import re
from typing import Literal

Sex = Literal["M", "F", "O", ""]

OLDEST = "90+"
_AGE = re.compile(r"(\d{1,3})([DWMY])")
_PER_YEAR = {"D": 365, "W": 52, "M": 12, "Y": 1}
_MOST_YEARS = 130


def clean_sex(text: str) -> Sex:
    """Return Patient's Sex (0010,0040): M, F, O (other); nothing for all else."""
    terms: dict[str, Sex] = {"M": "M", "F": "F", "O": "O"}
    return terms.get(text.strip().upper(), "")


def band_of_text(text: str) -> str:
    """Return the band of Patient's Age (0010,1010), such as 045Y or 006M; nothing for all else.

    000Y, which stands for an unknown age, is nothing: newborns have days, weeks or months (AS,
    PS3.5 6.2).
    """
    match = _AGE.fullmatch(text.strip().upper())
    if match is None or (int(match[1]) == 0 and match[2] == "Y"):
        return ""
    return band(int(match[1]) // _PER_YEAR[match[2]])


def band(years: int) -> str:
    """Return "0-9" to "80-89", or "90+"; nothing for what is no age."""
    if not 0 <= years <= _MOST_YEARS:
        return ""
    tens = years // 10 * 10
    return OLDEST if tens >= 90 else f"{tens}-{tens + 9}"
