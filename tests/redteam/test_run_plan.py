"""A run folder from anyone, back to a study: its plan is read strictly, and its labs' files are told apart."""

import json

import pytest
import yaml

from fedsci.errors import ConfigError, InputError, PolicyRefused
from fedsci.redteam.run_plan import check_no_run_file, study_of_run

LAUGHS = b"a0: &a0 [x]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 9)
)


@pytest.fixture
def run(tmp_path, small_study):
    """A run folder with the plan of a study, and its labs' files in ``labs``."""
    study = small_study()
    folder, labs = tmp_path / "run", tmp_path / "labs"
    folder.mkdir()
    labs.mkdir()
    for file in study.site_files:
        (labs / file.name).write_bytes(file.read_bytes())
    plan = study.plan.to_json() | {"digest": study.plan.digest}
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    return folder, labs, study


def test_a_runs_plan_and_its_labs_files_are_a_study(run):
    folder, labs, study = run
    found = study_of_run(folder, labs)
    assert found.plan.digest == study.plan.digest
    assert [path.parent for path in found.site_files] == [labs] * len(study.plan.sites)


def test_a_site_file_may_end_in_yml(run):
    folder, labs, study = run
    for path in list(labs.iterdir()):
        path.rename(path.with_suffix(".yml"))
    assert len(study_of_run(folder, labs).site_files) == len(study.plan.sites)


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [
        *(b"a: !!bool x", b"a: !!int ''", b"a: 2024-13-45", b"? [a]\n: 1", b"&a {b: *a}", b"a: 1\na: 2", b""),
        *(b"[" * 20000, b"a: !!set {x, y}", b"!!python/object/apply:os.system [x]", b'a: "\\ud800"', b"a: \x00"),
        b"a: \xff",
        LAUGHS,
    ],
)  # fmt: skip
def test_what_is_no_plan_is_refused_on_one_line(run, content):
    folder, labs, _ = run
    (folder / "plan.yaml").write_bytes(content)
    with pytest.raises(InputError, match=r"plan\.yaml") as refused:
        study_of_run(folder, labs)
    assert "\n" not in refused.value.message
    assert refused.value.hint


def test_a_plan_that_was_changed_after_the_run_is_refused(run):
    folder, labs, _ = run
    plan = yaml.safe_load((folder / "plan.yaml").read_text())
    plan["study"]["privacy"]["epsilon"] = 1.0
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    with pytest.raises(InputError, match="changed after the run"):
        study_of_run(folder, labs)


def test_a_plan_with_a_module_from_elsewhere_runs_none_of_it(run):
    folder, labs, _ = run
    plan = yaml.safe_load((folder / "plan.yaml").read_text())
    plan["strategy"]["name"] = "somewhere.else"
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    with pytest.raises((InputError, PolicyRefused)):
        study_of_run(folder, labs)


def test_a_broken_site_file_says_what_is_wrong_with_it(run):
    folder, labs, _ = run
    broken = sorted(labs.iterdir())[0]
    broken.write_text(broken.read_text() + "nonsense: 1\n")
    with pytest.raises(ConfigError, match="unknown key 'nonsense'") as refused:
        study_of_run(folder, labs)
    assert broken.name in refused.value.message


def test_other_files_beside_the_labs_are_no_matter(run):
    folder, labs, study = run
    (labs / "compose.yml").write_text("a: &a 1\nb: *a\n")
    (labs / "study.yaml").write_text("study: x\n")
    assert len(study_of_run(folder, labs).site_files) == len(study.plan.sites)


def test_a_folder_of_sites_that_is_not_there_is_said_to_be_missing(run):
    folder, labs, _ = run
    with pytest.raises(InputError, match="nowhere is not a folder") as refused:
        study_of_run(folder, labs / "nowhere")
    assert "--sites" in refused.value.hint


def test_a_lab_without_a_file_is_named(run):
    folder, labs, _ = run
    sorted(labs.iterdir())[0].unlink()
    with pytest.raises(InputError, match="has no file of lab-"):
        study_of_run(folder, labs)


def test_an_empty_folder_is_no_run_and_says_what_would_be(tmp_path):
    with pytest.raises(InputError, match="no run folder") as refused:
        study_of_run(tmp_path, None)
    assert "one run's own folder" in refused.value.hint


def test_a_file_of_a_run_is_no_study_and_leads_to_its_folder(run):
    folder, _, _ = run
    check_no_run_file(folder / "plan.yaml")  # may be a study of that name
    (folder / "summary.json").write_text(json.dumps({}))
    with pytest.raises(InputError, match="not a study") as refused:
        check_no_run_file(folder / "plan.yaml")
    assert str(folder) in refused.value.hint
