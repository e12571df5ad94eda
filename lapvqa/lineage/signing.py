"""Signatures: an in-toto Statement in a DSSE envelope, by ed25519, made and checked offline.

The key is made on first use in ledger/private/signing.key (mode 0600, never under git; `make clean`
leaves it), or is the file that ``signing_key_file`` of local.yaml names. The public half lies in
ledger/signing.pub, under git. A signature proves that the holder of a key said so: whose key it is,
the reader must know by another way.

in-toto.io/Statement/v1, github.com/secure-systems-lab/dsse.
"""

from __future__ import annotations

import binascii
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib import exceptions
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner, SSlibKey

from lapvqa import storage
from lapvqa.errors import EXIT_BAD_DATA, ConfigError, LapvqaError
from lapvqa.machine import load_machine
from lapvqa.project import Project

STATEMENT = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"

PROVENANCE = "https://slsa.dev/provenance/v1"
VERDICT, RECEIPT, BUNDLE = (
    "urn:lapvqa:gate-verdict:v1", "urn:lapvqa:erasure-receipt:v1", "urn:lapvqa:bundle:v1",
)  # fmt: skip
"""What a statement says of its subjects: how a model was made, a gate's verdict, ..."""


class SignatureError(LapvqaError):
    """What was signed was changed since, or another key signed it."""

    exit_code = EXIT_BAD_DATA


def statement(
    subjects: Mapping[str, str], predicate_type: str, predicate: Mapping[str, Any]
) -> dict[str, Any]:
    """Return an in-toto Statement about files: name -> sha256."""
    return {
        "_type": STATEMENT,
        "subject": [
            {"name": name, "digest": {"sha256": digest}}
            for name, digest in sorted(subjects.items())
        ],
        "predicateType": predicate_type,
        "predicate": dict(predicate),
    }


def sign(project: Project, statement: Mapping[str, Any]) -> bytes:
    """Return a statement in a signed envelope: JSON, the same bytes for the same statement."""
    signer = CryptoSigner(_private_key(project))
    payload = json.dumps(statement, sort_keys=True, ensure_ascii=False, allow_nan=False)
    envelope = Envelope(payload.encode(), PAYLOAD_TYPE, {})
    envelope.sign(signer)
    return _serialised(envelope)


def verify(envelope: bytes, public_key: bytes, *, what: str = "signature") -> dict[str, Any]:
    """Return the statement of an envelope; SignatureError names what is wrong with ``what``.

    ``public_key`` is PEM, as ``public_key`` returns it.
    """
    key = _public(public_key)
    read = _parsed(envelope, what)
    if read.payload_type != PAYLOAD_TYPE:
        raise _refused(what, f"payloadType: expected {PAYLOAD_TYPE}, found {read.payload_type!r}")
    others = [keyid for keyid in read.signatures if keyid != key.keyid]
    if others or not read.signatures:
        found = ", ".join(others) or "none"
        raise _refused(what, f"signatures[0].keyid: expected {key.keyid}, found {found}")
    try:
        read.verify([key], 1)
    except exceptions.VerificationError:
        raise _refused(
            what, "payload or signatures[0].sig: one of the two is not what the key signed"
        ) from None
    whole = _serialised(read)
    if envelope != whole:
        at = next(
            (at for at, pair in enumerate(zip(envelope, whole, strict=False)) if len({*pair}) > 1),
            min(len(envelope), len(whole)),
        )
        raise _refused(what, f"byte {at} is not as it was written, outside what is signed")
    content: dict[str, Any] = json.loads(read.payload)
    return content


def check_file(envelope: Path, public_key: bytes) -> dict[str, Any]:
    """Return the statement of an envelope; of a receipt the files beside it that it names match.

    Raises SignatureError that names the file at fault; one that is not there is none.
    """
    told = verify(envelope.read_bytes(), public_key, what=envelope.name)
    for name, digest in subjects(told).items() if told["predicateType"] == RECEIPT else ():
        file = envelope.with_name(name)
        if file.exists() and storage.sha256_file(file) != digest:
            raise SignatureError(
                f"{name}: expected the bytes that were signed, found others",
                hint="it was changed; restore it from git or a backup",
            )
    return told


