"""The consortium's members behind the enrolment server: what ``fedsci coordinator start`` runs beside studies."""

from collections.abc import Callable

from fedsci.coordinator.enrolment import Enrolment
from fedsci.identity.tls import ServerTls
from fedsci.transport.enrolment_server import EnrolmentApp, EnrolmentServer


def serve_enrolment(
    enrolment: Enrolment,
    *,
    host: str = "0.0.0.0",  # noqa: S104
    port: int | None = None,
    note: Callable[[str, str], None] = lambda code, message: None,
) -> EnrolmentServer:
    """Return a server, not started yet, that lets sites enrol and renew.

    Args:
        enrolment: the members.
        host: the interface to listen on.
        port: as founded if left out; 0 for any free one.
        note: told of every refusal (code, message), for the coordinator's own eyes.
    """
    certificate, key = enrolment.authority.server_pair
    app = EnrolmentApp(
        root=enrolment.authority.root_path.read_bytes(), enrol=enrolment.enrol, renew=enrolment.renew, note=note
    )
    chosen = enrolment.address.port if port is None else port
    return EnrolmentServer(app, ServerTls.of(certificate=certificate, key=key), host=host, port=chosen)
