"""The summary of a study is written whatever a site says of itself."""

import pytest

from fedsci.config.plan_checks import plan_from_bytes
from fedsci.coordinator.summary import summarise
from fedsci.transport.messages import Reply


@pytest.mark.slow
@pytest.mark.parametrize("figure", [None, "inf", 0.5, 10**9, 1e300])
def test_a_charge_that_a_site_made_up_and_never_closed_counts_as_the_whole_study(conduct, figure):
    def lies(service, request, reply):
        if service.site.site == "lab-2" and request.action == "prepare":
            made_up = {"rounds_charged": figure, "measurements_charged": figure}
            return Reply(fields=reply.fields | {"privacy": reply.fields["privacy"] | made_up})
        if service.site.site == "lab-2" and request.action == "finish":
            raise ConnectionError
        return reply

    result = conduct(
        masked=False,
        rows=60,
        after=lies,
        strategy="dp_fedsgd",
        privacy={"mechanism": "local", "epsilon": 2.0},
        policy={"mechanisms": ["local"], "unmasked_updates": True},
    )
    assert result.error is None
    asked = next(step.request for step in result.steps if step.action == "prepare")
    summary = summarise(
        plan_from_bytes(asked.text("plan").encode(), modules=None),
        result.progress,
        engine="local",
        status="completed",
        reason=None,
        seconds_total=1.0,
        traffic=(0, 0),
        pooled={},
    )
    spent = summary["privacy"]["by_site"]
    assert [site for site, said in spent.items() if not said["settled"]] == ["lab-2"]
    assert spent["lab-2"]["epsilon_spent_study"] == pytest.approx(spent["lab-1"]["epsilon_spent_study"])
