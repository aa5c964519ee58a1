"""A real site in a process of its own: ``site_process.py SITE_FILE STATE TLS ADDRESS CONSORTIUM_KEY [HOLD]``.

With HOLD (``action:slot``) it stops for good before it answers that request, once: the test kills it there.
"""

import signal
import sys
import time
from pathlib import Path

from fedsci.config.site import load_site
from fedsci.site.keystore import Keystore
from fedsci.site.service import SiteService
from fedsci.transport.flower_site import SiteConnection
from fedsci.transport.messages import Reply, Request
from fedsci.transport.tls import SiteTls

site_file, state, tls, address, consortium, *hold = sys.argv[1:]
Keystore.split_key = lambda self: b""  # as in conftest.py: records are split by the seed alone
service = SiteService(load_site(Path(site_file)), Path(state))
service.keystore.pin_consortium(bytes.fromhex(consortium))
held = Path(state) / "held"


def handle(request: Request) -> Reply:
    if hold and [f"{request.action}:{request.fields.get('slot')}"] == hold and not held.exists():
        held.touch()
        time.sleep(120)
    return service.handle(request)


connection = SiteConnection(
    handle,
    address=address,
    tls=SiteTls.in_folder(Path(tls)),
    state=Path(state),
    idle_wait_s=1.0,
    notice=lambda text: print(text, flush=True),
)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: connection.stop())
connection.serve()
