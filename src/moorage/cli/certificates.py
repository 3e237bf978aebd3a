"""Which certificates SDKs accept without being told."""

import ssl
from pathlib import Path

from botocore.httpsession import where
from cryptography import x509
from cryptography.exceptions import InvalidSignature


def is_public(chain: Path) -> bool:
    """Whether a PEM file's chain ends at an authority that boto3 trusts.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    last = x509.load_pem_x509_certificates(chain.read_bytes())[-1]
    store = ssl.create_default_context(cafile=where())
    issuer = last.issuer.public_bytes()
    # Only those of the right name are taken apart: some of the others are older than today's rules.
    named = [
        x509.load_der_x509_certificate(der) for der in store.get_ca_certs(binary_form=True) if issuer in der
    ]
    return any(last == each or _issued(last, each) for each in named)


def is_root(chain: Path) -> bool:
    """Whether a PEM file's chain ends at a certificate that no other one has issued."""
    last = x509.load_pem_x509_certificates(chain.read_bytes())[-1]
    return _issued(last, last)


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    if certificate.issuer != issuer.subject:
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
