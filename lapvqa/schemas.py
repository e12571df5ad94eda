"""Schemas of the tables that stages hand to each other; each column says what it means.

Checked on write and on read (``storage.write_table``, ``storage.read_table``).
"""

from __future__ import annotations

import pyarrow as pa

CHEXPERT_LABELS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "No Finding",
    "Pleural Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
)
"""The 14 CheXpert labels in MIMIC-CXR-JPG's (alphabetical) order."""

FRONTAL_VIEWS = ("AP", "PA", "FRONTAL")
"""Values of column ``view`` that are frontal; FRONTAL is AP or PA, it is not known which."""

STORED_SIZE = 384
CONTENT_SIZE = 378
"""Content is fitted into 27 patches of 14 and padded to 384: what a stride-14 embedding drops."""


def _field(name: str, kind: pa.DataType, doc: str, *, null: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=null, metadata={"doc": doc})


INVENTORY = pa.schema(
    [
        _field(
            "path",
            pa.string(),
            "path relative to the folder, / as separator; what is no UTF-8 as \\xNN; a hidden "
            "folder ends in / and stands for all in it",
        ),
        _field("size", pa.int64(), "bytes"),
        _field(
            "mtime_ns",
            pa.int64(),
            "modification time, ns since the epoch; 0 if it could not be asked (a broken link) or "
            "is hidden, -1 of a pipe, socket or device",
        ),
    ]
)

IMAGES = pa.schema(
    [
        _field("image_key", pa.string(), "keyed hash of the SOP instance UID"),
        _field("study_key", pa.string(), "keyed hash of the study"),
        _field("patient_key", pa.string(), "keyed hash of the patient"),
        _field("split", pa.string(), "train | validate | test"),
        _field("view", pa.string(), "AP, PA, FRONTAL, LATERAL...; empty if unknown"),
        _field("view_source", pa.string(), "by which rule: lapvqa.dicom.views", null=True),
        _field("shard", pa.string(), "file name in data/images/"),
        _field("row", pa.int32(), "row in that shard"),
        _field("native_rows", pa.int32(), "height of the original, pixels"),
        _field("native_cols", pa.int32(), "width of the original, pixels"),
        _field("scale", pa.float64(), "stored pixel = native pixel * scale + offset"),
        _field("offset_x", pa.float64(), "stored pixels"),
        _field("offset_y", pa.float64(), "stored pixels"),
        _field("photometric", pa.string(), "Photometric Interpretation (0028,0004)"),
        _field("bits_stored", pa.int16(), "Bits Stored (0028,0101)"),
        _field("transfer_syntax", pa.string(), "UID (0002,0010), or image/png, image/jpeg"),
        _field(
            "voi", pa.string(), "lut | window | percentile | rendered: how intensity was chosen"
        ),
        _field("note", pa.string(), "what reading it passed over or guessed", null=True),
        _field("file_sha256", pa.string(), "sha256 of the file as read"),
        _field("pixels_sha256", pa.string(), "sha256 of the stored 384 x 384 bytes"),
        _field(
            "decoded_sha256",
            pa.string(),
            "sha256 of size and decoded values, before any grey transformation: the same film "
            "has it in whatever lossless form",
        ),
    ]
)

DEMOGRAPHICS = pa.schema(
    [
        _field("study_key", pa.string(), "keyed hash of the study: those of studies.parquet"),
        _field("patient_key", pa.string(), "keyed hash of the patient"),
        _field("split", pa.string(), "train | validate | test"),
        _field("sex", pa.string(), "M | F | O; null: not stated, or not the same", null=True),
        _field("age_band", pa.string(), "0-9, 10-19 ... 80-89, 90+ at the study", null=True),
    ]
)

STUDIES = pa.schema(
    [
        _field("study_key", pa.string(), "keyed hash of the study"),
        _field("patient_key", pa.string(), "keyed hash of the patient"),
        _field("split", pa.string(), "train | validate | test; one per patient"),
        _field("study_order", pa.int32(), "0 for the patient's first study in time"),
        _field("days_since_first", pa.int32(), "since the patient's first study", null=True),
        _field("study_date", pa.string(), "yyyymmdd as ingest.deid.dates says", null=True),
        _field("num_images", pa.int32(), "images taken"),
        _field("report", pa.string(), "the report's text as read", null=True),
        _field("report_sha256", pa.string(), "sha256 of the report's bytes", null=True),
        _field(
            "identity_flags", pa.list_(pa.string()), "kinds of identifying text found in the report"
        ),
    ]
)

