"""Identifying text: what is planted is found where it is, what is no identity is left alone.

Recall on 3,600 planted sentences (600 a kind, seed 7), marked in their exact place: name 97.8 %
(the others without their last initial), date, record number, phone, e-mail and address 100 %. The
forms are those that the rules were written for, so this is no estimate for other archives: of 62
forms written down afterwards, 43 were marked with their kind, 4 as another kind, 15 not at all,
8 of these names that no title or label gives away.
"""

from __future__ import annotations

import random
import re
import tarfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from lapvqa.ingest.archives.openi import read_openi
from lapvqa.synth import mimic_copy
from lapvqa.text.phi import PhiSpan, find_phi

KINDS = ("name", "date", "record_number", "phone", "email", "address")
FIRST = ("John", "Mary", "Ángela", "Wei", "Priya", "Jean-Luc", "Robert", "Fatima", "Sean", "Eva")
LAST = (
    "Smith", "O'Brien", "Müller", "Nguyen", "McDonald", "Garcia-Lopez", "Lee", "Okafor", "Patel",
    "van der Berg", "De Luca", "Ng", "Kowalski", "Park", "Young", "Black",
)  # fmt: skip
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip
STREETS = ("Main", "Oak Hill", "Longwood", "Martin Luther King", "5th", "Elm", "St. Mary's")
WAYS = ("Street", "St.", "Avenue", "Ave", "Road", "Rd", "Boulevard", "Blvd", "Lane", "Drive")
BEFORE = (
    "Heart size is normal. ",
    "No pneumothorax is seen; small left effusion.\n ",
    "FINDINGS: The lungs are clear.\n\n IMPRESSION: No acute process. ",
    "5/6 ribs fractured, 2.3 x 1.4 cm nodule. ",
    "",
)
AFTER = (".", " at 10:30.", ".\n FINDINGS: Clear lungs.", "", ", unchanged.")

Draw = random.Random


def name(draw: Draw) -> tuple[str, str]:
    first, last = draw.choice(FIRST), draw.choice(LAST)
    if draw.random() < 0.3:
        first += f" {draw.choice('ABCJ')}."
    full = draw.choice([f"{first} {last}", f"{first} {last}".upper()])
    single = draw.choice([last, full])
    return draw.choice(
        [
            ("Discussed with Dr. @ by telephone", single),
            ("Findings were conveyed to Dr @", last),
            ("DISCUSSED WITH DR. @", full.upper()),
            ("Doctor @ was informed", last),
            (f"The patient, {draw.choice(['Mr.', 'Mrs.', 'Ms.', 'Mr', 'Ms'])} @, was seen", last),
            ("Per Prof. @", full),
            ("Read by @, M.D.", full),
            ("@, MD", full),
            ("Electronically signed by @", full),
            ("Electronically signed by: @", full),
            ("Dictated by @", single),
            ("DICTATED BY: @", full.upper()),
            ("Patient: @", full),
            ("Patient name: @", f"{last}, {first}"),
            ("Name: @", full),
            ("PHYSICIAN: @", full),
            ("Attending: @", full),
            ("Reviewed by @", full),
            ("Discussed with @ on the phone", f"{draw.choice(FIRST)} {last}"),
        ]
    )


def date(draw: Draw) -> tuple[str, str]:
    year, month, day = draw.randint(1930, 2030), draw.randint(1, 12), draw.randint(1, 28)
    word = MONTHS[month - 1]
    form = draw.choice(
        [
            f"{month}/{day}/{year}",
            f"{month:02d}/{day:02d}/{year}",
            f"{month}/{day}/{year % 100:02d}",
            f"{month:02d}-{day:02d}-{year}",
            f"{day:02d}.{month:02d}.{year}",
            f"{year}-{month:02d}-{day:02d}",
            f"{day} {word[:3]} {year}",
            f"{day:02d}-{word[:3]}-{year}",
            f"{day:02d}-{word[:3].upper()}-{year % 100:02d}",
            f"{word} {day}, {year}",
            f"{word[:3]} {day}, {year}",
            f"{word.upper()} {day}, {year}",
            f"{word} {day}th",
            f"{day}th of {word}",
            f"{word} {year}",
            f"{month}/{year}",
        ]
    )
    return draw.choice(["Compared to @", "Comparison: @", "DOB: @", "Radiograph of @", "(@)"]), form


