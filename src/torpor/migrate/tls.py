"""TLS on the connection of a page server, with the files and the defaults of CRIU's ``--tls`` options.

Both ends show a certificate that the authority has signed, and the server's is for the address that is connected to.
"""

from __future__ import annotations

import os
import socket
import ssl

from torpor.base.errors import TorporError, UsageError
from torpor.base.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from torpor.migrate.connection import Tls

_CA, _CRL = "/etc/pki/CA/cacert.pem", "/etc/pki/CA/private/cacrl.pem"
_CERTIFICATE, _KEY = "/etc/pki/criu/cert.pem", "/etc/pki/criu/private/key.pem"


def wrap(link: socket.socket, files: Tls, address: str, *, is_server: bool) -> ssl.SSLSocket:
    """The connected socket with TLS on it; TorporError where the other end is not who it should be."""
    context = _context(files, is_server=is_server)
    name = None if is_server or not files.check_name else address or "localhost"
    try:
        return context.wrap_socket(link, server_side=is_server, server_hostname=name)
    except ssl.SSLCertVerificationError as error:
        hint = "--tls-no-cn-verify takes any name" if "match" in error.verify_message else None
        raise TorporError(f"the other end's certificate is refused: {error.verify_message}", hint=hint) from error
    except OSError as error:
        raise TorporError(f"the other end does not speak TLS, or refuses our certificate: {error}") from error


def _context(files: Tls, *, is_server: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = not is_server and files.check_name
    context.verify_mode = ssl.CERT_REQUIRED
    if is_server:
        # CRIU takes a ticket for an answer that is late.
        context.num_tickets = 0
    certificate, key = files.certificate or _CERTIFICATE, files.key or _KEY
    try:
        context.load_cert_chain(certificate, key)
        if files.ca or os.path.exists(_CA):
            context.load_verify_locations(files.ca or _CA)
        else:
            context.load_default_certs(ssl.Purpose.CLIENT_AUTH if is_server else ssl.Purpose.SERVER_AUTH)
        if files.crl or os.path.exists(_CRL):
            context.load_verify_locations(files.crl or _CRL)
            context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"TLS: {certificate}, {key} or the authority's certificates cannot be used: {error}",
            hint="--tls-cert, --tls-key and --tls-cacert name them",
        ) from error
    return context
