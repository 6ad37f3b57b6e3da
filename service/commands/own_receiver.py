"""Where `send` and `simulate` post events to: the configuration's own receiver."""

from service.config import Config
from service.errors import ConfigurationError
from service.events import Endpoint


def endpoint_of(config: Config, name: str | None) -> Endpoint:
    """The endpoint of this name, else the first one. Raises `ConfigurationError` where there is none of that name."""
    endpoints = {endpoint.name: endpoint for endpoint in config.webhook_endpoints()}
    if name is None:
        return next(iter(endpoints.values()))
    if name not in endpoints:
        raise ConfigurationError(f"there is no endpoint {name!r}; there are {', '.join(sorted(endpoints))}")
    return endpoints[name]


def url_of(config: Config, endpoint: Endpoint) -> str:
    """Its URL at the configured receiver, as this machine reaches it."""
    host = "127.0.0.1" if config.receiver.host in {"0.0.0.0", "::"} else config.receiver.host  # noqa: S104 -- compared
    return f"http://{host}:{config.receiver.port}{endpoint.path}"
