"""A server's side of TLS: whom it lets connect, and what it shows of itself."""

import grpc

from services.runtime.tls_files import TlsFiles, TlsMaterial, TlsReader


def server_credentials(files: TlsFiles, *, needs_certificate: bool) -> grpc.ServerCredentials:
    """For a port of gRPC's. Where it `needs_certificate`, those alone are served who have one of
    the authority.

    Files that have changed are read at the next connection. Raises BadState where they cannot be
    used now.
    """
    reader = TlsReader(files)
    return grpc.dynamic_ssl_server_credentials(
        _configuration(reader.material()),
        lambda: _configuration(reader.material()),
        require_client_authentication=needs_certificate,
    )


def _configuration(material: TlsMaterial) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(material.key, material.certificate)], material.authority
    )
