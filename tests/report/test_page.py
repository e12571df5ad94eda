"""The report page: whole, escaped, deterministic, well-formed, and honest where something lacks."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree, html
from PIL import Image

from lapvqa import storage
from lapvqa.errors import MissingArtifactError, SchemaError
from lapvqa.evaluation import task_table
from lapvqa.evaluation.task_table import EVALUATIONS
from lapvqa.metrics import record
from lapvqa.pages import templates
from lapvqa.report.examples import choose
from lapvqa.report.page_results import METRICS, family, metric_name
from lapvqa.report.text_examples import mark
from lapvqa.schemas import (
    ANSWER_PREDICTIONS,
    GROUNDING_PREDICTIONS,
    REJECTS,
    RRG_PREDICTIONS,
    STUDIES,
)

STYLE = Path(templates.__file__).with_name("base.css")


def _text(document: str) -> str:
    """Return what is read, with a space between table cells."""
    spaced = re.sub(r"</t[dh]>", r" \g<0>", document)
    return " ".join(html.fromstring(spaced).text_content().split())


# Bytes


def test_same_artefacts_give_the_same_bytes_in_another_folder(project, tmp_path) -> None:
    first = project.render()
    elsewhere = tmp_path / "moved"
    shutil.copytree(
        project.paths.root, elsewhere, ignore=shutil.ignore_patterns("moved", ".lapvqa")
    )
    second = type(project)(elsewhere).render()
    assert first == second
    assert str(tmp_path) not in first


def test_row_order_of_predictions_changes_nothing(project) -> None:
    first = project.render()
    for task in EVALUATIONS:
        path = project.paths.result_dir(task) / "predictions.parquet"
        table = pq.read_table(path)
        storage.write_table(path, table.take(list(range(table.num_rows))[::-1]), table.schema)
    assert project.render() == first


def test_no_identity_and_no_archive_path_reaches_the_page(project) -> None:
    written = project.render()
    for secret in ("p10001234", "s50005678", "secret.dcm", "patient0000"):
        assert secret not in written


def _shown(project, **asked) -> str:
    """Render; return all that shows examples: the page and the pictures beside it."""
    pages = [project.render(**asked)]
    pages += [path.read_text() for path in sorted(project.paths.pictures_dir.iterdir())]
    return " ".join(" ".join(pages).split())


CANARY = "Kanarienvogel"


def _plant(project, *, flags: list[str]) -> str:
    """Let one study's report and a question about it name somebody; return its key."""
    studies = pq.read_table(project.paths.studies).to_pylist()
    studies[1]["identity_flags"] = flags
    victim = studies[1]["study_key"]
    table = STUDIES.empty_table().from_pylist(studies, schema=STUDIES)
    storage.write_table(project.paths.studies, table, STUDIES)
    images = pq.read_table(project.paths.images).to_pylist()
    of_victim = {victim, *(row["image_key"] for row in images if row["study_key"] == victim)}
    for task, schema, column in (
        ("rrg", RRG_PREDICTIONS, "reference"),
        ("vqa", ANSWER_PREDICTIONS, "reference"),
        ("diffvqa", ANSWER_PREDICTIONS, "question"),
        ("pg", GROUNDING_PREDICTIONS, "phrase"),
    ):
        path = project.paths.result_dir(task) / "predictions.parquet"
        rows = pq.read_table(path).to_pylist()
        named = [row for row in rows if of_victim & set(map(str, row.values()))]
        assert named
        for row in named:
            row[column] = f"Seen by {CANARY}"
        storage.write_table(path, schema.empty_table().from_pylist(rows, schema=schema), schema)
    return str(victim)


def test_a_study_whose_report_may_name_somebody_is_no_example(project) -> None:
    victim = _plant(project, flags=[])
    shown = _shown(project, examples=100)
    assert CANARY in shown
    assert victim[:8] in shown
    _plant(project, flags=["name"])
    shown = _shown(project, examples=100, patients="show")
    assert CANARY not in shown
    assert victim[:8] not in shown
    assert "Study <code>" in shown