LABELS = pa.schema(
    [
        _field("study_key", pa.string(), "keyed hash of the study"),
        *(
            _field(name, pa.int8(), "1 positive, 0 negative, -1 uncertain, null no word", null=True)
            for name in CHEXPERT_LABELS
        ),
    ]
)

REJECTS = pa.schema(
    [
        _field("kind", pa.string(), "file | report | study"),
        _field("file", pa.string(), "path in the archive (file, report) or study key (study)"),
        _field("stage", pa.string(), "stage that turned it away"),
        _field("reason", pa.string(), "reason code: lapvqa.dicom.reasons, lapvqa.text.sections"),
        _field("detail", pa.string(), "what was expected and found; no identity"),
        _field("exception", pa.string(), "type of what was raised, if anything", null=True),
        _field("remedy", pa.string(), "what to do"),
        _field("sha256", pa.string(), "of the file's bytes, where they could be read", null=True),
    ]
)

COMPANIONS = pa.schema(
    [
        _field("path", pa.string(), "path in the archive; a member of a zip as x.zip/member"),
        _field("kind", pa.string(), "companion (a DICOM object that is no image) | other"),
        _field("what", pa.string(), "dicomdir, structured report...; report, table, viewer..."),
    ]
)

SPAN = pa.struct([("name", pa.string()), ("start", pa.int32()), ("end", pa.int32())])

TOKENS = pa.schema(
    [
        _field("study_key", pa.string(), "keyed hash of the study"),
        _field("patient_key", pa.string(), "keyed hash of the patient"),
        _field("split", pa.string(), "train | validate | test"),
        _field("report_sha256", pa.string(), "sha256 of the report's bytes, as in studies.parquet"),
        _field("verdict", pa.string(), "what the text is made of: lapvqa.text.sections.Verdict"),
        _field("sided", pa.bool_(), "names a side of the body: its image must not be flipped"),
        _field("token_ids", pa.list_(pa.uint16()), "GPT-2 ids, 50256 at begin and end"),
        _field("truncated", pa.bool_(), "text was longer than tokens.max_length"),
        _field("spans", pa.list_(SPAN), "sections used: character offsets in the report"),
    ]
)

MEMBERS = pa.schema(
    [
        _field("study_key", pa.string(), "keyed hash of the study"),
        _field("patient_key", pa.string(), "keyed hash of the patient"),
        _field("role", pa.string(), "train: sampled; validate: chose the best step"),
        _field("times", pa.int64(), "samples drawn until the last step, over all its images"),
        _field("times_best", pa.int64(), "samples drawn until the best step"),
        _field(
            "first_step",
            pa.int64(),
            "step, from 1, that sampled it first (1 too if the "
            "weights gone on from had seen it); 0 if none",
        ),
    ]
)
MEMBERS_FILE = "members.parquet"
"""Beside a model: whom its training has sampled."""

REPORT_LANGUAGES = pa.schema(
    [
        _field("study_key", pa.string(), "keyed hash of the study"),
        _field("language", pa.string(), "code of a file of params/reports, or unknown"),
        _field("num_characters", pa.int32(), "of the target text; 0 where there is none"),
        _field("num_tokens", pa.int32(), "of the target text, without begin and end, uncut"),
        _field("num_kept", pa.int32(), "of them within tokens.max_length"),
    ]
)

EXCLUDED = pa.schema(
    [
        _field("image_key", pa.string(), "keyed hash of the image that training loses"),
        _field("study_key", pa.string(), "keyed hash of its study"),
        _field("patient_key", pa.string(), "keyed hash of its patient"),
        _field("split", pa.string(), "train | validate"),
        _field("reason", pa.string(), "film | edited copy | study | report | patient"),
        _field("data_set", pa.string(), "archive, or an input folder: whose test image it meets"),
        _field("test_image", pa.string(), "that image: name in tested/<data_set>.parquet"),
        _field("score", pa.float64(), "of two films or two reports, 0 to 1", null=True),
    ]
)

