"""A private certificate authority, and TLS servers whose certificates it signs."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes


@dataclass
class Authority:
    """pem: its own certificate."""

    key: CertificateIssuerPrivateKeyTypes
    name: x509.Name
    pem: str

    @classmethod
    def make(cls, name: str) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        made = cls(key, x509.Name.from_rfc4514_string(f"CN={name}"), "")
        made.pem = made._certificate(made.name, key.public_key(), x509.BasicConstraints(True, 0), True)
        return made

    @classmethod
    def load(cls, key: Path, certificate: Path) -> Authority:
        loaded = serialization.load_pem_private_key(key.read_bytes(), None)
        pem = certificate.read_text()
        return cls(loaded, x509.load_pem_x509_certificate(pem.encode()).subject, pem)  # type: ignore[arg-type]

    def server(self, folder: Path, address: str = "127.0.0.1") -> ssl.SSLContext:
        """For a server at an IP address; its key and certificate are written into the folder."""
        key = ec.generate_private_key(ec.SECP256R1())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
        subject = x509.Name.from_rfc4514_string("CN=portal")
        chain = folder / "server.pem"
        chain.write_text(private.decode() + self._certificate(subject, key.public_key(), names, False))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        return context

    def _certificate(
        self, name: x509.Name, key: ec.EllipticCurvePublicKey, extension: x509.ExtensionType, critical: bool
    ) -> str:
        moment = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(moment - timedelta(hours=1))
            .not_valid_after(moment + timedelta(hours=1))
            .add_extension(extension, critical=critical)
            .sign(self.key, hashes.SHA256())
        )
        return made.public_bytes(serialization.Encoding.PEM).decode()
