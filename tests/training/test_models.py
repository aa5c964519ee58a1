import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedsci.config.study import ModelSpec
from fedsci.errors import InputError
from fedsci.training.device import CPU, pick_device
from fedsci.training.models import build_model, initial_vector, layout_of, load_vector, read_vector

SPECS = {
    "linear": ModelSpec(name="linear"),
    "mlp": ModelSpec(name="mlp", hidden=[5, 4]),
    "cnn": ModelSpec(name="cnn", channels=[2, 3], hidden=[4]),
}
NORMALISED = {
    f"{name} normalised": SPECS[name].model_copy(update={"normalisation": "batch"}) for name in ("mlp", "cnn")
}


def build(name: str, *, outputs: int = 3, image: tuple[int, ...] = (6, 6)) -> torch.nn.Module:
    return build_model({**SPECS, **NORMALISED}[name], inputs=36, outputs=outputs, image=image)


@pytest.mark.parametrize("name", [*SPECS, *NORMALISED])
def test_a_model_maps_records_to_outputs(name):
    assert build(name)(torch.zeros(2, 36)).shape == (2, 3)


def test_images_may_have_channels():
    module = build_model(SPECS["cnn"], inputs=72, outputs=1, image=(2, 6, 6))
    assert module(torch.zeros(4, 72)).shape == (4, 1)


@pytest.mark.parametrize("name", [*SPECS, *NORMALISED])
def test_a_vector_loaded_is_the_vector_read(name):
    module = build(name)
    vector = np.random.default_rng(1).normal(size=layout_of(module).size).astype(np.float32)
    load_vector(module, vector)
    assert read_vector(module).tobytes() == vector.tobytes()


@pytest.mark.parametrize("name", SPECS)
def test_the_layout_is_the_modules(name):
    module = build(name)
    assert layout_of(module).entries == tuple((n, tuple(p.shape)) for n, p in module.named_parameters())


@pytest.mark.parametrize("name", NORMALISED)
def test_normalisation_layers_are_the_last_entries_with_their_running_statistics(name):
    module, spec = build(name), NORMALISED[name]
    units = sum(spec.hidden) + sum(spec.channels)
    entries = layout_of(module).entries
    count = 4 * (len(spec.hidden) + len(spec.channels))
    assert {each.rsplit(".")[-1] for each, _ in entries[-count:]} == {"weight", "bias", "running_mean", "running_var"}
    assert sum(np.prod(shape) for _, shape in entries[-count:]) == spec.normalised == 4 * units
    others = tuple(shape for _, shape in entries[:-count])
    assert others == tuple(shape for _, shape in layout_of(build(name.split()[0])).entries)


def test_a_cnn_that_names_no_channels_has_two_normalised_convolutions():
    spec = ModelSpec(name="cnn", normalisation="batch")
    plain, normalised = (
        layout_of(build_model(each, inputs=36, outputs=1, image=(6, 6))).size for each in (ModelSpec(name="cnn"), spec)
    )
    assert normalised - plain == spec.normalised == 4 * (16 + 32)


@pytest.mark.parametrize("name", NORMALISED)
def test_normalisation_starts_by_changing_nothing_and_the_rest_as_without_it(name):
    module, plain = build(name).eval(), build(name.split()[0])
    start = initial_vector(module, seed=4)
    load_vector(module, start)
    load_vector(plain, initial_vector(plain, seed=4))
    records = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, (5, 36)).astype(np.float32))
    assert module(records).detach().numpy() == pytest.approx(plain(records).detach().numpy(), abs=1e-4)


@pytest.mark.parametrize("name", NORMALISED)
def test_a_measured_record_does_not_depend_on_the_others(name):
    module = build(name).eval()
    load_vector(module, np.random.default_rng(1).uniform(0.1, 1, layout_of(module).size).astype(np.float32))
    records = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, (5, 36)).astype(np.float32))
    assert module(records)[:1].detach().numpy() == pytest.approx(module(records[:1]).detach().numpy(), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "cnn"])
@given(seed=st.integers(0, 2**63 - 1))
def test_the_starting_point_is_the_seeds_and_nothing_elses(name, seed):
    torch.manual_seed(0)
    first = initial_vector(build(name), seed=seed)
    assert first.dtype == np.float32
    assert first.tobytes() == initial_vector(build(name), seed=seed).tobytes()
    assert first.tobytes() != initial_vector(build(name), seed=seed ^ 1).tobytes()


def test_a_model_without_hidden_layers_starts_at_zero():
    assert not initial_vector(build("linear"), seed=4).any()


def test_hidden_layers_start_within_one_over_the_root_of_their_inputs():
    module = build("mlp")
    load_vector(module, initial_vector(module, seed=4))
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        else:
            bound = parameter.shape[1] ** -0.5
            assert bound / 2 < parameter.abs().max() <= bound


@pytest.mark.parametrize("wrong", [-1, 1])
def test_a_vector_of_another_length_is_refused(wrong):
    module = build("linear")
    before = read_vector(module)
    with pytest.raises(InputError, match="does not fit a model of 111 parameters"):
        load_vector(module, np.zeros(111 + wrong, np.float32))
    assert read_vector(module).tobytes() == before.tobytes()


def test_a_matrix_is_no_vector():
    with pytest.raises(InputError, match="does not fit"):
        load_vector(build("linear"), np.zeros((111, 1), np.float32))


@pytest.mark.parametrize("damage", [np.nan, np.inf, -np.inf])
def test_a_damaged_model_is_refused_and_the_module_left_alone(damage):
    module = build("linear")
    before = read_vector(module)
    vector = np.zeros(111, np.float32)
    vector[-1] = damage
    with pytest.raises(InputError, match="NaN or infinity"):
        load_vector(module, vector)
    assert read_vector(module).tobytes() == before.tobytes()


def test_a_cnn_needs_an_image():
    with pytest.raises(InputError, match="one feature with a shape"):
        build_model(SPECS["cnn"], inputs=36, outputs=1, image=None)


def test_an_image_too_small_for_its_convolutions_is_refused():
    with pytest.raises(InputError, match="too small for 2 convolutions"):
        build("cnn", image=(3, 3))


def test_cuda_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="torch finds no GPU") as refused:
        pick_device("cuda")
    assert "cpu" in refused.value.hint
    assert pick_device("auto") == pick_device("cpu") == CPU


def test_auto_takes_the_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto").type == "cuda"
    assert pick_device("cpu") == CPU