TESTED = pa.schema(
    [
        _field("name", pa.string(), "image key, or the image's key within the data set"),
        _field("study_key", pa.string(), "keyed hash of the study, if the archive's", null=True),
        _field("held_from", pa.string(), "train | train, validate: splits that must not know it"),
        _field("found", pa.string(), "reason for which training knew it; null: none", null=True),
        _field("score", pa.float64(), "of two films or two reports, 0 to 1", null=True),
        _field("left", pa.bool_(), "training still knows it: firewall.on_leak is stamp"),
    ]
)

PROBE_PREDICTIONS = pa.schema(
    [
        _field("sample", pa.string(), "image or study within the dataset, without identity"),
        _field("patient", pa.string(), "patient within the dataset (hashed); the cluster"),
        _field("system", pa.string(), "trained | untrained, or an encoder's name"),
        _field("label", pa.string(), "the dataset's label name"),
        _field("target", pa.int8(), "1 | 0 | null if not known", null=True),
        _field("score", pa.float64(), "probability of the label"),
    ]
)

RETRIEVAL_PREDICTIONS = pa.schema(
    [
        _field("sample", pa.string(), "study key"),
        _field("patient", pa.string(), "patient key; the cluster"),
        _field("system", pa.string(), "trained | untrained, or an encoder's name"),
        _field("report_rank", pa.float64(), "place of the film's own report, from 1; ties in half"),
        _field("film_rank", pa.float64(), "place of the report's best film, from 1; ties in half"),
        _field("reports", pa.int32(), "different reports to choose from"),
        _field("films", pa.int32(), "films to choose from"),
    ]
)

RRG_PREDICTIONS = pa.schema(
    [
        _field("sample", pa.string(), "study key"),
        _field("patient", pa.string(), "patient key; the cluster"),
        _field("system", pa.string(), "a decoder's, a head's, or most_common"),
        _field("reference", pa.string(), "normalised target text"),
        _field("hypothesis", pa.string(), "generated text"),
        _field(
            "truth", pa.list_(pa.string()), "findings known from the archive's labels", null=True
        ),
    ]
)

_BOX = pa.list_(pa.float64(), 4)

ANSWER_PREDICTIONS = pa.schema(
    [
        _field("sample", pa.string(), "key of the question about its image or pair"),
        _field("patient", pa.string(), "patient key; the cluster"),
        _field("system", pa.string(), "trained | untrained, or an encoder's name"),
        _field("image", pa.string(), "key of the image asked about"),
        _field("reference_image", pa.string(), "key of the image before it", null=True),
        _field(
            "reversed",
            pa.bool_(),
            "the reference is later; null if not known, or if the question is of one image",
            null=True,
        ),
        _field("type", pa.string(), "the dataset's type of question"),
        _field("question", pa.string(), "small letters, white space collapsed"),
        _field("reference", pa.string(), "the true answer"),
        _field("hypothesis", pa.string(), "the answer given"),
    ]
)

DETECTION_PREDICTIONS = pa.schema(
    [
        _field("sample", pa.string(), "key of the image; images without boxes have rows too"),
        _field("patient", pa.string(), "patient, or the image where the dataset names none"),
        _field("system", pa.string(), "trained | untrained, or an encoder's name"),
        _field("true_labels", pa.list_(pa.string()), "class of each true box"),
        _field("true_boxes", pa.list_(_BOX), "xyxy, pixels of the stored 384 x 384 image"),
        _field("found_labels", pa.list_(pa.string()), "class of each found box, best first"),
        _field("found_boxes", pa.list_(_BOX), "xyxy, pixels of the stored image"),
        _field("found_scores", pa.list_(pa.float64()), "probability of the class"),
    ]
)

GROUNDING_PREDICTIONS = pa.schema(
    [
        _field("sample", pa.string(), "key of the phrase about its image"),
        _field("patient", pa.string(), "patient key; the cluster"),
        _field("system", pa.string(), "trained | untrained, or an encoder's name"),
        _field("image", pa.string(), "key of the image"),
        _field("category", pa.string(), "the dataset's category of the phrase"),
        _field("phrase", pa.string(), "the phrase"),
        _field("true_boxes", pa.list_(_BOX), "xyxy, pixels of the stored 384 x 384 image"),
        # Of any length by type: Parquet does not read back a null among lists of a fixed one.
        _field(
            "found_box",
            pa.list_(pa.float64()),
            "xyxy, pixels of the stored image; null: none",
            null=True,
        ),
    ]
)