def record_number(draw: Draw) -> tuple[str, str]:
    short, long = str(draw.randint(1000, 999_999)), str(draw.randint(10**6, 10**10))
    return draw.choice(
        [
            ("MRN: @", short),
            ("MRN @", long),
            ("MRN# @", short),
            ("Acc: @", f"A{short}"),
            ("Accession #: @", long),
            ("Accession number @", f"RX-{short}"),
            ("Record # @", short),
            ("Medical record number: @", short),
            ("Patient ID: @", short),
            ("Account no. @", short),
            ("Patient @", long),
            (
                "SSN @",
                f"{draw.randint(100, 899)}-{draw.randint(10, 99)}-{draw.randint(1000, 9999)}",
            ),
            ("Study (@)", long),
        ]
    )


def phone(draw: Draw) -> tuple[str, str]:
    area, mid, last = draw.randint(201, 989), draw.randint(200, 999), draw.randint(1000, 9999)
    return draw.choice(
        [
            ("Call @", f"({area}) {mid}-{last}"),
            ("Call @", f"({area}){mid}-{last}"),
            ("Telephone: @", f"{area}-{mid}-{last}"),
            ("Reached at @", f"{area}.{mid}.{last}"),
            ("Reached at @", f"{area} {mid} {last}"),
            ("Reached at @", f"1-{area}-{mid}-{last}"),
            ("Reached at @", f"+1 {area} {mid} {last}"),
            ("Reached at @", f"+1 ({area}) {mid}-{last}"),
            ("Reached at @", f"+44 20 7946 {last}"),
            ("Call @", f"{mid}-{last}"),
            ("Paged, pager @", str(draw.randint(10_000, 99_999))),
            ("Pager number @", str(last)),
            ("Call ext. @", str(last)),
            ("Phone @", str(last)),
        ]
    )


def email(draw: Draw) -> tuple[str, str]:
    who = f"{draw.choice(['john', 'm', 'wei'])}{draw.choice(['.', '_', '-', ''])}smith"
    host = draw.choice(["hospital.org", "mail.clinic.example.edu", "x-ray.co.uk"])
    return draw.choice(["Sent to @", "Contact: <@>", "(@)"]), f"{who}@{host}"


def address(draw: Draw) -> tuple[str, str]:
    number, street, way = draw.randint(1, 9999), draw.choice(STREETS), draw.choice(WAYS)
    form = draw.choice(
        [
            f"{number} {street} {way}",
            f"{number} N. {street} {way}",
            f"{number} MAIN STREET",
            f"{number} main street",
            f"P.O. Box {number}",
        ]
    )
    return draw.choice(["Lives at @", "Address: @", "Sent to @"]), form


