"""Real processes over mutual TLS: the same study gives the same model, bit for bit, as in one process."""

import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedsci.errors import ConnectionFailed, SiteFailed
from fedsci.transport.flower_coordinator import connect_grid
from fedsci.transport.link import SiteLink
from fedsci.transport.messages import Request
from fedsci.transport.superlink_process import is_up
from fedsci.transport.superlink_sites import register_sites, site_status


@pytest.mark.slow
def test_a_masked_study_over_superlink_is_the_one_in_process_bit_for_bit(shared_deployment, study, tmp_path):
    deployment, tiny = shared_deployment, study(labs=3)
    nodes = deployment.enrol("lab-1", "lab-2", "lab-3")
    deployment.start_sites(tiny.files, tiny.consortium.public)
    deployed = tiny.run_deployed(deployment)
    assert deployed.dropped == []
    assert deployed.rounds_completed == 2
    local = tiny.run_in_process(tmp_path / "local")
    assert deployed.model.tobytes() == local.model.tobytes()
    assert deployed.federated.pooled() == local.federated.pooled()
    assert site_status(deployment.state)["lab-1"] == "online"
    assert register_sites(deployment.state, []) == nodes | register_sites(deployment.state, [])

    # the same connections serve the next study, also after another one began; a model of several chunks comes back
    with connect_grid(deployment.state) as grid, connect_grid(deployment.state) as later:
        assert later.run.run_id != grid.run.run_id
        link = SiteLink(grid=grid, timeout_s=60, registered=grid.nodes)
        link.discover(tiny.plan.sites)
        large = np.random.default_rng(1).random(3_000_000, dtype=np.float32)
        replies = link.ask({site: Request(action="train", vector=large) for site in tiny.plan.sites})
    assert all(isinstance(reply, SiteFailed) and reply.site_code == "input" for reply in replies.values()), replies

    process = deployment.sites.pop("lab-1")
    process.terminate()
    assert process.wait(20) == 0
    assert {site_status(deployment.state)[site] for site in tiny.plan.sites} == {"offline"}


def test_what_lies_in_the_coordinators_folder_is_for_its_account_only(shared_deployment):
    state = shared_deployment.state
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    for path in state.iterdir():
        if path.name != "superlink.log":
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert stat.S_ISSOCK((state / "superlink.sock").stat().st_mode)


def test_superlink_listens_on_one_port_only(shared_deployment):
    pid = shared_deployment.superlink.pid
    inodes = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
    listening = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                listening.add(int(fields[1].rsplit(":", 1)[1], 16))
    assert listening == {shared_deployment.port}


def test_a_second_superlink_on_the_same_folder_is_refused(shared_deployment):
    with pytest.raises(ConnectionFailed, match="running already"):
        replace(shared_deployment, sites={}).start_superlink()
    assert is_up(shared_deployment.state)