def test_films_and_texts_of_patients_are_shown_only_if_asked_for(project) -> None:
    assert "Data: <strong>synthetic</strong>" in _shown(project)
    project.inventory("source", folder="films")
    _plant(project, flags=[])
    hidden = _shown(project, examples=100)
    assert CANARY not in hidden
    assert "no film and no text of a patient" in hidden
    assert 'aria-labelledby="rrg-study-1"' not in hidden
    assert "an archive of patients (<code>films</code>)" in hidden
    assert "Chest radiograph" in hidden  # of the demo's VinDr-CXR, which nobody is in
    project.inventory("vindr", folder="vindr")
    none = _shown(project, examples=100)
    assert "data:image/png" not in none
    asked = _shown(project, examples=100, patients="show")
    assert CANARY in asked
    assert "<strong>films and texts of patients</strong>" in asked


def test_one_sentence_says_what_pretraining_was_worth(project) -> None:
    none = {"value": 0.01, "low": -0.02, "high": 0.04}
    worse = {"value": -0.1, "low": -0.2, "high": -0.01}
    for task, gain in (("vqa", none), ("pg", worse)):
        primary = json.loads(project.metrics(task).read_text())["primary"]
        project.edit_metrics(task, differences={"trained-untrained": {primary: gain}})
    text = _text(project.render())
    assert "Of 9 tasks the encoder is, after its training, better in 6 (" in text
    assert "worse in 1 (Grounding of phrases), not told apart from before in 2 (" in text
    for task in EVALUATIONS:
        project.edit_metrics(task, differences={})
    assert (
        "In all 9 tasks the encoder is, after its training, not told apart from before."
        in _text(project.render())
    )
    for task in EVALUATIONS:
        project.edit_metrics(task, status="not computed", reason="no data")
    assert "No evaluation was computed, so nothing says" in _text(project.render())


def test_why_values_have_no_interval_is_said_below_the_table_and_in_the_section(project) -> None:
    content = json.loads(project.metrics("vqa").read_text())
    bare = {
        system: {name: number | {"low": None, "high": None} for name, number in numbers.items()}
        for system, numbers in content["systems"].items()
    }
    fewest = {"interval_confidence": 0.95, "interval_min_patients": content["num_patients"] + 1}
    project.edit_metrics("vqa", systems=bare, protocol=fewest)
    text = _text(project.render())
    title = task_table.find("vqa").title
    assert f"No interval: fewer than {content['num_patients'] + 1} patients ({title})." in text
    assert f"; no interval, fewer than {content['num_patients'] + 1} patients." in text


def test_what_has_no_value_was_not_judged(project) -> None:
    content = json.loads(project.metrics("probe_nih14").read_text())
    nothing = {"value": None, "low": None, "high": None}
    none = {system: {"mean_auc": nothing} for system in content["systems"]}
    why = ["mean_auc: no class is defined"]
    project.edit_metrics("probe_nih14", systems=none, differences={}, undefined=why)
    text = _text(project.render())
    title = task_table.find("probe_nih14").title
    assert f"No value: no class is defined ({title})." in text
    assert f"not judged in 1 ({title})" in text


def test_a_contaminated_result_says_so_in_the_table_and_in_its_section(project) -> None:
    assert "ontaminated" not in project.render()
    path = project.metrics("rrg")
    why = "2 of 12 test images are in training too, by film"
    content = json.loads(path.read_text()) | {"contaminated": {"why": [why], "counts": {"film": 2}}}
    storage.write_json(path, content)
    text = _text(project.render())
    assert f"Contaminated: {why}; values may be too high" in text
    assert "contaminated" in text[: text.index(f"Contaminated: {why}")]
    nobody = {"why": ["nobody knows"], "counts": {"training_unknown": 12}}
    storage.write_json(path, content | {"contaminated": nobody})
    text = _text(project.render())
    assert "Unknown training: nobody knows; if it had them" in text
    assert "ontaminated" not in text


# Structure


