import pytest
import yaml

from fedsci.config.site import load_site
from fedsci.errors import ConfigError


@pytest.fixture
def refusal(make_lab):
    def of(**changes) -> ConfigError:
        with pytest.raises(ConfigError) as refused:
            load_site(make_lab(**changes))
        return refused.value

    return of


def test_a_site_knows_its_folder(make_lab, tmp_path, monkeypatch):
    file = make_lab()
    monkeypatch.chdir(tmp_path.parent)
    assert load_site(file.relative_to(tmp_path.parent)).folder == tmp_path.resolve()


def test_a_budget_refuses_unless_the_officer_lets_it_stop(make_lab, refusal):
    assert load_site(make_lab()).datasets["points"].privacy.when_exceeded == "refuse"
    stopping = load_site(make_lab(dataset={"privacy": {"when_exceeded": "stop"}}))
    assert stopping.datasets["points"].privacy.when_exceeded == "stop"
    assert (
        "datasets.points.privacy.when_exceeded is 'warn'"
        in refusal(dataset={"privacy": {"when_exceeded": "warn"}}).message
    )


@pytest.mark.parametrize("key", ["", "ab" * 31, "AB" * 32, "zz" * 32])
def test_an_officer_is_a_public_key(refusal, key):
    error = refusal(officer=key)
    assert error.message.endswith("officer is not a public key")
    assert "64 hexadecimal digits" in error.hint


def test_a_ledgers_password_is_not_shown(make_lab):
    site = load_site(make_lab(ledger="postgresql+psycopg://me:hunter2@host/db"))
    assert "hunter2" not in repr(site) + str(site) + site.model_dump_json()


def test_without_a_policy_section_there_is_none(make_lab):
    file = make_lab()
    values = yaml.safe_load(file.read_text())
    del values["policy"]
    file.write_text(yaml.safe_dump(values))
    assert load_site(file).policy is None


def test_an_empty_policy_allows_nothing(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("site: a\ndatasets: {d: {path: x.csv}}\npolicy: {}\n")
    policy = load_site(file).policy
    assert policy is not None
    assert policy.approval == "manual"
    assert (policy.strategies, policy.models, policy.mechanisms, policy.exact_evaluation) == ([], [], None, False)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"site": "Lab One"}, "site name 'Lab One' is not usable"),
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"policy": {"approval": "yes"}}, "policy.approval is 'yes'"),
        ({"policy": {"min_cohort": 0}}, "policy.min_cohort is 0"),
        ({"policy": {"max_epsilon_per_study": 0}}, "policy.max_epsilon_per_study is 0"),
        ({"policy": {"max_epsilon": 3}}, "unknown key 'max_epsilon'"),
        ({"policy": {"mechanisms": ["magic"]}}, "policy.mechanisms.0 is 'magic'"),
        ({"dataset": {"path": None}}, "give either path or builtin"),
        ({"dataset": {"builtin": {"name": "digits", "shard": 1, "of": 2}}}, "give either path or builtin"),
        ({"dataset": {"path": None, "builtin": {"name": "digits", "shard": 3, "of": 2}}}, "shard 3 of 2"),
        ({"dataset": {"path": None, "builtin": {"name": "digits", "shard": 0, "of": 2}}}, "shard is 0"),
        ({"dataset": {"path": None, "builtin": {"name": "digits", "shard": 1, "of": 2, "skew": 2}}}, "skew is 2"),
        ({"dataset": {"privacy": {"epsilon": 0}}}, "privacy.epsilon is 0"),
        ({"dataset": {"privacy": {"epsilon": float("inf")}}}, "privacy.epsilon is inf"),
        ({"dataset": {"privacy": {"delta": 1}}}, "privacy.delta is 1"),
        ({"dataset": {"privacy": {"unit": "person"}}}, "privacy.unit is 'person'"),
        ({"dataset": {"csv": {"delimiter": ";;"}}}, "csv.delimiter is ';;'"),
        ({"dataset": {"pathh": "x"}}, "unknown key 'pathh'"),
    ],
)
def test_a_value_that_cannot_be_is_refused(refusal, changes, text):
    assert text in refusal(**changes).message


def test_a_site_without_data_sets_is_refused(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("site: a\ndatasets: {}\n")
    with pytest.raises(ConfigError, match="datasets is an empty section"):
        load_site(file)
