"""Real sites, each in a process of its own: ``site_process.py SITE...``.

A SITE is JSON: site_file, state, tls, address, consortium and hold. Several are forked from one process that has
loaded everything: importing torch is most of a test's time. With hold (``action:slot``) a site stops for good before
it answers that request, once: the test kills it there.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch._dynamo  # loaded by the first optimiser otherwise, in every process

from fedsci.config.site import load_site
from fedsci.site.keystore import Keystore
from fedsci.site.service import SiteService
from fedsci.transport.flower_site import SiteConnection
from fedsci.transport.messages import Reply, Request
from fedsci.transport.tls import SiteTls

assert torch._dynamo


def serve(site_file: str, state: str, tls: str, address: str, consortium: str, hold: str) -> None:
    Keystore.split_key = lambda self: b""  # as in conftest.py: records are split by the seed alone
    service = SiteService(load_site(Path(site_file)), Path(state))
    service.keystore.pin_consortium(bytes.fromhex(consortium))
    held = Path(state) / "held"

    def handle(request: Request) -> Reply:
        if hold == f"{request.action}:{request.fields.get('slot')}" and not held.exists():
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


first, *others = [json.loads(text) for text in sys.argv[1:]]
children = []
for site in others:
    child = os.fork()
    if child == 0:
        serve(**site)
        os._exit(0)
    children.append(child)
serve(**first)
for child in children:
    os.kill(child, signal.SIGTERM)
sys.exit(max([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children], default=0))
