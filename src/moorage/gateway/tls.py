"""TLS: the certificate that clients see, and another one when its files change."""

import logging
import ssl
from pathlib import Path

logger = logging.getLogger(__name__)


class Certificate:
    """A certificate chain and its key, in PEM files. `context` serves what they held when they were last whole."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises `OSError` or `ssl.SSLError` when the files are not there or do not fit each other."""
        self._certificate = certificate
        self._key = key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self._version = self._read_version()
        self.context.load_cert_chain(certificate, key)

    def reload_if_changed(self) -> None:
        """For new connections; those that are open keep what they have. Files that are not whole are tried again
        when they change again."""
        try:
            version = self._read_version()
            if version == self._version:
                return
            self._version = version
            # Read apart first: a pair that does not fit must not reach the context that serves.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._certificate, self._key)
            self.context.load_cert_chain(self._certificate, self._key)
        except (OSError, ssl.SSLError) as error:
            logger.error(
                "the TLS certificate stays as it was: %s cannot be used: %s", self._certificate, error
            )
        else:
            logger.info("the TLS certificate was read again from %s", self._certificate)

    def _read_version(self) -> tuple[tuple[int, int], ...]:
        stats = [path.stat() for path in (self._certificate, self._key)]
        return tuple((stat.st_mtime_ns, stat.st_ino) for stat in stats)
