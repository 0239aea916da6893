"""Addresses as settings take them: host:port, and what is none."""

import pytest
from pydantic import TypeAdapter, ValidationError

from services.runtime.addresses import ListenAddress, ServiceAddress, ServiceTarget
from services.runtime.host_port import split_host_port

TYPES = {"listen": ListenAddress, "service": ServiceAddress, "target": ServiceTarget}


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("127.0.0.1:50051", ("127.0.0.1", 50051)),
        ("localhost:1", ("localhost", 1)),
        (
            "expert_0.moesaic.svc.cluster.local.:65535",
            ("expert_0.moesaic.svc.cluster.local.", 65535),
        ),
        ("[::1]:50051", ("::1", 50051)),
        ("[fe80::1%eth0]:50051", ("fe80::1%eth0", 50051)),
    ],
)
def test_an_address_is_split_into_host_and_port(address: str, parts: tuple[str, int]) -> None:
    assert split_host_port(address) == parts


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://127.0.0.1:50051", "without http://"),
        ("grpc://name:1", "without grpc://"),
        ("unix:/run/moesaic.sock", "without unix:/"),
        ("dns://name:1", "without dns://"),
        ("", "the port is missing"),
        ("localhost", "the port is missing"),
        ("[::1]", "the port is missing"),
        ("127.0.0.1:", "'' is no port"),
        ("127.0.0.1:50051/", "'50051/' is no port"),
        ("127.0.0.1:50051/v1", "'50051/v1' is no port"),
        ("127.0.0.1:٣", "'٣' is no port"),
        ("127.0.0.1:-1", "'-1' is no port"),
        ("127.0.0.1:50051 ", "'50051 ' is no port"),
        ("127.0.0.1:65536", "a port from"),
        ("127.0.0.1:" + "9" * 5000, "a port from"),
        (":50051", "the host is missing"),
        ("::1:50051", "brackets such as [::1]:50051"),
        ("[::1:50051", "'[::1' is no host"),
        ("::1]:50051", "'::1]' is no host"),
        ("[name]:50051", "'[name]' is no host"),
        (" name:50051", "' name' is no host"),
        ("a:1,b:2", "'a:1,b' is no host"),
        ("user@name:50051", "'user@name' is no host"),
        ("a..b:50051", "'a..b' is no host"),
        ("a" * 64 + ":50051", "is no host"),
    ],
)
@pytest.mark.parametrize("kind", TYPES)
def test_what_is_no_address_is_refused_with_the_form(kind: str, address: str, said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(TYPES[kind]).validate_python(address)
    message = refused.value.errors()[0]["msg"]
    assert "it should be host:port" in message
    assert said in message


def test_port_0_is_for_listening_and_a_looked_up_name_for_targets() -> None:
    def accepting(address: str) -> set[str]:
        def accepts(kind: str) -> bool:
            try:
                TypeAdapter(TYPES[kind]).validate_python(address)
            except ValidationError:
                return False
            return True

        return {kind for kind in TYPES if accepts(kind)}

    assert accepting("127.0.0.1:1") == {"listen", "service", "target"}
    assert accepting("127.0.0.1:0") == {"listen"}
    assert accepting("dns:///expert:1") == {"target"}
