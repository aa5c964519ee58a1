"""What a study may ask for and does not get yet. These tests go when the features come."""

import pytest

from fedsci.config.plan import check_plan
from fedsci.errors import ConfigError


@pytest.mark.parametrize("masked", [True, False])
def test_distributed_noise_is_not_available_yet(make_plan, masked):
    with pytest.raises(ConfigError, match=r"privacy\.mechanism: distributed is not available yet") as refused:
        check_plan(make_plan(privacy={"mechanism": "distributed"}, secure_aggregation={"enabled": masked}))
    assert "mechanism: local" in refused.value.hint
