import json

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fedsci.errors import ConnectionFailed, FedsciError
from fedsci.transport.codec import decode_reply, decode_request, encode
from fedsci.transport.messages import ACTIONS, DTYPES, Reply, Request

fields = st.dictionaries(
    st.text(max_size=5), st.integers() | st.text(max_size=5) | st.booleans() | st.none(), max_size=4
)
vectors = st.sampled_from(DTYPES).flatmap(lambda dtype: arrays(dtype, array_shapes(max_dims=3, max_side=4, min_side=0)))


def records(body: object, array: Array | None = None, *, key: str = "v") -> RecordDict:
    text = body if isinstance(body, str) else json.dumps(body)
    content = RecordDict({"fedsci": ConfigRecord({"body": text})})
    if array is not None:
        content["vector"] = ArrayRecord({key: array})
    return content


def raw(dtype: str = "float32", shape: tuple[int, ...] = (2,), stype: str = "fedsci.raw.v1", data: bytes = b"12345678"):
    return Array(dtype=dtype, shape=shape, stype=stype, data=data)


@settings(deadline=None)
@given(st.sampled_from(sorted(ACTIONS)), fields, st.none() | vectors)
def test_a_request_comes_back_bit_for_bit(action, values, vector):
    decoded = decode_request(encode(Request(action=action, fields=values, vector=vector)))
    assert (decoded.action, decoded.fields) == (action, values)
    same(decoded.vector, vector)


@settings(deadline=None)
@given(fields, st.none() | vectors, st.none() | fields)
def test_a_reply_comes_back_bit_for_bit(values, vector, error):
    decoded = decode_reply(encode(Reply(fields=values, vector=vector, error=error)))
    assert (decoded.fields, decoded.error) == (values, error)
    same(decoded.vector, vector)


def same(decoded, vector) -> None:
    assert (decoded is None) == (vector is None)
    if vector is not None:
        assert decoded.dtype == vector.dtype
        assert decoded.shape == vector.shape
        assert decoded.tobytes() == vector.tobytes()


def test_a_vector_that_is_not_contiguous_or_not_little_endian_travels_too():
    vector = np.arange(10, dtype=">f4")[::2]
    decoded = decode_reply(encode(Reply(vector=vector)))
    assert decoded.vector.tolist() == [0, 2, 4, 6, 8]


def test_what_arrives_cannot_be_written_to():
    decoded = decode_reply(encode(Reply(vector=np.zeros(2, np.float32))))
    with pytest.raises(ValueError, match="read-only"):
        decoded.vector[0] = 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_that_is_not_json_is_never_sent(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode(Reply(fields={"x": value}))


HOSTILE = {
    "nothing": RecordDict(),
    "no body": RecordDict({"fedsci": ConfigRecord({"other": "{}"})}),
    "body is a number": RecordDict({"fedsci": ConfigRecord({"body": 3})}),
    "body is bytes": RecordDict({"fedsci": ConfigRecord({"body": b"{}"})}),
    "body is a list": RecordDict({"fedsci": ConfigRecord({"body": ["{}"]})}),
    "body in an array record": RecordDict({"fedsci": ArrayRecord({"body": raw()})}),
    "body in a metric record": RecordDict({"fedsci": MetricRecord({"body": 1.0})}),
    "not JSON": records("{"),
    "deep JSON": records("[" * 100_000),
    "huge number": records('{"fields": ' + "9" * 10_000 + "}"),
    "JSON list": records("[]"),
    "JSON null": records("null"),
    "NaN": records('{"action": "hello", "fields": {"x": NaN}}'),
    "minus infinity": records('{"action": "hello", "fields": {"x": -Infinity}}'),
    "beyond all floats": records('{"action": "hello", "fields": {"x": 1e999}}'),
    "fields are a list": records({"action": "hello", "fields": []}),
    "fields are null": records({"action": "hello", "fields": None}),
    "error is a text": records({"action": 5, "error": "no"}),
    "too long": records('{"action": "hello", "x": "' + "y" * (16 * 1024 * 1024) + '"}'),
    "unknown array name": records({"action": "train"}, raw(), key="w"),
    "pickled array": records({"action": "train"}, raw(stype="numpy.ndarray")),
    "object array": records({"action": "train"}, raw(dtype="object")),
    "text array": records({"action": "train"}, raw(dtype="<U2")),
    "unknown dtype": records({"action": "train"}, raw(dtype="nonsense")),
    "too short": records({"action": "train"}, raw(data=b"1")),
    "too long array": records({"action": "train"}, raw(data=b"1" * 12)),
    "huge shape": records({"action": "train"}, raw(shape=(2**40, 2**40))),
    "negative shape": records({"action": "train"}, raw(shape=(-1, -2))),
    "negative and zero": records({"action": "train"}, raw(shape=(-1, 0), data=b"")),
    "zero and too large": records({"action": "train"}, raw(shape=(0, 2**70), data=b"")),
    "zero and large twice": records({"action": "train"}, raw(shape=(0, 2**40, 2**40), data=b"")),
    "too many dimensions": records({"action": "train"}, raw(shape=(1,) * 70, data=b"1234")),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_message_is_a_failed_connection(name):
    with pytest.raises(ConnectionFailed):
        decode_request(HOSTILE[name])
    with pytest.raises(ConnectionFailed):
        decode_reply(HOSTILE[name])


@pytest.mark.parametrize("action", [None, "", "drop", 3, [], {}, ["train"], True])
def test_an_unknown_action_is_a_failed_connection(action):
    with pytest.raises(ConnectionFailed, match="unknown action"):
        decode_request(records({"action": action}))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
bodies = st.text(max_size=30) | st.dictionaries(st.sampled_from(["action", "fields", "error"]), json_values)
hostile_arrays = st.builds(
    raw,
    dtype=st.sampled_from([*DTYPES, "float16", "complex64", "O", "", "V8"]),
    shape=st.lists(st.integers(-3, 5), max_size=3).map(tuple),
    stype=st.sampled_from(["fedsci.raw.v1", "numpy.ndarray", ""]),
    data=st.binary(max_size=64),
)


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(bodies, st.none() | hostile_arrays)
@example({"action": "train"}, raw(shape=(-2, -1)))
def test_whatever_arrives_only_a_failed_connection_comes_out(body, array):
    for decode in (decode_request, decode_reply):
        try:
            decoded = decode(records(body, array))
        except FedsciError as error:
            assert type(error) is ConnectionFailed  # noqa: PT017
        else:
            assert isinstance(decoded.fields, dict)


@pytest.mark.parametrize("value", [None, 3, [], True])
def test_a_text_field_must_be_a_text(value):
    with pytest.raises(FedsciError, match="no text 'run'"):
        Request(action="train", fields={"run": value}).text("run")


@pytest.mark.parametrize("value", [None, "3", 2.0, True])
def test_an_integer_field_must_be_an_integer(value):
    with pytest.raises(FedsciError, match="no integer 'round'"):
        Request(action="train", fields={"round": value}).integer("round")


@pytest.mark.parametrize("vector", [None, np.zeros(2), np.zeros((1, 2), np.float32), np.zeros(2, np.int64)])
def test_a_model_must_be_a_float32_vector(vector):
    with pytest.raises(FedsciError, match="no float32 model vector"):
        Request(action="train", vector=vector).model()