PLANTS: dict[str, Callable[[Draw], tuple[str, str]]] = {
    "name": name,
    "date": date,
    "record_number": record_number,
    "phone": phone,
    "email": email,
    "address": address,
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_planted_is_found_in_its_place(kind: str) -> None:
    draw, found, exact = Draw(7), 0, 0
    missed: list[str] = []
    for _ in range(600):
        sentence, thing = PLANTS[kind](draw)
        before, after = draw.choice(BEFORE), draw.choice(AFTER)
        text = f"{before}{sentence.replace('@', thing, 1)}{after}"
        start = len(before) + sentence.index("@")
        marks = [mark for mark in find_phi(text) if mark.kind == kind]
        end = start + len(thing.rstrip("."))
        hit = any(mark.start == start and end <= mark.end <= end + 1 for mark in marks)
        exact += hit
        found += any(mark.start < end and mark.end > start for mark in marks)
        if not hit:
            missed.append(text)
    assert exact >= 0.95 * 600, (exact, found, missed[:20])


@pytest.mark.parametrize(
    "text",
    [
        "Discussed with Dr. ___ at 10:30 on ___ by telephone.",
        "Discussed with Dr. XXXX. Dr XXXX XXXX was informed, XXXX, M.D.",
        "Compared to ___. Since ___ at 10:30, ___/___/___ and XXXX/XXXX.",
        "Electronically signed by ___, MD. Dictated by XXXX XXXX MD. Patient: ___ Name: XXXX",
        "MRN: ___ Acc: XXXX pager ___ (___) ___-___ ___@___.org",
        "5/6 ribs broken, 1/2 of the lung, T8-9, L1/L2, 3/4 at 10:30, 2-view, 8-9-10 ribs",
        "PA and lateral views, 2010. 2.3 x 1.4 cm. 10-12 mm. SpO2 88%. C5-C6-C7. NG tube, 60 cm",
        "Swan-Ganz catheter, Kerley B lines, MR angiography, DR technique, MS. Lungs clear.",
        "The patient may 2 days ago have marched on. Heart may be enlarged. In March.",
        "Name of the vein. Patient: 45 year old. Physician to review. Extent 10 x 12 cm.",
        "Chest, two views. May 20% of the lung be collapsed. Accounts for 100 ml.",
    ],
)
def test_removed_identities_and_plain_findings_are_left_alone(text: str) -> None:
    assert [text[mark.start : mark.end] for mark in find_phi(text)] == []


def test_marks_are_in_order_and_apart() -> None:
    text = "MRN 1234567, DOB 12/31/1950, seen 31 Dec 2010 by Dr. John Smith, M.D., a.b@c.org"
    assert [(mark.kind, text[mark.start : mark.end]) for mark in find_phi(text)] == [
        ("record_number", "1234567"),
        ("date", "12/31/1950"),
        ("date", "31 Dec 2010"),
        ("name", "John Smith"),
        ("email", "a.b@c.org"),
    ]
    assert find_phi("") == []
    assert find_phi("Name: Doe") == [PhiSpan("name", 6, 9)]


def test_the_demo_archive_names_nobody() -> None:
    reports = [study.report.text for study in mimic_copy.plan(3, patients=100, studies=200)]
    assert len(reports) == 200
    assert [mark for report in reports for mark in find_phi(report)] == []


@pytest.mark.parametrize(
    "piece",
    [
        "1", "1/", "1-", "1 ", "(", "+1 ", "A", "A ", "Aa ", "Dr. ", "Dr. A. ", "Smith-", "a.",
        "Smith, M.D. ", "a@a.", "@", "Name: ", "Patient:\n", " ", "\n", "de la ", "O'", "MRN #",
        "pager ", "May ", "1 Main ", "12 Jan ", "read by A", "555-", "é", "XXXX ", "Dr. XXXX ",
        "a@", "_",
    ],
)  # fmt: skip
def test_time_is_linear(piece: str) -> None:
    long = piece * (200_000 // len(piece))
    # Ten times the text in ten times the time; steps that grow with it would make it a hundred.
    assert _best(long) < 40 * _best(long[: len(long) // 10])


def _best(text: str) -> float:
    times = []
    for _ in range(3):
        start = time.process_time()
        find_phi(text)
        times.append(time.process_time() - start)
    return max(min(times), 1e-6)


@pytest.mark.corpus
def test_false_marks_are_rare_in_a_de_identified_corpus(corpus: Path) -> None:
    packed = corpus / "openi" / "NLMCXR_reports.tgz"
    marked: Counter[str] = Counter()
    count = 0
    with tarfile.open(packed) as archive:
        for member in archive:
            number = re.search(r"(\d+)\.xml$", member.name)
            content = archive.extractfile(member) if number else None
            if number is None or content is None:
                continue
            text = read_openi(content.read(), f"CXR{number[1]}").text
            count += 1
            marked.update({mark.kind for mark in find_phi(text)})
    assert count == 3955
    # None at all when the rules were written; two reports of a kind would be looked at.
    assert all(marked[kind] <= 1 for kind in KINDS), marked
