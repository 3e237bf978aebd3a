"""TLS: the certificate that clients see, and another one when its files change."""

import logging
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

SOON = timedelta(days=14)
"""How long before its end a certificate is said to end."""

_SAY_EVERY = timedelta(days=1)
logger = logging.getLogger(__name__)


class Certificate:
    """A certificate chain and its key, in PEM files. `context` serves what they held when they were last whole."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises `OSError` or `ssl.SSLError` when the files are not there or do not fit each other."""
        self._certificate = certificate
        self._key = key
        self._version = self._read_version()
        self.context = self._read()
        self._period = self._read_period()
        self._say_at = datetime.min.replace(tzinfo=UTC)

    def reload_if_changed(self) -> None:
        """For new connections; those that are open keep what they have. Files that are not whole are tried again
        when they change again."""
        try:
            version = self._read_version()
            if version == self._version:
                return
            self._version = version
            context = self._read()
            self._period = self._read_period()
        except OSError as error:  # ssl.SSLError is one
            logger.error(
                "the TLS certificate stays as it was: %s cannot be used: %s", self._certificate, error
            )
        else:
            self.context = context
            self._say_at = datetime.min.replace(tzinfo=UTC)
            logger.info("the TLS certificate was read again from %s", self._certificate)

    def complain(self, now: datetime) -> None:
        """Say in the log, once a day, if clients refuse this certificate now or will soon."""
        if now < self._say_at:
            return
        self._say_at = now + _SAY_EVERY
        if sentence := complaint(*self._period, now):
            logger.warning("the TLS certificate %s %s", self._certificate, sentence)

    def _read(self) -> ssl.SSLContext:
        """A context of its own for each certificate: one context keeps a certificate for each kind of key, and would
        go on to show one that has been replaced by a certificate of another kind."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        # Without a password OpenSSL would ask the terminal for that of a key that has one.
        context.load_cert_chain(self._certificate, self._key, password=lambda: "")
        return context

    def _read_period(self) -> tuple[datetime, datetime]:
        """When the whole chain is valid."""
        try:
            chain = x509.load_pem_x509_certificates(self._certificate.read_bytes())
        except ValueError as error:  # OpenSSL takes it, so it may be good
            logger.warning("when the TLS certificate %s ends cannot be read: %s", self._certificate, error)
            return datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
        return (
            max(each.not_valid_before_utc for each in chain),
            min(each.not_valid_after_utc for each in chain),
        )

    def _read_version(self) -> tuple[tuple[int, int], ...]:
        stats = [path.stat() for path in (self._certificate, self._key)]
        return tuple((stat.st_mtime_ns, stat.st_ino) for stat in stats)


def complaint(begins: datetime, ends: datetime, now: datetime) -> str:
    """What is wrong with a certificate that is valid from `begins` to `ends`; empty if nothing is."""
    if now < begins:
        return f"is not valid before {begins:%Y-%m-%d %H:%M} UTC: clients refuse it until then"
    if now >= ends:
        return f"has expired on {ends:%Y-%m-%d %H:%M} UTC: clients refuse it. Put another one in its place"
    if ends - now <= SOON:
        return (
            f"expires on {ends:%Y-%m-%d %H:%M} UTC, in {(ends - now) / timedelta(days=1):.1f} days. Put another one "
            "in its place"
        )
    return ""
