"""C-STORE under TLS, from dcmtk; and those who have no certificate, or say nothing."""

from __future__ import annotations

import socket
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from intake_parts import (
    CALLED,
    CALLING,
    Desk,
    dcmtk,
    film,
    needs_dcmtk,
    pixels_of,
    receiving,
    send_bytes,
    until,
)

from lapvqa.errors import ConfigError


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hospital's authority, which has signed a server and a sender; and a stranger of its own."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = _certificate(folder, "authority", None)
    for name in ("server", "sender"):
        _certificate(folder, name, authority)
    _certificate(folder, "stranger", None)
    return folder


def _certificate(
    folder: Path, name: str, signer: tuple[x509.Name, rsa.RSAPrivateKey] | None
) -> tuple[x509.Name, rsa.RSAPrivateKey]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, by = signer or (subject, key)
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
        .public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
        .sign(by, hashes.SHA256())
    )  # fmt: skip
    (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    kind = serialization.PrivateFormat.TraditionalOpenSSL
    (folder / f"{name}.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, kind, plain))
    return subject, key


def settings(files: Path, *, authorities: bool) -> dict[str, str]:
    named = {"certificate": "server.pem", "key": "server.key"}
    named |= {"authorities": "authority.pem"} if authorities else {}
    return {name: str(files / file) for name, file in named.items()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A film to send."""
    path = tmp_path / "film.dcm"
    path.write_bytes(film(1))
    return path


def believing(files: Path, whom: str) -> list[str]:
    """Return how dcmtk sends without a certificate of its own."""
    return ["+tla", "+cf", str(files / f"{whom}.pem")]


def shown_by(files: Path, whom: str) -> list[str]:
    """Return how dcmtk sends as ``whom``, and believes the authority."""
    own = [str(files / f"{whom}.{kind}") for kind in ("key", "pem")]
    return ["+tls", *own, "+cf", str(files / "authority.pem")]


def store(port: int, path: Path, *how: str) -> int:
    """Send by dcmtk; return its exit code."""
    who = ["-aet", CALLING, "-aec", CALLED, "127.0.0.1", str(port), str(path)]
    command = [str(dcmtk("storescu")), "-to", "10", *how, *who]
    return subprocess.run(command, check=False, timeout=30, capture_output=True).returncode


@needs_dcmtk
def test_a_sender_shows_its_certificate_and_whoever_cannot_is_not_heard(
    desk: Desk, files: Path, path: Path
) -> None:
    tls = settings(files, authorities=True)
    with receiving(desk, tls=tls, timeout_seconds=3) as (server, port):
        for how in (shown_by(files, "stranger"), believing(files, "authority"), []):
            assert store(port, path, *how) != 0
        until(lambda: server.counts == {"received": 0, "refused": 3})  # after the sender is told
        assert store(port, path, *shown_by(files, "sender")) == 0
        desk.filing.settle()
    assert pixels_of(desk.filed) == pixels_of([path])
    assert server.counts == {"received": 1, "refused": 3}
    refused = [line for line in desk.said if "at 127.0.0.1: no TLS, or no certificate" in line]
    assert len(refused) == 3
    assert not any("stranger" in line for line in refused)


@needs_dcmtk
def test_without_authorities_whoever_is_named_sends_and_nobody_in_the_clear(
    desk: Desk, files: Path, path: Path
) -> None:
    tls = settings(files, authorities=False)
    with receiving(desk, tls=tls, timeout_seconds=2) as (server, port):
        assert store(port, path, *believing(files, "authority")) == 0
        assert store(port, path, *believing(files, "stranger")) != 0
        assert send_bytes([film(2)], port) is None
    assert server.counts["received"] == 1


@needs_dcmtk
def test_who_connects_and_says_nothing_keeps_nobody_out(
    desk: Desk, files: Path, path: Path
) -> None:
    with (
        receiving(desk, tls=settings(files, authorities=False), timeout_seconds=2) as (_, port),
        socket.create_connection(("127.0.0.1", port)),
    ):
        assert store(port, path, *believing(files, "authority")) == 0


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"key": "sender.key"}, "KEY_VALUES_MISMATCH"),
        ({"key": "nowhere.key"}, "No such file"),
        ({"certificate": "server.key"}, "NO_START_LINE|PEM"),
        ({"authorities": "server.key"}, "NO_CERTIFICATE|NO_START_LINE|PEM"),
    ],
)
def test_files_that_do_not_fit_are_told_before_anything_listens(
    desk: Desk, files: Path, changes: dict[str, str], why: str
) -> None:
    given = settings(files, authorities=True) | {k: str(files / v) for k, v in changes.items()}
    with pytest.raises(ConfigError, match=why) as told, receiving(desk, tls=given):
        pass
    assert "intake.receive.tls" in told.value.hint