class _Nesting(HTMLParser):
    """Collect tags that are closed out of turn or never; HTML's void elements need no end."""

    VOID = frozenset({"meta", "link", "img", "br", "hr", "input", "wbr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        self.faults += [f"{tag} has {name} twice" for name in names if names.count(name) > 1]
        if tag == "p" and "p" in self.open:
            self.faults.append("p within p")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if "svg" not in self.open:
            self.faults.append(f"<{tag}/> outside SVG")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at line {self.getpos()[0]} closes something else")


def test_page_is_well_formed(page: str) -> None:
    parser = _Nesting()
    parser.feed(page)
    parser.close()
    assert not parser.faults
    assert not parser.open


def test_nesting_check_can_fail() -> None:
    parser = _Nesting()
    parser.feed("<p><b>one</p></b><p id=a id=b>")
    assert len(parser.faults) >= 2


BESIDE = {"lineage.html", "freshness.html"}
"""The pages of the graph and of the time line, beside this one."""


def test_ids_are_unique_and_every_reference_to_one_resolves(page: str) -> None:
    tree = html.fromstring(page)
    ids = Counter(tree.xpath("//@id"))
    assert not [name for name, count in ids.items() if count > 1]
    wanted = [value[1:] for value in tree.xpath("//a/@href") if value not in BESIDE]
    wanted += tree.xpath("//@aria-labelledby")
    assert wanted
    assert not [name for name in wanted if name not in ids]


def test_headings_descend_one_level_at_a_time(page: str) -> None:
    tree = html.fromstring(page)
    levels = [int(node.tag[1]) for node in tree.iter("h1", "h2", "h3", "h4", "h5", "h6")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(next_ - level <= 1 for level, next_ in zip(levels, levels[1:], strict=False))


def test_pictures_and_figures_are_described_in_words(page: str) -> None:
    tree = html.fromstring(page)
    images = tree.xpath("//img")
    assert len(images) == 4 + 4 + 8  # reports, questions, pairs
    assert all("hest radiograph of " in image.get("alt") for image in images)
    assert all(node.get("aria-label") for node in tree.xpath("//*[@role='img']"))
    assert tree.xpath("/html/@lang") == ["en"]
    assert all(table.xpath("./caption") for table in tree.xpath("//table"))
    assert all(cell.get("scope") for cell in tree.xpath("//th"))


def test_nothing_is_fetched_and_nothing_is_run(page: str) -> None:
    tree = html.fromstring(page)
    addresses = tree.xpath("//@src | //@href | //@srcset | //@action | //@poster")
    elsewhere = [value for value in addresses if not value.startswith(("#", "data:"))]
    assert sorted(elsewhere) == sorted(BESIDE)
    assert set(tree.xpath("//a/@href")) >= BESIDE  # followed by a reader, fetched by nobody
    assert not tree.xpath("//script | //iframe | //object | //embed | //form")
    styles = " ".join(tree.xpath("//style/text()"))
    assert "url(" not in styles
    assert "@import" not in styles


# Content


def test_numbers_of_every_system_stand_with_their_intervals(page: str) -> None:
    text = _text(page)
    assert "Mean AUC 0.910 [0.880, 0.940] 0.550 [0.520, 0.580]" in text
    assert "Difference in Mean AUC, trained − untrained: 0.360 [0.330, 0.390]" in text
    assert (
        "Finding F1, micro 0.490 [0.460, 0.520] 0.090 [0.060, 0.120] 0.440 [0.410, 0.470] "
        "0.070 [0.040, 0.100] 0.040" in text
    )


def test_undefined_is_said_not_shown_as_zero(page: str) -> None:
    text = _text(page)
    assert "Hernia undefined undefined" in text
    assert "Hernia: no positive sample" in text


def test_counts_add_up(page: str) -> None:
    text = _text(page)
    assert "15 image files = 12 taken + 3 rejected; beside them lie 1 DICOM objects" in text
    assert "no images and 1 other files" in text
    assert "file truncated 2 copy the file again" in text
    assert "11 reports became tokens, 1 of them cut" in text
    assert "test 4 8 8 8" in text


def test_findings_are_told_apart_by_words(project) -> None:
    text = _text(project.render(examples=8))
    assert "right: Cardiomegaly" in text
    assert "missed: Pleural Effusion" in text
    assert "invented: Cardiomegaly" in text
    assert "right: No Finding" in text
    assert "not looked for in the text: Fracture" in text
    assert "against the reference report" in text  # a study whose truth nobody labelled


def test_health_is_a_finding_that_words_must_assert(project) -> None:
    path = project.paths.result_dir("rrg") / "predictions.parquet"
    words = {"trained": "..."}
    rows = [
        row | {"hypothesis": words.get(row["system"], "")}
        for row in pq.read_table(path).to_pylist()
    ]
    storage.write_table(
        path, pq.read_table(path).from_pylist(rows, RRG_PREDICTIONS), RRG_PREDICTIONS
    )
    text = _text(project.render())
    assert "missed: No Finding" in text
    assert "right: No Finding" not in text


def test_findings_of_reports_in_another_language_are_not_looked_for(project) -> None:
    path = project.paths.result_dir("rrg") / "predictions.parquet"
    table = pq.read_table(path)
    metadata = {**(table.schema.metadata or {}), b"lapvqa.protocol": b'{"references_in_de": 9}'}
    storage.write_table(path, table.replace_schema_metadata(metadata), RRG_PREDICTIONS)
    text = _text(project.render())
    assert not re.search("(right|missed|invented): No Finding", text)
    assert "not looked for in the text: " in text  # what the archive's labels know


def test_examples_are_chosen_by_key_not_by_result(project) -> None:
    shown = re.findall(r"Study <code>(\w+)</code>", project.render())
    path = project.paths.result_dir("rrg") / "predictions.parquet"
    rows = pq.read_table(path).to_pylist()
    for row in rows:
        row["hypothesis"] = "Cardiomegaly." if row["system"] == "trained" else row["hypothesis"]
    storage.write_table(
        path, pq.read_table(path).from_pylist(rows, RRG_PREDICTIONS), RRG_PREDICTIONS
    )
    assert re.findall(r"Study <code>(\w+)</code>", project.render()) == shown


def test_picture_is_the_content_without_padding(page: str) -> None:
    data = html.fromstring(page).xpath("//img/@src")[0].split(",", 1)[1]
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.mode == "L"
    assert image.height == 256
    assert abs(image.width - 256 * 440 / 520) <= 1


def test_hostile_text_stays_text(project) -> None:
    attack = '<script>alert(1)</script><img src=x onerror="alert(2)">{{ 7 * 7 }}'
    paths = project.paths
    path = paths.result_dir("rrg") / "predictions.parquet"
    rows = [
        row | {"reference": attack, "hypothesis": attack} for row in pq.read_table(path).to_pylist()
    ]
    storage.write_table(
        path, pq.read_table(path).from_pylist(rows, RRG_PREDICTIONS), RRG_PREDICTIONS
    )
    rejects = [
        row | {"reason": attack, "remedy": attack}
        for row in pq.read_table(paths.rejects).to_pylist()
    ]
    storage.write_table(
        paths.rejects, pq.read_table(paths.rejects).from_pylist(rejects, REJECTS), REJECTS
    )
    storage.write_json(paths.model_dir("captioning") / "card.json", {attack: attack})
    metrics = json.loads(project.metrics("probe_chexpert").read_text())
    metrics["systems"]["trained"][f"auc/{attack}"] = metrics["systems"]["trained"]["mean_auc"]
    project.edit_metrics(
        "probe_chexpert", systems=metrics["systems"], undefined=[attack], protocol={attack: attack}
    )
    project.edit_metrics("probe_nih14", status="not computed", reason=attack)
    tree = html.fromstring(project.render())
    assert not tree.xpath("//script | //@onerror | //img[@src='x']")
    assert "49" not in _text(html.tostring(tree, encoding="unicode")).split()
    assert tree.text_content().count("alert(1)") >= 10


# The first table


def test_first_table_sets_trained_beside_untrained_for_every_task(page: str) -> None:
    (table,) = html.fromstring(page).xpath("//section[@aria-labelledby='results']//table")
    rows = [" ".join(row.text_content().split()) for row in table.xpath(".//tbody/tr")]
    assert len(rows) == len(EVALUATIONS) + 1  # reports are written by a decoder and by a head
    assert "Mean AUC0.910 [0.880, 0.940]0.550 [0.520, 0.580]0.360 [0.330, 0.390]" in rows[0]
    assert "by a head on the frozen encoder" in rows[7]
    assert "0.440 [0.410, 0.470]0.070 [0.040, 0.100]0.370 [0.340, 0.400]" in rows[7]
    assert rows[9].startswith("Grounding of phrases")


def test_several_seeds_are_said_and_only_the_first_head_is_shown(project) -> None:
    primary = json.loads(project.metrics("vqa").read_text())["primary"]
    spread = {primary: {"values": [0.7, 0.74], "sd": 0.028284}}
    project.edit_metrics("vqa", seeds={"trained": spread})
    path = project.paths.result_dir("vqa") / "predictions.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    again = [row | {"system": "trained@1"} for row in rows if row["system"] == "trained"]
    storage.write_table(
        path, table.from_pylist([*rows, *again], ANSWER_PREDICTIONS), ANSWER_PREDICTIONS
    )
    tree = html.fromstring(project.render())
    (section,) = tree.xpath("//section[@aria-labelledby='vqa']")
    text = " ".join(section.text_content().split())
    assert "Trained: mean of 2 heads of different seeds, whose standard deviation is 0.028." in text
    assert "trained@1" not in text


def test_every_evaluation_has_a_section_and_a_link_to_it(page: str) -> None:
    tree = html.fromstring(page)
    for task in EVALUATIONS:
        assert tree.xpath(f"//h2[@id='{task}']")
        assert tree.xpath(f"//nav//a[@href='#{task}']")


def test_no_metric_is_dropped_and_each_has_a_readable_name(page: str, finished) -> None:
    tree = html.fromstring(page)
    for task in EVALUATIONS:
        metrics = json.loads(finished.metrics(task).read_text())
        known = {key for values in metrics["systems"].values() for key in values}
        (shown,) = tree.xpath(f"//section[@aria-labelledby='{task}']/details[1]//table")
        assert len(shown.xpath(".//tbody/tr")) == len(known)
    assert all(family(key) in METRICS for key in record.DEFINITIONS)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("mean_auc", "Mean AUC"),
        ("auc/Pleural_Thickening", "AUC, Pleural Thickening"),
        ("mean_brier", "Mean Brier score (lower is better)"),
        ("exact_match/type:is_it", "Exact match, is it"),
        ("ap40/Nodule/Mass", "AP at IoU 0.4, Nodule/Mass"),
        ("never_heard_of", "never_heard_of"),
    ],
)
def test_metric_names(key: str, name: str) -> None:
    assert metric_name(key) == name


# What a person looks at


def test_questions_show_both_images_and_what_each_system_answered(project) -> None:
    tree = html.fromstring(project.render(examples=6))
    (pairs,) = tree.xpath("//section[@aria-labelledby='diffvqa']//div[@class='questions']")
    for article in pairs.xpath("./article"):
        captions = [one.text for one in article.xpath(".//figcaption")]
        assert captions == ["Reference image", "Image asked about"]
    text = " ".join(pairs.text_content().split())
    assert text.count("Reversed pair: the reference image is the later one.") == 1
    assert text.count("right: the main image has an additional finding") == 6
    assert text.count("wrong (word F1 0.15): nothing has changed.") == 6


def test_questions_of_each_type_come_in_turn(project) -> None:
    tree = html.fromstring(project.render(examples=3))
    (questions,) = tree.xpath("//section[@aria-labelledby='vqa']//div[@class='questions']")
    types = questions.xpath(".//div[dt='Question type']/dd/text()")
    assert types == ["location of", "plane", "presence"]


def test_boxes_lie_where_they_were_found_and_are_judged_one_by_one(project) -> None:
    tree = html.fromstring(project.render(examples=8))
    (section,) = tree.xpath("//section[@aria-labelledby='ad']")
    first = section.xpath(".//article")[0]
    trained, untrained = first.xpath(".//figure")
    lines = [(float(one.get("x")), float(one.get("y"))) for one in trained.xpath(".//rect")[::2]]
    assert lines == [(150, 200), (50, 270), (158, 208), (200, 40), (50, 270)]
    assert [" ".join(one.text_content().split()) for one in trained.xpath(".//li")] == [
        "✓ right: Cardiomegaly (1) by a, 0.91",
        "– missed: Pleural effusion (2)",
        "+ invented: Aortic enlargement (b), 0.40",
        "+ invented: Nodule/Mass (c), 0.05",
    ]
    assert "missed: Cardiomegaly (1)" in untrained.text_content()
    assert len(trained.xpath(".//image")) == 1
    assert [one.get("href") for one in untrained.xpath(".//use")] == ["#ad-1"]
    assert "no box" not in section.xpath(".//article")[7].xpath(".//svg")[0].get("aria-label")


def test_phrases_show_true_boxes_and_those_of_both_systems(project) -> None:
    tree = html.fromstring(project.render(examples=6))
    articles = tree.xpath("//section[@aria-labelledby='pg']//article")
    assert [one.xpath("./p/text()")[0] for one in articles[:3]] == [
        "Cardiomegaly", "Pleural Effusion", "Cardiomegaly",
    ]  # fmt: skip
    boxes = [len(one.xpath(".//svg/rect")) // 2 for one in articles]
    assert sorted(boxes) == [3, 3, 3, 3, 3, 4]
    text = " ".join(articles[0].text_content().split())
    # Shifted by 12 of 160 x 120: 148 * 108 / (2 * 160 * 120 - 148 * 108).
    assert "✓ trained encoder: right, IoU 0.71" in text
    assert "× untrained encoder: wrong, IoU 0.09" in text


def test_words_that_name_a_finding_are_marked_in_the_text(project) -> None:
    tree = html.fromstring(project.render(examples=8))
    marks = {" ".join(one.text_content().split()) for one in tree.xpath("//mark")}
    assert {
        "✓ right: heart is enlarged", "– missed: effusion", "+ invented: cardiomegaly",
    } <= marks  # fmt: skip
    assert not any("No pneumothorax" in one for one in marks)


@given(st.text("ab .\n", max_size=30), st.sampled_from(["edema", "no edema", "Effusion; mass"]))
def test_marking_changes_no_word(noise: str, finding: str) -> None:
    text = f"{noise}{finding}. {noise}"
    signs = {"Edema": "right", "Pleural Effusion": "invented"}
    assert "".join(piece.words for piece in mark(text, signs)) == text


@given(st.lists(st.tuples(st.text(max_size=3), st.sampled_from("abc")), max_size=30))
def test_choice_takes_groups_in_turn_and_depends_on_names_alone(samples) -> None:
    samples = list({name: (name, group) for name, group in samples}.values())
    chosen = choose(samples, 5)
    assert choose(samples[::-1], 5) == chosen
    assert len(chosen) == len(set(chosen)) == min(5, len(samples))
    group_of = dict(samples)
    first = [group_of[name] for name in chosen[: len(set(group_of.values()))]]
    assert first == sorted(set(group_of.values()))[:5]


def test_damaged_pictures_of_detection_are_refused_by_name(project) -> None:
    path = project.paths.result_dir("ad") / "extra" / "examples.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(SchemaError, match=re.escape("results/ad/extra/examples.npz")):
        project.render()


def test_each_evaluation_leaves_a_picture_that_stands_alone(project) -> None:
    project.render(examples=3)
    files = sorted(project.paths.pictures_dir.iterdir())
    assert [path.stem for path in files] == sorted({*EVALUATIONS} - {"retrieval"})  # ranks alone
    for path in files:
        tree = etree.parse(path)
        addresses = tree.xpath("//@href | //@*[local-name()='href']")
        assert all(value.startswith(("#", "data:")) for value in addresses), path.name
        assert not tree.xpath("//*[local-name()='script']")
        width, height = (float(tree.getroot().get(name)) for name in ("width", "height"))
        lowest = max(float(value) for value in tree.xpath("//*[local-name()='text']/@y"))
        assert width == 1140
        assert lowest < height


def test_the_page_needs_no_torch() -> None:
    script = (
        "import sys, lapvqa.report.page; from lapvqa.evaluation import task_table; "
        "task_table.find_all(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


# What lacks


def test_not_computed_evaluations_say_why(project) -> None:
    for task in EVALUATIONS:
        value = {"task": task, "status": "not computed", "reason": f"no data for {task}"}
        storage.write_json(project.metrics(task), value)
    text = _text(project.render())
    assert "No evaluation was computed" in text
    assert "Not computed: no data for probe_nih14" in text
    assert text.count("not computed: no data for") == len(EVALUATIONS)  # in the first table
    assert not list(project.paths.pictures_dir.iterdir())


def test_missing_shard_costs_the_picture_only(project) -> None:
    next(project.paths.images_dir.iterdir()).unlink()
    text = _text(project.render())
    assert text.count("The image is not in data/images.") == 4 + 4 + 8 + 4  # phrases too
    assert "heart is enlarged" in text


def test_history_without_validation_or_without_rows_is_said(project) -> None:
    path = project.paths.model_dir("captioning") / "history.csv"
    path.write_text("step,epoch,loss,lr,val_loss\n1,0,9.0,0.1,\n2,0,8.0,0.1,\n")
    assert "No validation loss was recorded" in _text(project.render())
    path.write_text("step,epoch,loss,lr,val_loss\n")
    assert "The history of training holds no loss." in _text(project.render())


def test_no_examples_asked_for(project) -> None:
    without = 4  # the probes, and retrieval
    text = _text(project.render(examples=0))
    assert text.count("None asked for") == len(EVALUATIONS) - without


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("data/images.parquet", "ingest"),
        ("data/studies.parquet", "ingest"),
        ("data/rejects.parquet", "ingest"),
        ("data/companions.parquet", "ingest"),
        ("data/token_rejects.parquet", "tokens"),
        ("results/probe_nih14/metrics.json", "evaluate@probe_nih14"),
        ("results/probe_nih14/predictions.parquet", "evaluate@probe_nih14"),
        ("results/rrg/predictions.parquet", "evaluate@rrg"),
        ("results/vqa/predictions.parquet", "evaluate@vqa"),
        ("results/diffvqa/metrics.json", "evaluate@diffvqa"),
        ("results/ad/extra/examples.npz", "evaluate@ad"),
        ("results/pg/predictions.parquet", "evaluate@pg"),
        ("models/captioning/card.json", "export"),
        ("models/captioning/history.csv", "pretrain"),
    ],
)
def test_missing_file_names_the_stage_that_makes_it(project, name, stage) -> None:
    (project.paths.root / name).unlink()
    with pytest.raises(MissingArtifactError, match=re.escape(f"--stage {stage}`")):
        project.render()
    assert not project.paths.report_page.exists()


def test_metrics_of_another_shape_are_refused_by_name(project) -> None:
    storage.write_json(project.metrics("rrg"), {"task": "rrg", "status": "ok", "systems": []})
    with pytest.raises(SchemaError, match="results/rrg/metrics.json"):
        project.render()


# Colours


def _luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(first: str, second: str) -> float:
    """WCAG 2.2, definition of contrast ratio."""
    high, low = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_holds_in_both_themes_and_in_print() -> None:
    light, dark, paper = (
        dict(re.findall(r"--([\w-]+): (#\w{6})", theme))
        for theme in re.findall(r":root \{(.*?)\}", STYLE.read_text(), flags=re.DOTALL)
    )
    assert set(light) == set(dark) >= set(paper)
    for colours in (light, dark, light | paper):
        background = colours["page"]
        for name in ("text", "muted", "link", "trained", "right", "missed", "invented"):
            assert _contrast(colours[name], background) >= 4.5, name
            assert _contrast(colours[name], colours["panel"]) >= 4.5, name
        for name in ("untrained", "baseline", "warn-rule"):
            assert _contrast(colours[name], background) >= 3, name
        assert _contrast(colours["text"], colours["warn"]) >= 4.5


# The model card, the training loss


CARD = {
    "objective": "captioning", "encoder_of": "step 320, the last", "init_seed": 3,
    "model": {"depth": 4, "width": 128, "heads": 4, "image_size": 64, "patch_size": 16,
              "decoder_depth": 1, "decoder_width": 64},
    "input": {"dtype": "float32", "from": "uint8 [B, 384, 384]", "shape": ["B", 1, 64, 64],
              "normalisation": {"divide": 255, "mean": 0.5, "std": 0.25}},
    "output": {"pooled_tokens": 16, "patch_tokens": 64, "width": 128},
    "training": {"data_digest": "d" * 64, "train_pairs": 1200, "validate_pairs": 30, "steps": 320,
                 "best_step": 200, "best_val_loss": 1.25, "parallel_share": 0.75},
    "files": {"encoder_final.pt": {"holds": ["vision_encoder"], "load": "torch.load(path)"}},
    "sha256": {"encoder_final.pt": "abcdef" * 10}, "of a later version": {"licence": "MIT"},
}  # fmt: skip


def test_the_model_card_is_in_words_and_leaves_nothing_out_it_does_not_know(project) -> None:
    storage.write_json(project.paths.model_dir("captioning") / "card.json", CARD)
    text = _text(project.render())
    for said in (
        "captioning: it writes the report of a film",
        "vision transformer of depth 4, width 128, 4 heads; 64 x 64 pixels in patches of 16.",
        "each value (v / 255 - 0.5) / 0.25, from uint8",
        "1,200 pairs of film and report, 30 to choose by; 320 steps from seed 3; lowest validation "
        "loss 1.250 at step 200",
        "encoder_final.pt vision encoder torch.load(path) abcdefabcdefabcd",
        "of a later version.licence MIT",
    ):
        assert said in text


def test_parallel_prediction_is_named_where_reports_were_so_written(project) -> None:
    card = project.paths.model_dir("captioning") / "card.json"
    storage.write_json(card, CARD)
    assert "75 % of the training reports are written by parallel prediction" in _text(
        project.render()
    )
    storage.write_json(card, CARD | {"training": {"parallel_share": 0.0}})
    assert "parallel prediction" not in project.render()
