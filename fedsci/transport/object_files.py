"""SuperLink's object store with large objects in files: a model through SQLite is written twice and read whole.

Files are written without waiting for the disk: they outlive SuperLink's process, as its database does, not a power cut.
"""

from pathlib import Path

from flwr.supercore.inflatable.inflatable_object import get_object_id
from flwr.supercore.inflatable.inflatable_utils import validate_object_content
from flwr.supercore.object_store.sql_object_store import SqlObjectStore
from flwr.supercore.state.schema.objectstore_models import StoredObject
from sqlalchemy import select

#: Objects up to this size lie in the database, and travel with their message.
SMALL_BYTES = 64 * 1024
#: Stands in the database for what lies in a file; no object is it: objects begin with their type's name.
IN_FILE = b"\x00in a file"


class ObjectFiles(SqlObjectStore):
    """Keeps what is larger than :data:`SMALL_BYTES` in ``objects/`` beside the database."""

    def __init__(self, database_path: str) -> None:
        super().__init__(database_path, verify=False)  # done here, on the content itself
        self._folder = Path(database_path).parent / "objects"
        self._folder.mkdir(exist_ok=True, mode=0o700)
        self._deleting = False

    def put(self, object_id: str, object_content: bytes) -> None:
        """Put an object into the store.

        Raises:
            ValueError: it is not the object of this id, or no object at all.
        """
        if get_object_id(object_content) != object_id:
            raise ValueError(f"object {object_id} has other content")
        validate_object_content(content=object_content)
        if len(object_content) > SMALL_BYTES:
            new = self._folder / f"{object_id}.new"
            new.write_bytes(object_content)
            new.replace(self._folder / object_id)
            object_content = IN_FILE
        super().put(object_id, object_content)

    def get(self, object_id: str) -> bytes | None:
        """Return an object; empty if it has not arrived, None if there is none."""
        content = super().get(object_id)
        if content != IN_FILE:
            return content
        try:
            return (self._folder / object_id).read_bytes()
        except FileNotFoundError:
            return None

    def delete(self, object_id: str) -> None:
        """Delete an object and what only it refers to."""
        outermost, self._deleting = not self._deleting, True
        try:
            super().delete(object_id)
            if outermost:
                self._sweep()
        finally:
            self._deleting = not outermost

    def _sweep(self) -> None:
        files = {path.name: path for path in self._folder.iterdir()}
        if not files:
            return
        with self.session() as session:
            known = set(session.scalars(select(StoredObject.object_id).where(StoredObject.object_id.in_(files))))
        for name, path in files.items():
            if name not in known:
                path.unlink(missing_ok=True)
