"""Who may speak on the control channel: every node that has the flock's key, and nobody else.

From the key each node derives the same certificate authority (HKDF-SHA256, RFC 5869, to an Ed25519 seed) and issues
itself a certificate for its name. Nothing has to be distributed but the key. What it proves: "I have the key, I call
myself N". A holder of the key may call itself anything; names protect against mix-ups, the key against strangers.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import NameOID

from sync.files import replace_file

KEY_BYTES = 32
# Fixed and wide: certificates live as long as the key, and a wrong clock must not cut a flock apart.
_FROM = datetime(2020, 1, 1, tzinfo=UTC)
_UNTIL = datetime(2120, 1, 1, tzinfo=UTC)


def _authority(key: bytes, flock: str) -> tuple[Ed25519PrivateKey, x509.Certificate]:
    """The same bytes on every node: fixed serial and times, and Ed25519 signs deterministically."""
    info = b"pgmurmur control authority 1\0" + flock.encode()
    secret = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(key)
    private = Ed25519PrivateKey.from_private_bytes(secret)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"pgmurmur flock {flock}"[:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
        .sign(private, None)
    )
    return private, certificate


def _usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _certificate(private: Ed25519PrivateKey, node: str, key: bytes, flock: str) -> x509.Certificate:
    signer, authority = _authority(key, flock)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pgmurmur node")]))
        .issuer_name(authority.subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign=False), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(_uri(node))]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, None)
    )


def _uri(node: str) -> str:
    # Hex, because a node's name may have characters that a URI may not.
    return f"pgmurmur:{node.encode().hex()}"


class Identity:
    """TLS 1.3 contexts of one node. The first key issues, all of them are trusted, so that keys can be rotated.

    The private key is made anew at each start and lies in the state directory with mode 0600, because Python's ssl
    reads keys from files only.
    """

    def __init__(self, node: str, keys: Sequence[bytes], flock: str, folder: Path) -> None:
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise ValueError(f"a flock key has {KEY_BYTES} bytes")
        private = Ed25519PrivateKey.generate()
        certificate = _certificate(private, node, keys[0], flock)
        pem = serialization.Encoding.PEM
        secret = private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / "control.pem"
        replace_file(path, secret + certificate.public_bytes(pem), mode=0o600)
        authorities = "".join(_authority(key, flock)[1].public_bytes(pem).decode() for key in keys)
        self.server = self._context(ssl.PROTOCOL_TLS_SERVER, path, authorities)
        self.client = self._context(ssl.PROTOCOL_TLS_CLIENT, path, authorities)

    @staticmethod
    def _context(protocol: int, path: Path, authorities: str) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # names are node names, compared below, not host names
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(path)
        context.load_verify_locations(cadata=authorities)
        return context


def proven_name(peer: object) -> str | None:
    """The node name of a verified certificate as `ssl` reports it; None when it names no node."""
    if not isinstance(peer, dict):
        return None
    for kind, value in peer.get("subjectAltName", ()):
        if kind == "URI" and value.startswith("pgmurmur:"):
            try:
                return bytes.fromhex(value.removeprefix("pgmurmur:")).decode()
            except ValueError:
                return None
    return None
