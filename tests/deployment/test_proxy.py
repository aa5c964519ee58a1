"""A proxy between sites and coordinator: docs/deploy/nginx.conf lets studies through, one that opens TLS does not.

The coordinator listens on 127.0.0.1, the proxy on 127.0.0.2, and that is the address that sites know.
"""

import base64
import importlib.util
import json
import re
import select
import socket
import socketserver
import sys
import threading
from pathlib import Path

import pytest

from fedsci.transport.express import MAX_WAIT_S
from fedsci.transport.flower_site import HEARTBEAT_S

pytestmark = pytest.mark.slow
DOCUMENTED = Path(__file__).parents[2] / "docs" / "deploy" / "nginx.conf"
if "fedsci_test_nginx" not in sys.modules:
    spec = importlib.util.spec_from_file_location("fedsci_test_nginx", Path(__file__).with_name("nginx.py"))
    sys.modules["fedsci_test_nginx"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["fedsci_test_nginx"])
nginx = sys.modules["fedsci_test_nginx"]


def documented(consortium, folder):
    """The very file from the docs; only ports and paths are this test's own."""
    text = DOCUMENTED.read_text()
    for port, ours in zip((9443, 9444), consortium.ports, strict=True):
        text, listens = re.subn(rf"listen {port};", f"listen 127.0.0.2:{ours};", text)
        text, passes = re.subn(rf"coordinator\.internal:{port};", f"127.0.0.1:{ours};", text)
        assert (listens, passes) == (1, 1)
    for path in ("/run/nginx.pid", "/var/log/nginx/error.log", "/var/log/nginx/fedsci.log"):
        assert text.count(path) == 1
        text = text.replace(path, str(folder / Path(path).name))
    return text


def found(consortium):
    """Found a consortium whose sites know the proxy's address only, and start its coordinator."""
    enrolment, fleet = consortium.ports
    consortium.good("coordinator", "init", "--address", f"127.0.0.2:{enrolment}", "--fleet-port", str(fleet))
    consortium.start_coordinator()
    consortium.until(lambda: "started" in consortium.events("coordinator"))


def status(consortium, lab):
    return consortium.json("site", "status", f"{lab}.yaml")


def test_a_proxy_that_waits_longer_than_sites_and_coordinator_do_cuts_no_wait():
    minutes = re.search(r"proxy_timeout (\d+)m;", DOCUMENTED.read_text())
    assert int(minutes[1]) * 60 > 4 * max(MAX_WAIT_S, HEARTBEAT_S)


def test_labs_join_and_train_through_the_documented_nginx(deploy):
    consortium = deploy()
    for values in consortium.study.sites.values():
        values["policy"]["mechanisms"].append("none")
    consortium.study.write()
    found(consortium)
    folder = consortium.folder / "nginx"
    lab = consortium.study.labs[0]
    consortium.good("site", "init", f"{lab}.yaml")
    token = consortium.good("coordinator", "enrol", lab, "--quiet").out.strip()
    nobody = consortium.fedsci("site", "join", f"{lab}.yaml", token)
    assert nobody.code == 7  # there is no other way than through the proxy
    with nginx.running(folder, documented(consortium, folder)) as process:
        consortium.good("site", "join", f"{lab}.yaml", token)
        for other in consortium.study.labs[1:]:
            consortium.good("site", "init", f"{other}.yaml")
            consortium.join(other)
        for each in consortium.study.labs:
            consortium.start_site(each)
        small = consortium.submit("--wait", "--json")
        assert small.code == 0, small.err + consortium.said()

        consortium.study.values |= {"strategy": "fedavg", "model": {"name": "mlp", "hidden": [3160, 3160]}}
        consortium.study.values["training"] = {"rounds": 1, "learning_rate": 0.01}
        consortium.study.values["privacy"] = {"mechanism": "none"}
        consortium.study.write()
        large = consortium.submit("--wait", "--json")
        assert large.code == 0, large.err + consortium.said()
        summary = json.loads(large.out)
        assert (summary["secure_aggregation"]["enabled"], summary["secure_aggregation"]["dropped"]) == (True, [])
        assert summary["traffic_bytes"]["up"] > 3 * 2 * 10_000_000
        for each in consortium.study.labs:
            events = consortium.events(each)
            assert not {"connected", "disconnected"} & set(events[events.index("connected") + 1 :])
    assert process.returncode == 0
    consortium.until(lambda: not status(consortium, lab)["connected"])
    enrolments = [line.split() for line in (folder / "fedsci.log").read_text().splitlines()]
    assert {status for _, _, port, status, *_ in enrolments if port == str(consortium.ports[0])} == {"200"}

    with nginx.running(folder, documented(consortium, folder)):
        consortium.until(lambda: all(status(consortium, each)["connected"] for each in consortium.study.labs))


