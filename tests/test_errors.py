import pytest

from fedsci import errors
from fedsci.errors import (
    BudgetRefused,
    ConfigError,
    EnrolmentRefused,
    FedsciError,
    InputError,
    LogBehind,
    ProtocolError,
    SiteFailed,
)

KINDS = [
    cls
    for cls in vars(errors).values()
    if isinstance(cls, type)
    and issubclass(cls, FedsciError)
    and cls not in (SiteFailed, ProtocolError, EnrolmentRefused, LogBehind)
]


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_kind_of_an_error_leaves_unless_said_otherwise(kind):
    error = kind("row 7 says 42.5", hint="look at row 7")
    assert (error.message, error.hint, str(error)) == ("row 7 says 42.5", "look at row 7", "row 7 says 42.5")
    public = error.public()
    assert public == {"code": kind.code, "exit_code": kind.exit_code, "message": kind.default_public}
    assert "42.5" not in str(public)


def test_a_site_that_is_behind_with_the_log_says_how_far_it_is():
    public = LogBehind("row 7", size=12).public()
    assert public == {"code": "behind", "exit_code": 6, "message": LogBehind.default_public, "size": 12}


def test_a_raiser_may_say_what_is_public():
    assert (
        BudgetRefused("secret", public="the budget for heart is used up").public()["message"].startswith("the budget")
    )
    assert BudgetRefused("secret", public="").public()["message"] == ""


def test_a_protocol_error_tells_the_rule_and_nothing_else():
    error = ProtocolError("share 3 of lab-02 is 0x1234", rule="share-length")
    assert error.rule == "share-length"
    assert error.public()["message"] == "refused: share-length"
    assert error.exit_code == 5


def test_a_refused_enrolment_tells_the_rule_and_nothing_else():
    error = EnrolmentRefused("the token of lab-02 was used at noon", rule="token-used")
    assert (error.rule, error.exit_code) == ("token-used", 7)
    assert error.public()["message"] == "refused: token-used"


def test_a_config_error_can_be_caught_as_an_input_error():
    with pytest.raises(InputError):
        raise ConfigError("x")


def test_a_failed_site_keeps_the_exit_code_of_its_error():
    failure = SiteFailed("lab-01", BudgetRefused("secret").public())
    assert (failure.exit_code, failure.site, failure.site_code) == (3, "lab-01", "budget")
    assert failure.message == "lab-01: the site's privacy budget does not allow this"
    assert "lab-01" in failure.hint


@pytest.mark.parametrize("nonsense", [0, 8, -1, "3", None, 2.0, [3]])
def test_an_exit_code_that_is_not_ours_becomes_1(nonsense):
    assert SiteFailed("lab-01", {"exit_code": nonsense}).exit_code == 1


def test_a_site_that_says_nothing_failed_all_the_same():
    failure = SiteFailed("lab-01", {})
    assert (failure.message, failure.site_code, failure.exit_code) == ("lab-01: no reason given", "internal", 1)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("line one\nfedsci: all is well", "line one fedsci: all is well"),
        ("\x1b[2J\x1b]0;x\x07gone\r", "\ufffd[2J\ufffd]0;x\ufffdgone"),
        ("lab\u202e10-\u2066x\x00", "lab\ufffd10-\ufffdx\ufffd"),
        ("Ω, é and 値 stay", "Ω, é and 値 stay"),
        ("x" * 5000, "x" * 1000),
        ({"a": 1}, "{'a': 1}"),
    ],
)
def test_what_a_site_says_of_its_failure_is_one_line_that_moves_nothing(said, shown):
    assert SiteFailed("lab-01", {"message": said}).message == f"lab-01: {shown}"
