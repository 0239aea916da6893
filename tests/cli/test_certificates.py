"""`moesaic certificates`: a set to develop with."""

import stat
from pathlib import Path

import pytest
from cryptography import x509

from services.cli.certificates.command import certificates
from services.runtime.roles import Role


def names_of(file: Path) -> set[str]:
    certificate = x509.load_pem_x509_certificate(file.read_bytes())
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return {str(name.value) for name in extension.value}


def test_each_role_has_a_folder_that_only_its_owner_reads_the_key_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert certificates([str(tmp_path / "tls"), "--host", "gateway.example.org"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(Role)
    for role in Role:
        folder = tmp_path / "tls" / role
        assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600
        assert role.uri in names_of(folder / "certificate.pem")
    assert "gateway.example.org" in names_of(tmp_path / "tls/gateway/certificate.pem")
    assert names_of(tmp_path / "tls/client/certificate.pem") == {Role.CLIENT.uri}


def test_made_again_they_are_of_the_same_authority(tmp_path: Path) -> None:
    authority, certificate = tmp_path / "router/authority.pem", tmp_path / "router/certificate.pem"
    assert certificates([str(tmp_path)]) == 0
    before = authority.read_bytes(), certificate.read_bytes()
    assert certificates([str(tmp_path), "--role", "router", "--name", "router-1"]) == 0
    assert authority.read_bytes() == before[0]
    assert certificate.read_bytes() != before[1]
    subject = x509.load_pem_x509_certificate(certificate.read_bytes()).subject
    assert subject.rfc4514_string() == "CN=router-1"


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--host", "a b"], "is no host"),
        (["--role", "king"], "it should be 'gateway'"),
        (["--name", ""], "should match"),
    ],
)
def test_what_no_certificate_can_say_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], complaint: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        certificates([str(tmp_path), *flags])
    assert complaint in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_authority_that_is_none_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "authority").mkdir()
    (tmp_path / "authority/key.pem").write_text("none")
    (tmp_path / "authority/certificate.pem").write_text("none")
    assert certificates([str(tmp_path)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
