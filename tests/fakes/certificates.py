"""A certificate authority for tests: real certificates, made in milliseconds, valid for an hour."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
NAMES = ("localhost", "127.0.0.1")


class Authority:
    """Signs certificates into `folder`; its own is `folder/ca.crt`."""

    def __init__(self, folder: Path, name: str = "Test CA") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self.certificate = folder / "ca.crt"
        made = _builder(self._name, self._name, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.certificate.write_bytes(_pem(made.sign(self._key, hashes.SHA256())))

    def issue(
        self,
        common_name: str,
        *,
        names: Sequence[str] = NAMES,
        key: PrivateKey | None = None,
        signed_by_itself_with: hashes.HashAlgorithm | None = None,
    ) -> tuple[Path, Path]:
        """Certificate and key files. By itself: self-signed with that hash (None with an Ed25519 key)."""
        own = key or ec.generate_private_key(ec.SECP256R1())
        subject = _name(common_name)
        itself = signed_by_itself_with is not None or isinstance(own, ed25519.Ed25519PrivateKey)
        builder = _builder(subject, subject if itself else self._name, own)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_alternative(n) for n in names]), False)
        made = builder.sign(own, signed_by_itself_with) if itself else builder.sign(self._key, hashes.SHA256())
        certificate, private = self.folder / f"{common_name}.crt", self.folder / f"{common_name}.key"
        certificate.write_bytes(_pem(made))
        private.write_bytes(
            own.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        private.chmod(0o600)
        return certificate, private


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(subject: x509.Name, issuer: x509.Name, key: PrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - datetime.timedelta(minutes=5),
        not_valid_after=now + datetime.timedelta(hours=1),
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
