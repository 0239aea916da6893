"""Strangers are kept out unless somebody says otherwise: by TLS, or by the loopback address."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from services.cli.settings import ServeSettings
from services.expert.settings import ExpertSettings
from services.gateway.settings import GatewaySettings
from services.router.settings import RouterSettings
from services.runtime.process import ProcessSettings
from services.runtime.tls_settings import ServingSettings
from services.tracing.settings import TracingSettings

SERVICES = [GatewaySettings, RouterSettings, ExpertSettings, TracingSettings]
TLS: dict[str, Any] = {f"tls_{name}": Path(name) for name in ("certificate", "key", "authority")}


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize(
    "listen", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "gateway:1", "[::ffff:1.2.3.4]:1"]
)
def test_without_tls_a_service_is_on_the_loopback_address_alone(
    service: type[ServingSettings], listen: str
) -> None:
    with pytest.raises(ValidationError, match="reached from elsewhere"):
        service(listen=listen)
    assert service(listen=listen, insecure=True).tls is None
    assert service(listen=listen, **TLS).tls is not None


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "127.8.9.1:1", "[::1]:1", "localhost:1"])
def test_this_machine_alone_is_served_without_a_word(listen: str) -> None:
    assert GatewaySettings(listen=listen).listen == listen


@pytest.mark.parametrize(
    ("settings", "elsewhere"),
    [
        (TracingSettings, {"http": "0.0.0.0:1"}),
        (TracingSettings, {"http": "0.0.0.0:1", **TLS}),  # the page has no TLS
        (ServeSettings, {"listen": "0.0.0.0:1"}),
        (ServeSettings, {"tracing": True, "tracing_http": "0.0.0.0:1"}),
    ],
)
def test_pages_and_clusters_of_a_command_are_no_exception(
    settings: type[Any], elsewhere: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError, match="reached from elsewhere"):
        settings(**elsewhere)
    settings(**elsewhere, insecure=True)


def test_a_page_that_is_not_served_is_nobodys_matter() -> None:
    assert not ServeSettings(tracing_http="0.0.0.0:1").tracing


def test_metrics_are_served_on_the_loopback_address_unless_it_is_said() -> None:
    assert ProcessSettings(metrics_port=9464).metrics_at == ("127.0.0.1", 9464)
    with pytest.raises(ValidationError, match="MOESAIC_METRICS_INSECURE=true"):
        ProcessSettings(metrics_port=9464, metrics_listen="0.0.0.0")
    opened = ProcessSettings(metrics_port=9464, metrics_listen="::", metrics_insecure=True)
    assert opened.metrics_at == ("::", 9464)


@pytest.mark.parametrize("missing", TLS)
def test_the_files_of_tls_go_together(missing: str) -> None:
    with pytest.raises(ValidationError, match="go together"):
        RouterSettings(**{name: TLS[name] for name in TLS if name != missing})
