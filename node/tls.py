"""TLS contexts from the configuration's files.

TLS 1.2 at least, no compression, no renegotiation, no session tickets (PostgreSQL has none either), ALPN `postgresql`.
A context is built whole and swapped: RELOAD builds new ones, connections that exist keep theirs. Every unreadable or
mismatched file is a `TlsFault` that names the setting and the file.
"""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from node.wire.startup import ALPN_PROTOCOL


class TlsFault(ValueError):
    """A certificate, key or CA file that cannot be used."""


class TlsVerify(StrEnum):
    """`tls_verify`: what we want to know about a server."""

    DISABLED = "disabled"  # no TLS
    PREFER = "prefer"  # TLS if the server has it, any certificate
    VERIFY_CA = "verify_ca"  # TLS, certificate signed by a CA we trust
    VERIFY_FULL = "verify_full"  # and issued for the host we asked for


@dataclass(frozen=True, slots=True)
class ServerTls:
    """What clients get: `tls_certificate`, `tls_private_key`, `tls_client_ca_certificate`."""

    context: ssl.SSLContext
    binding: bytes | None  # hash of our certificate for SCRAM-SHA-256-PLUS; None when it cannot be bound
    asks_certificates: bool  # a client CA is configured


@dataclass(frozen=True, slots=True)
class ClientTls:
    """How we talk to servers: `tls_verify`, `tls_server_ca_certificate`, `tls_server_certificate` and its key."""

    context: ssl.SSLContext
    required: bool


def server_tls(certificate: Path, private_key: Path, client_ca: Path | None = None) -> ServerTls:
    """Raises TlsFault. With a client CA a client may show a certificate; whether it must is its account's matter."""
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    # Tickets would cost a write per login and resume nothing: clients of databases do not ask for it.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    _load_pair(context, certificate, private_key, "tls_certificate", "tls_private_key")
    if client_ca is not None:
        _load_ca(context, client_ca, "tls_client_ca_certificate")
        context.verify_mode = ssl.CERT_OPTIONAL
    leaf = ssl.PEM_cert_to_DER_cert(_first_certificate(certificate))
    return ServerTls(context, end_point_hash(leaf), client_ca is not None)


def client_tls(
    verify: TlsVerify,
    *,
    ca: Path | None = None,
    certificate: Path | None = None,
    private_key: Path | None = None,
) -> ClientTls | None:
    """None when TLS is disabled. Without a CA file the system's are trusted. Raises TlsFault."""
    if verify is TlsVerify.DISABLED:
        return None
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = verify is TlsVerify.VERIFY_FULL
    if verify is TlsVerify.PREFER:
        context.verify_mode = ssl.CERT_NONE
    elif ca is not None:
        _load_ca(context, ca, "tls_server_ca_certificate")
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if certificate is not None:
        _load_pair(context, certificate, private_key, "tls_server_certificate", "tls_server_private_key")
    elif private_key is not None:
        raise TlsFault("tls_server_private_key needs tls_server_certificate")
    return ClientTls(context, required=verify is not TlsVerify.PREFER)


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols([ALPN_PROTOCOL])
    return context


def _load_pair(
    context: ssl.SSLContext, certificate: Path, private_key: Path | None, certificate_name: str, key_name: str
) -> None:
    _readable(certificate, certificate_name)
    if private_key is not None:
        _readable(private_key, key_name)

    def no_passphrase() -> str:  # without it OpenSSL would ask on the terminal and the node would hang
        raise TlsFault(f"{key_name}: {private_key or certificate} is protected by a passphrase")

    try:
        context.load_cert_chain(certificate, private_key, password=no_passphrase)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsFault(f"{key_name}: {private_key} does not belong to {certificate_name} {certificate}") from None
        pair = certificate if private_key is None else f"{certificate} and {private_key}"
        reason = error.reason or "not in PEM format"
        raise TlsFault(f"{certificate_name}: could not load {pair}: {reason.lower().replace('_', ' ')}") from None


def _load_ca(context: ssl.SSLContext, ca: Path, name: str) -> None:
    _readable(ca, name)
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        reason = (error.reason or "not in PEM format").lower().replace("_", " ")
        raise TlsFault(f"{name}: could not load {ca}: {reason}") from None


def _readable(path: Path, name: str) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise TlsFault(f"{name}: could not read {path}: {error.strerror}") from None


def _first_certificate(path: Path) -> str:
    """A chain file starts with the leaf."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    text = path.read_text(encoding="latin-1")
    return begin + text.partition(begin)[2].partition(end)[0] + end


def end_point_hash(certificate: bytes) -> bytes | None:
    """tls-server-end-point of a DER certificate (RFC 5929 §4.1): its hash by its signature's hash function.

    MD5 and SHA-1 are replaced by SHA-256. None when the signature names no hash (Ed25519): such a certificate cannot be
    bound, by PostgreSQL neither.
    """
    try:
        algorithm = x509.load_der_x509_certificate(certificate).signature_hash_algorithm
    except (UnsupportedAlgorithm, ValueError):
        return None
    if algorithm is None:
        return None
    name = "sha256" if algorithm.name in ("md5", "sha1") else algorithm.name
    return hashlib.new(name, certificate).digest()


def peer_identities(certificate: bytes) -> frozenset[str]:
    """Whom a verified client certificate (DER) speaks for: common names, DNS, mail and URI alternative names.

    What OpenSSL accepted but nobody can read speaks for nobody.
    """
    try:
        parsed = x509.load_der_x509_certificate(certificate)
        found = {str(name.value) for name in parsed.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)}
    except ValueError:
        return frozenset()
    try:
        alternatives = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return frozenset(found)
    for kind in (x509.DNSName, x509.RFC822Name, x509.UniformResourceIdentifier):
        found.update(alternatives.get_values_for_type(kind))
    return frozenset(found)
