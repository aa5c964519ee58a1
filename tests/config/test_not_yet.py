"""What a study may ask for and does not get yet. These tests go when the features come."""

import pytest

from fedsci.config.plan import check_plan
from fedsci.errors import ConfigError


def test_distributed_noise_is_not_available_yet(make_plan):
    with pytest.raises(ConfigError, match=r"privacy\.mechanism: distributed is not available yet") as refused:
        check_plan(make_plan(privacy={"mechanism": "distributed"}))
    assert "mechanism: local" in refused.value.hint


def test_secure_aggregation_is_not_available_yet(make_plan):
    with pytest.raises(ConfigError, match=r"secure_aggregation\.enabled: true is not available yet"):
        check_plan(make_plan(secure_aggregation={"enabled": True}))
