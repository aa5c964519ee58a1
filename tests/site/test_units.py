"""Units of privacy: groups of records and whole sites, through the site's own gate, ledger and data."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsci.config.plan_checks import check_plan
from fedsci.config.site import load_site
from fedsci.config.study import Study
from fedsci.data.holdout import group_keys, split_holdout
from fedsci.data.table import RawTable
from fedsci.errors import BudgetRefused, ConfigError, DataError, InputError, PolicyRefused
from fedsci.privacy.budget import budget_policy, charge_cost
from fedsci.privacy.events import Neighbouring, one_after_another
from fedsci.site.dataset import load_site_data
from fedsci.site.gate import check_policy
from fedsci.site.ledger import Ledger
from fedsci.site.round import contributor
from fedsci.site.service import SiteService
from fedsci.training.accountant import cost_of, noise_over_update
from fedsci.training.device import CPU
from fedsci.transport.messages import Request

PATIENTS = {"unit": "group", "group_by": "patient"}


def write_patients(path, patients):
    rng = np.random.default_rng(1)
    rows = [f"{a:.6f},{b:.6f},{int(a > b)},{p}" for p in patients for a, b in [rng.uniform(size=2)]]
    path.write_text("\n".join(["a,b,above,patient", *rows]) + "\n")


@pytest.fixture
def lab_of_patients(make_lab, tmp_path):
    """A lab with 30 patients of one to four visits each."""

    def make(patients=None, **privacy):
        site = make_lab(dataset={"privacy": PATIENTS | privacy})
        write_patients(tmp_path / "lab-1.csv", patients or [f"p{n}" for n in range(30) for _ in range(1 + n % 4)])
        return load_site(site)

    return make


def test_a_groups_records_are_held_out_together_and_groups_are_what_is_counted(lab_of_patients, make_plan):
    plan = make_plan(privacy=PATIENTS)
    data = load_site_data(plan, lab_of_patients(), split_key=b"secret")
    assert data.train_count + data.holdout_count == 30
    assert data.train.units == data.train_count < data.train.rows
    assert data.train.rows + data.holdout.rows == sum(1 + n % 4 for n in range(30))


def test_without_privacy_records_are_split_as_ever(lab_of_patients, make_plan):
    plan = make_plan(privacy=PATIENTS | {"mechanism": "none", "epsilon": None})
    data = load_site_data(plan, lab_of_patients(), split_key=b"")
    assert data.train.groups is None
    assert data.train_count == data.train.rows


def test_a_row_without_a_group_is_refused_by_its_place(lab_of_patients, make_plan):
    with pytest.raises(DataError, match=r"line 3 has no value in 'patient'"):
        load_site_data(make_plan(privacy=PATIENTS), lab_of_patients(patients=["p1", "", "p2"]), split_key=b"")


def test_an_absent_column_is_named(lab_of_patients, make_plan):
    plan = make_plan(privacy=PATIENTS | {"group_by": "patien"})
    with pytest.raises(DataError, match="no column 'patien', which groups the records") as caught:
        load_site_data(plan, lab_of_patients(), split_key=b"")
    assert "did you mean 'patient'" in caught.value.hint


@given(st.lists(st.sampled_from(["7", 7, 7.0, "8", 8]), min_size=1, max_size=12))
def test_equal_numbers_are_one_group_however_they_are_written(values):
    raw = RawTable.from_columns({"p": np.array(values, dtype=object)})
    keys = group_keys(raw, "p", "a file")
    assert len(set(keys.tolist())) == len({float(v) for v in values})


@given(st.integers(0, 2**32))
def test_removing_a_group_moves_no_other(seed):
    keys = np.random.default_rng(seed).integers(0, 2**62, 20).repeat(3)
    kwargs = {"fraction": 0.5, "seed": 1, "site": "lab-1", "secret": b"k"}
    train, _ = split_holdout(keys, **kwargs)
    kept = keys != keys[0]
    assert (split_holdout(keys[kept], **kwargs)[0] == train[kept]).all()


@pytest.mark.parametrize(
    ("held", "asked"),
    [
        ({"unit": "record"}, PATIENTS),
        (PATIENTS, {"unit": "record"}),
        (PATIENTS, {"unit": "group", "group_by": "hospital"}),
        ({"unit": "site"}, {"unit": "record"}),
    ],
)
def test_a_study_for_another_unit_than_the_budgets_is_refused(make_lab, make_plan, held, asked):
    site = load_site(make_lab(dataset={"privacy": held}))
    with pytest.raises(PolicyRefused, match=r"the budget of points is for each .*, the study protects each "):
        check_policy(make_plan(privacy=asked), site)


@pytest.mark.parametrize(
    ("privacy", "message"),
    [
        ({"unit": "group"}, "needs group_by"),
        ({"group_by": "patient"}, "goes with unit: group"),
        ({"unit": "group", "group_by": "a"}, "also a feature"),
        ({"unit": "group", "group_by": "above"}, "also a feature or the target"),
        ({"unit": "site", "mechanism": "local"}, "each stands alone"),
    ],
)
def test_units_that_make_no_sense_are_refused(study_values, privacy, message):
    with pytest.raises(ValueError, match=message):
        Study.model_validate(study_values(privacy=privacy))


def test_a_sample_of_records_protects_no_site(make_plan):
    plan = make_plan(privacy={"unit": "site", "mechanism": "distributed"}, training={"sample_rate": 0.5}, sites=5)
    with pytest.raises(ConfigError, match="protects no whole site"):
        check_plan(plan)


def test_a_charge_for_another_unit_is_refused_everywhere(make_plan, tmp_path):
    group = cost_of(make_plan(privacy=PATIENTS), dimension=3).events(2, 1)
    record = cost_of(make_plan(), dimension=3).events(2, 1)
    assert group.neighbouring is Neighbouring.ADD_OR_REMOVE_ONE_GROUP
    policy = budget_policy(epsilon=8.0, delta=1e-5)
    assert charge_cost(record, policy) > 0
    with pytest.raises(InputError, match="cannot be charged"):
        charge_cost(group, policy)
    with pytest.raises(InputError, match="different units"):
        one_after_another([group, record])
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.register("points", epsilon=8.0, delta=1e-5, unit="record")
    with pytest.raises(BudgetRefused, match="the ledger was opened with unit record"):
        ledger.register("points", epsilon=8.0, delta=1e-5, unit="group")


def test_the_column_that_makes_groups_is_fixed_when_a_data_set_is_first_used(tmp_path):
    """What was spent on patients protects no hospital, and a visit's epsilon no patient."""
    ledger = Ledger(tmp_path / "state")
    budget = {"epsilon": 8.0, "delta": 1e-5, "unit": "group"}
    policy = ledger.register("points", **budget, group_by="patient")
    assert ledger.register("points", **budget, group_by="patient") == policy
    for use in (ledger.register, ledger.look):
        for other in ("visit", None):
            with pytest.raises(BudgetRefused, match=f"groups records by {other!r}, .* for groups by 'patient'"):
                use("points", **budget, group_by=other)


