"""A DICOMweb server (PS3.18): its studies by date and modality, and their instances as they lie.

Instances are asked for in whatever transfer syntax they are kept (``transfer-syntax=*``): by
default a server decompresses, or fails where it cannot. dicomweb-client is not used: it hands out
data sets that are parsed, and what is kept here are bytes. An error never quotes an address: the
paths of requests are UIDs.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from lapvqa import extras
from lapvqa.dicom.reasons import Reason
from lapvqa.errors import ConfigError, DicomError, SourceError
from lapvqa.machine import Pacs

_JSON = "application/dicom+json"
_AS_KEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"
_MODALITY, _INSTANCES_OF_STUDY, _INSTANCES_OF_SERIES = "00080060", "00201208", "00201209"
_PAGE = 200
_TRIES = 4
_PASSING = (429, 500, 502, 503, 504)
_NOT_ALLOWED = (401, 403, 407)
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*")
BESIDE = ("SR", "KO", "PR", "DOC")
"""Modalities of what goes with images."""


@dataclass(frozen=True)
class Study:
    """A study that a server has."""

    uid: str
    num_instances: int
    """0 if the server does not say."""


@dataclass(frozen=True)
class Instance:
    """One object of a study."""

    study: str
    series: str
    uid: str


class Server:
    """The server that local.yaml names. Raises SourceError or ConfigError where it does not do."""

    def __init__(self, name: str, settings: Pacs, root: Path) -> None:
        self.name, self.settings = name, settings
        package = extras.optional("requests", needed_for="`lapvqa pull`")
        self._errors: type[Exception] = package.RequestException
        self._session = package.Session()
        retries = package.adapters.Retry(
            total=_TRIES, backoff_factor=0.5, status_forcelist=_PASSING, raise_on_status=False
        )
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, package.adapters.HTTPAdapter(max_retries=retries))
        if settings.token_file is not None:
            self._session.auth = _bearer(_read_token(root / Path(settings.token_file).expanduser()))
        self._last = 0.0

    def studies(self, day: date) -> list[Study]:
        """Return the studies of a day with one of the wanted modalities, each once."""
        found: dict[str, Study] = {}
        for modality in self.settings.modalities:
            query = {"StudyDate": f"{day:%Y%m%d}", "ModalitiesInStudy": modality}
            for one in self._pages("studies", query, _STUDY, [_INSTANCES_OF_STUDY]):
                uid = _uid(one, _STUDY)
                found[uid] = Study(uid, _number(one, _INSTANCES_OF_STUDY))
        return list(found.values())

    def instances(self, study: Study) -> list[Instance]:
        """Return the study's images of the wanted modalities, and what goes with them."""
        wanted = {*self.settings.modalities, *BESIDE}
        found = []
        path = f"studies/{study.uid}/series"
        for series in self._pages(path, {}, _SERIES, [_MODALITY]):
            if _value(series, _MODALITY) in wanted:
                uid = _uid(series, _SERIES)
                members = self._pages(f"{path}/{uid}/instances", {}, _INSTANCE, [])
                found += [Instance(study.uid, uid, _uid(one, _INSTANCE)) for one in members]
        return found

    def fetch(self, instance: Instance) -> bytes:
        """Return an instance's file as the server keeps it; raises DicomError if it does not."""
        path = f"studies/{instance.study}/series/{instance.series}/instances/{instance.uid}"
        with self._answer(path, {}, _AS_KEPT) as answer:
            if answer.status_code != 200:
                raise DicomError(
                    Reason.UNREADABLE, f"expected the instance, got HTTP {answer.status_code}"
                )
            return _only_part(answer.headers.get("Content-Type", ""), answer.content)

    def _pages(
        self, path: str, query: Mapping[str, str], key: str, fields: list[str]
    ) -> Iterator[dict[str, Any]]:
        """Yield a query's results, each once: some servers know no pages and send all again."""
        seen: set[str] = set()
        while True:
            page = {**query, "limit": str(_PAGE), "offset": str(len(seen))}
            if fields:
                page["includefield"] = ",".join(fields)
            with self._answer(path, page, _JSON) as answer:
                if answer.status_code == 204:
                    return
                self._require_ok(answer.status_code)
                results = _parsed(answer)
            new = [one for one in results if _uid(one, key) not in seen]
            seen.update(_uid(one, key) for one in new)
            yield from new
            if not new or len(results) < _PAGE:
                return

    @contextmanager
    def _answer(self, path: str, query: Mapping[str, str], accept: str) -> Iterator[Any]:
        """Ask, not faster than is allowed; raises SourceError if there is no answer."""
        time.sleep(max(0.0, self._last + 1 / self.settings.per_second - time.monotonic()))
        self._last = time.monotonic()
        url = f"{self.settings.url.rstrip('/')}/{path}"
        try:
            answer = self._session.get(
                url, params=query, headers={"Accept": accept}, timeout=self.settings.timeout_seconds
            )
        except self._errors as error:
            raise SourceError(
                f"{self.name}: no answer from the server ({type(error).__name__})",
                hint="is intake.pull.NAME.url in local.yaml right, and the server up? The next "
                "`lapvqa pull` goes on where this one ended",
            ) from None
        with answer:
            yield answer

    def _require_ok(self, status: int) -> None:
        if status in _NOT_ALLOWED:
            raise ConfigError(
                f"{self.name}: the server does not let us in (HTTP {status})",
                hint="name and password stand in ~/.netrc, or a token in "
                "intake.pull.NAME.token_file of local.yaml",
            )
        if status != 200:
            raise SourceError(
                f"{self.name}: expected an answer to a query, got HTTP {status}",
                hint="does intake.pull.NAME.url in local.yaml end where /studies begins?",
            )


def _bearer(token: str) -> Any:
    def authorise(request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    return authorise


def _read_token(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(
            f"token_file: expected a readable file, found none ({error.strerror})",
            hint="correct intake.pull.NAME.token_file in local.yaml",
        ) from None


def _parsed(answer: Any) -> list[dict[str, Any]]:
    try:
        results = answer.json()
    except ValueError:
        results = None
    if not isinstance(results, list):
        raise SourceError(
            "expected DICOM JSON from the server, found something else",
            hint="does intake.pull.NAME.url in local.yaml end where /studies begins?",
        )
    return [one for one in results if isinstance(one, dict)]


def _value(result: Mapping[str, Any], tag: str) -> str:
    values = (result.get(tag) or {}).get("Value") or [""]
    return str(values[0])


def _uid(result: Mapping[str, Any], tag: str) -> str:
    """Return a UID, which becomes a part of an address: SourceError if it is anything else."""
    uid = _value(result, tag)
    if not _UID.fullmatch(uid):
        raise SourceError(
            "expected UIDs from the server, found something else",
            hint="nothing of it was asked for; ask the server's owner what stands in (0020,000D)",
        )
    return uid


def _number(result: Mapping[str, Any], tag: str) -> int:
    text = _value(result, tag)
    return int(text) if text.isascii() and text.isdecimal() else 0


def _only_part(kind: str, body: bytes) -> bytes:
    """Return the one part of a multipart answer (RFC 2046), or the body if it has no parts."""
    boundary = re.search(r'boundary="?([^";,]+)"?', kind)
    if boundary is None:
        return body
    mark = b"--" + boundary[1].strip().encode()
    begin = body.find(mark)
    head = body.find(b"\r\n\r\n", begin)
    end = body.find(b"\r\n" + mark, head)
    if begin < 0 or head < 0 or end < 0:
        raise DicomError(Reason.TRUNCATED, "expected a whole answer, found a cut one")
    return body[head + 4 : end]
