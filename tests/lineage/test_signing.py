"""A signature holds for what was signed, and whatever was changed since is named."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import multiprocessing
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lapvqa.errors import ConfigError
from lapvqa.lineage import file_digests, signing
from lapvqa.lineage.signing import VERDICT, SignatureError, sign, statement, verify
from lapvqa.project import Project


def said(**predicate: Any) -> dict[str, Any]:
    return statement({"models/x/encoder.safetensors": "ab" * 32}, VERDICT, predicate)


def test_what_was_signed_comes_back(tmp_path: Path) -> None:
    project = Project(tmp_path)
    envelope = sign(project, said(verdict="PROMOTE", text="größer"))
    assert envelope == sign(project, said(text="größer", verdict="PROMOTE"))
    read = verify(envelope, signing.public_key(project))
    assert read == said(verdict="PROMOTE", text="größer")
    assert signing.subjects(read) == {"models/x/encoder.safetensors": "ab" * 32}


def test_the_signature_is_dsse_as_another_implementation_reads_it(tmp_path: Path) -> None:
    project = Project(tmp_path)
    fields = json.loads(sign(project, said(verdict="PROMOTE")))
    payload, kind = base64.b64decode(fields["payload"]), fields["payloadType"].encode()
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    public = serialization.load_pem_public_key(project.signing_public_key.read_bytes())
    public.verify(base64.b64decode(fields["signatures"][0]["sig"]), signed)  # type: ignore[union-attr,call-arg]
    assert json.loads(payload)["_type"] == "https://in-toto.io/Statement/v1"


def test_the_private_key_is_readable_by_its_owner_alone_and_outlives_clean(tmp_path: Path) -> None:
    project = Project(tmp_path)
    first = signing.public_key(project)
    assert stat.S_IMODE(project.signing_key.stat().st_mode) == 0o600
    assert project.signing_public_key.read_bytes() == first == signing.public_key(project)
    assert not project.signing_key.is_relative_to(project.state)


def _key(root: Path) -> bytes:
    return signing.public_key(Project(root))


def test_processes_that_want_a_key_at_once_get_the_same_one(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert len(set(pool.map(_key, [tmp_path] * 8))) == 1
    assert [path.name for path in (tmp_path / "ledger" / "private").iterdir()] == ["signing.key"]


def test_every_flipped_bit_of_an_envelope_is_refused(tmp_path: Path) -> None:
    project = Project(tmp_path)
    envelope, key = sign(project, said(verdict="KEEP")), signing.public_key(project)
    for place in range(len(envelope)):
        changed = bytearray(envelope)
        changed[place] ^= 1 << place % 7
        with pytest.raises(SignatureError):
            verify(bytes(changed), key)


def edited(envelope: bytes, **fields: Any) -> bytes:
    return json.dumps(json.loads(envelope) | fields).encode()


def test_the_field_that_was_changed_is_named(tmp_path: Path) -> None:
    project = Project(tmp_path)
    envelope, key = sign(project, said(verdict="KEEP")), signing.public_key(project)
    payload = base64.b64encode(json.dumps(said(verdict="PROMOTE")).encode()).decode()
    stranger = Project(tmp_path / "stranger")
    for changed, name in (
        (edited(envelope, payload=payload), "payload or signatures"),
        (edited(envelope, payloadType="text/plain"), "payloadType"),
        (edited(envelope, signatures=[]), r"signatures\[0\].keyid: .* found none"),
        (sign(stranger, said(verdict="KEEP")), r"signatures\[0\].keyid: expected"),
        (envelope.replace(b": ", b":  ", 1), "byte 12 is not as it was written"),
        (b"no JSON", "byte 0: expected JSON"),
        (b"{}", "payload: expected a field"),
    ):
        with pytest.raises(SignatureError, match=name):
            verify(changed, key)


def test_a_key_of_ones_own_signs(tmp_path: Path) -> None:
    project = Project(tmp_path)
    own = Ed25519PrivateKey.generate()
    pem = own.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "mine.pem").write_bytes(pem)
    project.local.write_text("signing_key_file: mine.pem\n")
    public = own.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert verify(sign(project, said()), public) == said()
    assert not project.signing_key.exists()
    for content in (b"", pem[:40], public):
        (tmp_path / "mine.pem").write_bytes(content)
        with pytest.raises(ConfigError, match="signing_key_file"):
            sign(project, said())
    with pytest.raises(ConfigError, match="public ed25519 key"):
        verify(b"{}", pem)


@pytest.mark.parametrize("size", [1, 4096, 70_001, 3_000_000])
def test_a_changed_byte_is_found_within_its_block(size: int) -> None:
    content = bytes(number * 7 % 251 for number in range(size))
    described = file_digests.describe(io.BytesIO(content), size)
    assert described["sha256"] == hashlib.sha256(content).hexdigest()
    assert len(described["blocks"]) <= 256
    assert file_digests.fault(io.BytesIO(content), size, described) is None
    for place in {0, size // 2, size - 1}:
        changed = bytearray(content)
        changed[place] ^= 1
        found = file_digests.fault(io.BytesIO(changed), size, described)
        assert found is not None
        first, last = int(found.split()[1]), int(found.split()[3])
        assert first <= place <= last < size
        assert last - first < described["block"]
    longer = file_digests.fault(io.BytesIO(content + b"x"), size + 1, described)
    assert longer == f"expected {size} bytes, found {size + 1}"


def test_a_lost_key_is_not_replaced_unseen(tmp_path: Path) -> None:
    project = Project(tmp_path)
    sign(project, said())
    public = project.signing_public_key.read_bytes()
    project.signing_key.unlink()
    with pytest.raises(ConfigError, match="found none"):
        sign(project, said())
    assert project.signing_public_key.read_bytes() == public
