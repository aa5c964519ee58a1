"""Large objects lie in files as long as Flower knows them, and no longer."""

import hashlib

import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.task_identity import TaskIdentity

from fedsci.transport.object_files import IN_FILE, SMALL_BYTES, ObjectFiles

pytestmark = pytest.mark.filterwarnings("ignore:No path_separator:DeprecationWarning")  # Flower's migrations


@pytest.fixture
def store(tmp_path):
    store = ObjectFiles(str(tmp_path / "state.db"))
    store.initialize()
    yield store
    store._engine.dispose()


@pytest.fixture
def message():
    TaskIdentity.task_id = TaskIdentity.run_id = 5
    TaskIdentity.node_id = 1
    data = bytes(range(256)) * (SMALL_BYTES // 128)
    array = Array(dtype="uint8", shape=(len(data),), stype="raw", data=data)
    message = Message(RecordDict({"v": ArrayRecord({"v": array})}), 2, "query.hello")
    message.metadata.__dict__["_message_id"] = message.object_id
    return message


def contents_of(message) -> dict[str, bytes]:
    return {object_id: item.deflate() for object_id, item in get_all_nested_objects(message).items()}


def test_objects_come_back_and_only_large_ones_are_files(store, message, tmp_path):
    contents = contents_of(message)
    tree = get_object_tree(message)
    assert set(store.preregister(5, tree)) == set(contents)
    assert {store.get(object_id) for object_id in contents} == {b""}
    for object_id, content in contents.items():
        store.put(object_id, content)
        assert store.get(object_id) == content
    large = {object_id for object_id, content in contents.items() if len(content) > SMALL_BYTES}
    assert len(large) == 1
    assert {path.name for path in (tmp_path / "objects").iterdir()} == large
    store.delete(tree.object_id)
    assert list((tmp_path / "objects").iterdir()) == []
    assert {store.get(object_id) for object_id in contents} == {None}


def test_a_file_that_two_messages_share_goes_with_the_last(store, message, tmp_path):
    other = Message(message.content, 3, "query.hello")
    other.metadata.__dict__["_message_id"] = other.object_id
    for item in (message, other):
        store.preregister(5, get_object_tree(item))
        for object_id, content in contents_of(item).items():
            store.put(object_id, content)
    store.delete(message.metadata.message_id)
    assert len(list((tmp_path / "objects").iterdir())) == 1
    store.delete(other.metadata.message_id)
    assert list((tmp_path / "objects").iterdir()) == []


def test_what_is_another_object_or_none_is_refused(store, message):
    contents = contents_of(message)
    store.preregister(5, get_object_tree(message))
    one = next(iter(contents))
    with pytest.raises(ValueError, match="other content"):
        store.put(one, contents[one] + b"x")
    with pytest.raises(ValueError, match=r".+"):
        store.put(hashlib.sha256(IN_FILE).hexdigest(), IN_FILE)


def test_a_file_that_is_gone_is_an_object_that_is_gone(store, message, tmp_path):
    store.preregister(5, get_object_tree(message))
    for object_id, content in contents_of(message).items():
        store.put(object_id, content)
    [file] = (tmp_path / "objects").iterdir()
    file.unlink()
    assert store.get(file.name) is None
