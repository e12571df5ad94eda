"""The report page: whole, escaped, deterministic, well-formed, and honest where something lacks."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from lxml import html
from PIL import Image

from lapvqa import storage
from lapvqa.errors import MissingArtifactError, SchemaError
from lapvqa.report import page
from lapvqa.schemas import REJECTS, RRG_PREDICTIONS

STYLE = Path(page.__file__).with_name("style.css")


def _text(document: str) -> str:
    """Return what is read, with a space between table cells."""
    spaced = re.sub(r"</t[dh]>", r" \g<0>", document)
    return " ".join(html.fromstring(spaced).text_content().split())


# Bytes


def test_same_artefacts_give_the_same_bytes_in_another_folder(project, tmp_path) -> None:
    first = project.render()
    elsewhere = tmp_path / "moved"
    shutil.copytree(
        project.layout.root, elsewhere, ignore=shutil.ignore_patterns("moved", ".lapvqa")
    )
    second = type(project)(elsewhere).render()
    assert first == second
    assert str(tmp_path) not in first


def test_row_order_of_predictions_changes_nothing(project) -> None:
    first = project.render()
    for task in ("probe_chexpert", "rrg"):
        path = project.layout.result_dir(task) / "predictions.parquet"
        table = pq.read_table(path)
        storage.write_table(path, table.take(list(range(table.num_rows))[::-1]), table.schema)
    assert project.render() == first


def test_no_identity_and_no_archive_path_reaches_the_page(project) -> None:
    written = project.render()
    for secret in ("p10001234", "s50005678", "secret.dcm", "patient0000"):
        assert secret not in written


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


def test_page_is_well_formed(project) -> None:
    parser = _Nesting()
    parser.feed(project.render())
    parser.close()
    assert not parser.faults
    assert not parser.open


def test_nesting_check_can_fail() -> None:
    parser = _Nesting()
    parser.feed("<p><b>one</p></b><p id=a id=b>")
    assert len(parser.faults) >= 2


def test_ids_are_unique_and_every_reference_to_one_resolves(project) -> None:
    tree = html.fromstring(project.render())
    ids = Counter(tree.xpath("//@id"))
    assert not [name for name, count in ids.items() if count > 1]
    wanted = [value[1:] for value in tree.xpath("//a/@href")]
    wanted += tree.xpath("//@aria-labelledby")
    assert wanted
    assert not [name for name in wanted if name not in ids]


def test_headings_descend_one_level_at_a_time(project) -> None:
    tree = html.fromstring(project.render())
    levels = [int(node.tag[1]) for node in tree.iter("h1", "h2", "h3", "h4", "h5", "h6")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(next_ - level <= 1 for level, next_ in zip(levels, levels[1:], strict=False))


def test_pictures_and_figures_are_described_in_words(project) -> None:
    tree = html.fromstring(project.render())
    images = tree.xpath("//img")
    assert len(images) == 4
    assert all("Chest radiograph of study" in image.get("alt") for image in images)
    assert all(node.get("aria-label") for node in tree.xpath("//*[@role='img']"))
    assert tree.xpath("/html/@lang") == ["en"]
    assert all(table.xpath("./caption") for table in tree.xpath("//table"))
    assert all(cell.get("scope") for cell in tree.xpath("//th"))


def test_nothing_is_fetched_and_nothing_is_run(project) -> None:
    tree = html.fromstring(project.render())
    addresses = tree.xpath("//@src | //@href | //@srcset | //@action | //@poster")
    assert all(value.startswith(("#", "data:")) for value in addresses)
    assert not tree.xpath("//script | //iframe | //object | //embed | //form")
    styles = " ".join(tree.xpath("//style/text()"))
    assert "url(" not in styles
    assert "@import" not in styles


# Content


def test_numbers_of_every_system_stand_with_their_intervals(project) -> None:
    text = _text(project.render())
    assert "Mean AUC 0.910 [0.880, 0.940] 0.550 [0.520, 0.580]" in text
    assert "Difference in Mean AUC, trained − untrained: 0.360 [0.330, 0.390]" in text
    assert "Finding F1, micro 0.490 [0.460, 0.520] 0.090 [0.060, 0.120] 0.040" in text


def test_undefined_is_said_not_shown_as_zero(project) -> None:
    text = _text(project.render())
    assert "Hernia undefined undefined" in text
    assert "Hernia: no positive sample" in text


def test_counts_add_up(project) -> None:
    text = _text(project.render())
    assert "15 image files = 12 taken + 3 rejected" in text
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
    path = project.layout.result_dir("rrg") / "predictions.parquet"
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


def test_examples_are_chosen_by_key_not_by_result(project) -> None:
    shown = re.findall(r"Study <code>(\w+)</code>", project.render())
    path = project.layout.result_dir("rrg") / "predictions.parquet"
    rows = pq.read_table(path).to_pylist()
    for row in rows:
        row["hypothesis"] = "Cardiomegaly." if row["system"] == "trained" else row["hypothesis"]
    storage.write_table(
        path, pq.read_table(path).from_pylist(rows, RRG_PREDICTIONS), RRG_PREDICTIONS
    )
    assert re.findall(r"Study <code>(\w+)</code>", project.render()) == shown


def test_picture_is_the_content_without_padding(project) -> None:
    data = html.fromstring(project.render()).xpath("//img/@src")[0].split(",", 1)[1]
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.mode == "L"
    assert image.height == 256
    assert abs(image.width - 256 * 440 / 520) <= 1


def test_hostile_text_stays_text(project) -> None:
    attack = '<script>alert(1)</script><img src=x onerror="alert(2)">{{ 7 * 7 }}'
    layout = project.layout
    path = layout.result_dir("rrg") / "predictions.parquet"
    rows = [
        row | {"reference": attack, "hypothesis": attack} for row in pq.read_table(path).to_pylist()
    ]
    storage.write_table(
        path, pq.read_table(path).from_pylist(rows, RRG_PREDICTIONS), RRG_PREDICTIONS
    )
    rejects = [
        row | {"reason": attack, "remedy": attack}
        for row in pq.read_table(layout.rejects).to_pylist()
    ]
    storage.write_table(
        layout.rejects, pq.read_table(layout.rejects).from_pylist(rejects, REJECTS), REJECTS
    )
    storage.write_json(layout.model_dir("captioning") / "card.json", {attack: attack})
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


# What lacks


def test_not_computed_evaluations_say_why(project) -> None:
    for task in ("probe_chexpert", "probe_nih14", "rrg"):
        value = {"task": task, "status": "not computed", "reason": f"no data for {task}"}
        storage.write_json(project.metrics(task), value)
    text = _text(project.render())
    assert "No evaluation was computed" in text
    assert "Not computed: no data for probe_nih14" in text
    assert "report generation was not computed" in text


def test_missing_shard_costs_the_picture_only(project) -> None:
    next(project.layout.images_dir.iterdir()).unlink()
    text = _text(project.render())
    assert text.count("The image is not in data/images.") == 4
    assert "The heart is enlarged." in text


def test_history_without_validation_or_without_rows_is_said(project) -> None:
    path = project.layout.model_dir("captioning") / "history.csv"
    path.write_text("step,epoch,loss,lr,val_loss\n1,0,9.0,0.1,\n2,0,8.0,0.1,\n")
    assert "No validation loss was recorded" in _text(project.render())
    path.write_text("step,epoch,loss,lr,val_loss\n")
    assert "The history of training holds no loss." in _text(project.render())


def test_no_examples_asked_for(project) -> None:
    assert "None asked for" in _text(project.render(examples=0))


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("data/images.parquet", "ingest"),
        ("data/studies.parquet", "ingest"),
        ("data/rejects.parquet", "ingest"),
        ("data/token_rejects.parquet", "tokens"),
        ("results/probe_nih14/metrics.json", "evaluate@probe_nih14"),
        ("results/probe_nih14/predictions.parquet", "evaluate@probe_nih14"),
        ("results/rrg/predictions.parquet", "evaluate@rrg"),
        ("models/captioning/card.json", "export"),
        ("models/captioning/history.csv", "pretrain"),
    ],
)
def test_missing_file_names_the_stage_that_makes_it(project, name, stage) -> None:
    (project.layout.root / name).unlink()
    with pytest.raises(MissingArtifactError, match=re.escape(f"--stage {stage}`")):
        project.render()
    assert not project.layout.report_page.exists()


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
    themes = re.findall(r":root \{(.*?)\}", STYLE.read_text(), flags=re.DOTALL)
    assert len(themes) == 3
    for theme in themes:
        colours = dict(re.findall(r"--([\w-]+): (#\w{6})", theme))
        background = colours["page"]
        for name in ("text", "muted", "link", "trained", "right", "missed", "invented"):
            assert _contrast(colours[name], background) >= 4.5, name
            assert _contrast(colours[name], colours["panel"]) >= 4.5, name
        for name in ("untrained", "baseline", "warn-rule"):
            assert _contrast(colours[name], background) >= 3, name
        assert _contrast(colours["text"], colours["warn"]) >= 4.5
