"""Which sites SuperLink lets connect, and who is there."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cryptography import x509
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, UnregisterNodeRequest
from flwr.supercore.control.control_http_client import ControlHttpClient

from fedsci.errors import InputError
from fedsci.names import SiteId, site_id
from fedsci.transport.superlink_client import inner_client, reach
from fedsci.transport.tls import identity_of


def register_sites(state: Path, certificates: Iterable[bytes], *, patience_s: float = 0.0) -> dict[SiteId, int]:
    """Let the sites of these certificates connect; return every registered site's node.

    A site that was registered with another key is registered anew. Call it when sites are enrolled and whenever
    SuperLink starts: it changes nothing that is right already.

    Args:
        state: the coordinator's folder.
        certificates: PEM; whoever calls this has checked that the consortium issued them.
        patience_s: how long to wait for a SuperLink that is being restarted.

    Raises:
        InputError: a certificate names no site.
        ConnectionFailed: SuperLink does not answer.
    """
    wanted = dict(_read_certificate(content) for content in certificates)
    with inner_client(ControlHttpClient, state) as client:

        def nodes() -> dict[SiteId, Any]:
            found = reach(lambda: client.ListNodes(ListNodesRequest()), patience_s=patience_s).nodes_info
            return {site_id(node.name): node for node in found if node.name and node.status != "unregistered"}

        known = nodes()
        for site, key in wanted.items():
            if site in known and known[site].public_key == key:
                continue
            if site in known:
                reach(lambda site=site: client.UnregisterNode(UnregisterNodeRequest(node_id=known[site].node_id)))  # type: ignore[misc]
            reach(lambda site=site, key=key: client.RegisterNode(RegisterNodeRequest(public_key=key, name=site)))  # type: ignore[misc]
        return {site: node.node_id for site, node in nodes().items()}


def unregister_site(state: Path, site: SiteId) -> None:
    """Let a site connect no more, whatever certificate it shows; nothing happens if it is not registered.

    Raises:
        ConnectionFailed: SuperLink does not answer.
    """
    with inner_client(ControlHttpClient, state) as client:
        for node in reach(lambda: client.ListNodes(ListNodesRequest())).nodes_info:
            if node.name == site and node.status != "unregistered":
                reach(lambda number=node.node_id: client.UnregisterNode(UnregisterNodeRequest(node_id=number)))  # type: ignore[misc]


def site_status(state: Path) -> dict[SiteId, str]:
    """Return for every registered site ``online``, ``offline`` or ``registered`` (never seen).

    Raises:
        ConnectionFailed: SuperLink does not answer.
    """
    with inner_client(ControlHttpClient, state) as client:
        found = reach(lambda: client.ListNodes(ListNodesRequest())).nodes_info
        return {site_id(node.name): node.status for node in found if node.name and node.status != "unregistered"}


def _read_certificate(content: bytes) -> tuple[SiteId, bytes]:
    try:
        return identity_of(x509.load_pem_x509_certificate(content))
    except ValueError:
        raise InputError("a site's certificate is not PEM") from None