def subjects(statement: Mapping[str, Any]) -> dict[str, str]:
    """Return the files that a statement is about: name -> sha256."""
    return {one["name"]: one["digest"]["sha256"] for one in statement["subject"]}


def public_key(project: Project) -> bytes:
    """Return the public half of the project's key as PEM; makes the key on first use."""
    return (
        _private_key(project)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def checking_key(project: Project) -> bytes:
    """Return the key that checks what this project signed, as PEM; makes none.

    A clone has its public half alone. Raises ConfigError if nothing was signed here yet.
    """
    if load_machine(project).signing_key_file is not None or project.signing_key.exists():
        return public_key(project)
    try:
        return project.signing_public_key.read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            "expected ledger/signing.pub, by which signatures of this project are checked, found "
            "none",
            hint="restore it from git, or check in the project that signed",
        ) from None


def key_id(public_key: bytes) -> str:
    """Return the id by which envelopes name a public key; people compare its first digits."""
    return str(_public(public_key).keyid)


def _private_key(project: Project) -> Ed25519PrivateKey:
    named = load_machine(project).signing_key_file
    if named is not None:
        return _read(project.root / Path(named).expanduser(), name="signing_key_file")
    if not project.signing_key.exists():
        _create(project)
    return _read(project.signing_key, name="the project's signing key")


def _create(project: Project) -> None:
    path = project.signing_key
    if project.signing_public_key.exists():
        raise ConfigError(
            "expected the signing key of this project, whose public half is ledger/signing.pub, "
            f"found none at {path.relative_to(project.root)}",
            hint="restore it from its backup, or name one by signing_key_file in local.yaml; to "
            "begin with a new key, delete ledger/signing.pub: what the old one signed is another's",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    private = Ed25519PrivateKey.generate()
    content = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    temporary = storage.temporary_path(path)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    try:
        os.link(temporary, path)  # fails where another process was first: its key is the key
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    storage.write_bytes(project.signing_public_key, public_key(project))


def _read(path: Path, *, name: str) -> Ed25519PrivateKey:
    hint = "restore it from its backup; `openssl genpkey -algorithm ed25519 -out FILE` makes one"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{name}: expected a readable file at {path}, found none ({error.strerror})", hint=hint
        ) from None
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(
            f"{name}: expected an ed25519 key without a password (PEM) in {path}, found another "
            "thing",
            hint=hint,
        )
    return key


def _public(public_key: bytes) -> SSlibKey:
    try:
        key = serialization.load_pem_public_key(public_key)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(
            "expected a public ed25519 key (PEM), found another thing",
            hint="ask the sender for ledger/signing.pub of the project that signed",
        )
    return SSlibKey.from_crypto(key)


def _parsed(envelope: bytes, what: str) -> Envelope:
    try:
        fields = json.loads(envelope)
    except ValueError as error:
        place = getattr(error, "pos", getattr(error, "start", 0))
        raise _refused(what, f"byte {place}: expected JSON, found something else") from None
    for name, kind in (("payload", str), ("payloadType", str), ("signatures", list)):
        if not isinstance(fields, dict) or not isinstance(fields.get(name), kind):
            raise _refused(what, f"{name}: expected a field of this name, found none")
    try:
        return Envelope.from_dict(fields)
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error, exceptions.Error):
        raise _refused(
            what, "payload or signatures: expected base64, a keyid and a sig, found other"
        ) from None


def _serialised(envelope: Envelope) -> bytes:
    return json.dumps(envelope.to_dict(), sort_keys=True).encode() + b"\n"


def _refused(what: str, why: str) -> SignatureError:
    return SignatureError(
        f"{what}: {why}",
        hint="do not trust what came with it; have it sent again, and its key by another way",
    )