TERMINATES = """
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    proxy_http_version 1.1;
    proxy_ssl_protocols TLSv1.3;
    ssl_protocols TLSv1.3;
    ssl_certificate {certificate}.crt;
    ssl_certificate_key {certificate}.key;
    proxy_set_header X-Forwarded-For 10.0.0.1;
    server {{ listen 127.0.0.2:{enrolment} ssl; location / {{ proxy_pass https://127.0.0.1:{enrolment}; }} }}
    server {{
        listen 127.0.0.2:{fleet} ssl;
        ssl_client_certificate {ca};
        ssl_verify_depth 2;
        ssl_verify_client on;
        {shown}
        proxy_set_header X-SSL-Client-Cert $ssl_client_escaped_cert;
        proxy_set_header X-Client-Verify $ssl_client_verify;
        location / {{ proxy_pass https://127.0.0.1:{fleet}; }}
    }}
}}
"""


def terminating(consortium, folder, *, certificate, shown=""):
    enrolment, fleet = consortium.ports
    ca = consortium.folder / "consortium" / "ca.crt"
    return TERMINATES.format(
        folder=folder, certificate=certificate, enrolment=enrolment, fleet=fleet, shown=shown, ca=ca
    )


def test_a_proxy_that_opens_tls_is_refused_whatever_headers_it_sends(deploy):
    consortium = deploy()
    folder = consortium.folder / "nginx"
    folder.mkdir()
    found(consortium)
    direct, own = consortium.folder / "consortium" / "server", consortium.folder / "another" / "server"
    consortium.good("coordinator", "init", "--address", "127.0.0.2", "--dir", "another")
    consortium.good("site", "init", "lab-1.yaml")
    token = consortium.good("coordinator", "enrol", "lab-1", "--quiet").out.strip()
    with nginx.running(folder, terminating(consortium, folder, certificate=own)):
        refused = consortium.fedsci("site", "join", "lab-1.yaml", token)
    assert refused.code == 7
    assert "could not be authenticated" in refused.error_line
    assert "nothing secret was sent" in refused.hint_line

    # a proxy that has the coordinator's own certificate can let labs enrol, for that shows no client certificate
    with nginx.running(folder, terminating(consortium, folder, certificate=direct)):
        consortium.good("site", "join", "lab-1.yaml", token)
        consortium.good("site", "init", "lab-2.yaml")
        consortium.join("lab-2")
        consortium.start_site("lab-1")
        consortium.until(lambda: "disconnected" in consortium.events("lab-1"))
        assert "refused for now (502)" in status(consortium, "lab-1")["last_error"]
    member = consortium.folder / "state" / "lab-2" / "tls" / "site"
    shown = f"proxy_ssl_certificate {member}.crt; proxy_ssl_certificate_key {member}.key;"
    with nginx.running(folder, terminating(consortium, folder, certificate=direct, shown=shown)):
        consortium.until(lambda: "no longer, accepted" in status(consortium, "lab-1")["last_error"])
    assert consortium.json("coordinator", "status")["sites"] == {"lab-1": "registered", "lab-2": "registered"}
    assert "connected" not in consortium.events("lab-1")


class Tunnel(socketserver.ThreadingTCPServer):
    """An HTTP proxy that knows CONNECT and nothing else, and a password."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), TunnelEnd)
        self.asked = []


class TunnelEnd(socketserver.StreamRequestHandler):
    def handle(self):
        method, place, _ = self.rfile.readline().decode().split()
        headers = dict(line.decode().strip().split(": ", 1) for line in iter(self.rfile.readline, b"\r\n"))
        expected = "Basic " + base64.b64encode(b"lab:pass word").decode()
        if (method, headers.get("Proxy-Authorization")) != ("CONNECT", expected):
            self.wfile.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            return
        self.server.asked.append(place)
        host, port = place.split(":")
        with socket.create_connection((host, int(port))) as far:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            ends = {self.connection: far, far: self.connection}
            while True:
                for end in select.select(list(ends), [], [])[0]:
                    if not (content := end.recv(65536)):
                        return
                    ends[end].sendall(content)


def test_a_tunnel_that_the_environment_names_is_used_for_enrolment_and_studies(deploy, monkeypatch):
    consortium = deploy()
    enrolment, fleet = consortium.ports
    consortium.good("coordinator", "init", "--address", f"127.0.0.1:{enrolment}", "--fleet-port", str(fleet))
    consortium.start_coordinator()
    consortium.until(lambda: "started" in consortium.events("coordinator"))
    consortium.good("site", "init", "lab-1.yaml")
    token = consortium.good("coordinator", "enrol", "lab-1", "--quiet").out.strip()
    for name in ("no_proxy", "NO_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Tunnel() as tunnel:
        threading.Thread(target=tunnel.serve_forever, daemon=True).start()
        where = f"127.0.0.1:{tunnel.server_address[1]}"
        for wrong in (f"http://lab:guess@{where}", f"http://{where}", f"socks5://{where}"):
            monkeypatch.setenv("HTTPS_PROXY", wrong)
            assert consortium.fedsci("site", "join", "lab-1.yaml", token).code == 7
        monkeypatch.setenv("HTTPS_PROXY", f"http://lab:pass%20word@{where}")
        consortium.good("site", "join", "lab-1.yaml", token)
        assert tunnel.asked == [f"127.0.0.1:{enrolment}"] * 2
        consortium.start_site("lab-1")
        consortium.until(lambda: status(consortium, "lab-1")["connected"])
        assert f"127.0.0.1:{fleet}" in tunnel.asked
        tunnel.shutdown()
    consortium.stop("lab-1")