def test_a_site_tells_its_ledger_which_column_makes_groups(lab_of_patients, make_plan, tmp_path):
    plan = make_plan(privacy=PATIENTS, secure_aggregation={"enabled": False})
    service = SiteService(lab_of_patients(), tmp_path / "state")
    reply = service.handle(Request(action="prepare", fields={"run": "a" * 32, "plan": plan.to_bytes().decode()}))
    assert reply.error is None
    assert service.ledger.entries()[0].body["group_by"] == "patient"


@pytest.fixture
def whole(make_plan, make_lab, tmp_path):
    """A site that hides as a whole, and its price."""
    plan = make_plan(
        sites=5,
        strategy="fedavg",
        privacy={"unit": "site", "mechanism": "distributed", "colluding_sites": 1, "clipping_norm": 0.01},
    )
    check_plan(plan)
    data = load_site_data(plan, load_site(make_lab()), split_key=b"")
    cost = cost_of(plan, dimension=3)
    return plan, cost, lambda noise: contributor(plan, "lab-1", data.train, cost=cost, device=CPU, random_bytes=noise)


def test_a_sites_update_is_clipped_as_a_whole_and_noised(whole):
    plan, cost, make = whole
    worker = make(os.urandom)
    sent = (
        np.array([worker.contribution(np.zeros(3, np.float32), n, memory={}) for n in range(1, 401)]) * cost.share.gamma
    )
    assert sent.dtype.kind == "f"
    assert np.linalg.norm(sent.mean(0)) < plan.study.privacy.clipping_norm * 1.3 + 4 * sent.std() / np.sqrt(400 / 3)
    assert 0.9 < sent.std(0).mean() / (cost.share.deviation * cost.share.gamma) < 1.1
    counted = plan.min_survivors - plan.study.privacy.colluding_sites
    assert cost.share.deviation * cost.share.gamma * counted**0.5 >= cost.charged * plan.study.privacy.clipping_norm


def test_nothing_is_measured_with_noise_where_whole_sites_are_protected(whole):
    plan, cost, _ = whole
    assert cost.measurements == 0
    assert cost.events(1).neighbouring is Neighbouring.ADD_OR_REMOVE_ONE_SITE
    assert noise_over_update(plan, dimension=650) > 1 > noise_over_update(plan, dimension=3)
