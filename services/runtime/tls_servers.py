"""A server's side of mutual TLS: whom it lets in, and what it shows of itself."""

import grpc

from services.runtime.tls_files import TlsFiles, TlsMaterial, TlsReader


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """For a port of gRPC's that serves those alone who have a certificate of the authority.

    Files that have changed are read at the next connection. Raises BadState where they cannot be
    used now.
    """
    reader = TlsReader(files)
    return grpc.dynamic_ssl_server_credentials(
        _configuration(reader.material()),
        lambda: _configuration(reader.material()),
        require_client_authentication=True,
    )


def _configuration(material: TlsMaterial) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(material.key, material.certificate)], material.authority
    )
