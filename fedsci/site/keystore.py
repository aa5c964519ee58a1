"""A site's keys: one identity for life, and the secrets of secure aggregation for as long as a batch lasts.

The identity and the consortium's public key lie in the state folder, readable by their owner only.
Batch secrets lie in memory-backed storage outside of it (``/dev/shm``): they survive the death of the site's
process, which may be in the middle of a round, but not a reboot, and no backup or disk snapshot holds them.
So a site that was restored from an older copy of itself has no batch to go on with: it sits out until the
next one, and can never use a slot twice. Where a machine has no memory-backed folder the temporary folder is
used, which a snapshot of the whole disk would include.
"""

import contextlib
import hashlib
import os
import secrets
import tempfile
import time
from pathlib import Path

from fedsci.errors import InputError, PolicyRefused, ProtocolError
from fedsci.identity.files import replace_private, write_private
from fedsci.secagg import Seed, SigningKey, SiteState
from fedsci.secagg.profile import Profile
from fedsci.secagg.profiles import DEFAULT, profile_of_key, profile_of_seed, require_profile

_STALE_S = 7 * 24 * 3600.0


class Keystore:
    """The keys of one site.

    Args:
        folder: the site's state folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        tag = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:24]
        shared = Path("/dev/shm")  # noqa: S108  (owner-only subfolder, checked below)
        root = shared if shared.is_dir() and os.access(shared, os.W_OK) else Path(tempfile.gettempdir())
        self._batches = root / f"fedsci-{os.getuid()}-{tag}"
        self._cached: dict[Path, tuple[bytes, SiteState]] = {}

    @property
    def profile(self) -> Profile:
        """The crypto profile: the pinned consortium's; before there is one the identity's; else ``default``."""
        pinned, path = self._folder / "consortium.pub", self._folder / "identity.key"
        found = profile_of_key(pinned.read_bytes()) if pinned.exists() else None
        return found or (profile_of_seed(path.read_bytes()) if path.exists() else None) or DEFAULT

    def signing_key(self) -> SigningKey:
        """Return the site's identity, made at the first call.

        Raises:
            ProtocolError: ``wrong-profile``: it is of another crypto profile than the pinned consortium.
        """
        path, profile = self._folder / "identity.key", self.profile
        if not path.exists():
            write_private(path, random_seed(profile))
        key = SigningKey(Seed(path.read_bytes()))
        require_profile(key.profile, profile, "this site's identity")
        return key

    def require_pinned(self, profile: Profile) -> None:
        """Pass if no consortium is pinned, or one of this crypto profile.

        Raises:
            ProtocolError: ``wrong-profile``.
        """
        if (self._folder / "consortium.pub").exists():
            require_profile(self.profile, profile, "the consortium that this site belongs to")

    def choose_profile(self, profile: Profile) -> None:
        """Take up a crypto profile, with a new identity, before the site joins a consortium; never back to ``default``.

        Raises:
            ProtocolError: ``wrong-profile``: a consortium of another is pinned, or the identity is of a stricter one.
        """
        self.require_pinned(profile)
        path = self._folder / "identity.key"
        if path.exists() and profile is DEFAULT:
            require_profile(profile, self.profile, "the consortium")
        if not path.exists() or profile is not self.profile:
            replace_private(path, random_seed(profile))

    def split_key(self) -> bytes:
        """Return the secret under which records are held out in private studies, made at the first call."""
        path = self._folder / "split.key"
        if not path.exists():
            write_private(path, random_seed())
        return path.read_bytes()

    def commitment_key(self) -> bytes:
        """Return the secret under which statements say what data sets hold, made at the first call."""
        path = self._folder / "commitment.key"
        if not path.exists():
            write_private(path, random_seed())
        return path.read_bytes()

    def pin_consortium(self, public: bytes) -> None:
        """Trust rosters signed by this key; done once, at enrolment.

        Raises:
            PolicyRefused: another key is pinned already.
        """
        path = self._folder / "consortium.pub"
        if path.exists():
            if path.read_bytes() != public:
                raise PolicyRefused("this site belongs to another consortium", hint=f"its key is pinned in {path}")
            return
        write_private(path, public)

    def post_quantum_seed(self) -> Seed:
        """Return the secret from which the site's ML-DSA key grows, made at the first call."""
        path = self._folder / "post-quantum.key"
        if not path.exists():
            write_private(path, random_seed())
        return Seed(path.read_bytes())

    def pin_coordinator(self, public: bytes) -> None:
        """Know the coordinator that signs audit logs by this key from now on; done at the first run.

        Raises:
            PolicyRefused: another key is known.
            ProtocolError: ``wrong-profile``: it is of another crypto profile than this site.
        """
        require_profile(profile_of_key(public), self.profile, "the coordinator's key")
        path = self._folder / "coordinator.pub"
        if not path.exists():
            write_private(path, public)
        elif path.read_bytes() != public:
            raise PolicyRefused(
                "the coordinator signs its log with another key than before",
                hint=f"if it has told you of a new key, remove {path}",
                public="the coordinator signs its log with another key than before",
            )

    def consortium_key(self) -> bytes:
        """Return the pinned key.

        Raises:
            PolicyRefused: the site was never enrolled.
        """
        path = self._folder / "consortium.pub"
        if not path.exists():
            raise PolicyRefused("this site was never enrolled in a consortium", hint="enrol it first")
        return path.read_bytes()

    def store(self, run: str, state: SiteState) -> None:
        """Keep a batch's state; on return a crash of this process cannot lose it."""
        self._open_batches()
        path, content = self._path(run, state.setup.batch), state.encode()
        if path.exists():
            held = path.read_bytes()
            revision = SiteState.decode(held).revision
            if revision > state.revision or (revision == state.revision and held != content):
                raise ProtocolError("another process went on with this batch", rule="two-processes")
        partial = path.with_suffix(".partial")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        partial.replace(path)
        self._cached[path] = (hashlib.sha256(content).digest(), state)

    def load(self, run: str, batch: int) -> SiteState:
        """Return a batch's state.

        Raises:
            ProtocolError: ``batch-burnt``: this machine does not hold it (any more).
        """
        path = self._path(run, batch)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise ProtocolError(
                "this site holds no secrets for the batch: it was restarted or restored",
                rule="batch-burnt",
                hint="it takes part again from the next batch on",
            ) from None
        digest, state = self._cached.get(path, (b"", None))
        if state is None or digest != hashlib.sha256(content).digest():
            state = SiteState.decode(content)
            self._cached[path] = (hashlib.sha256(content).digest(), state)
        return state

    def holds(self, run: str, batch: int) -> bool:
        """Return whether a batch's state is there."""
        return self._path(run, batch).exists()

    def begin_batch(self, run: str, batch: int) -> None:
        """Note in the state folder, for good, that a batch was begun.

        Raises:
            ProtocolError: ``one-transcript``: it was begun before, also if its secrets are lost by now.
        """
        folder = self._folder / "batches"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            (folder / f"{run}-{batch}").touch(exist_ok=False)
        except FileExistsError:
            raise ProtocolError(f"batch {batch} was set up before", rule="one-transcript") from None

    def check_serial(self, serial: int) -> None:
        """Refuse a roster older than one seen before, and remember the newest.

        Raises:
            ProtocolError: ``old-roster``.
            InputError: which one was the newest cannot be read.
        """
        path = self._folder / "roster.serial"
        try:
            seen = int(path.read_text(encoding="ascii")) if path.exists() else 0
        except ValueError:
            raise InputError(
                f"{path} is damaged", hint="restore it from a backup, or write into it the number of the newest roster"
            ) from None
        if serial < seen:
            raise ProtocolError(f"roster {serial} is older than roster {seen}", rule="old-roster")
        if serial > seen:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            partial = path.with_suffix(".partial")
            partial.write_text(str(serial), encoding="ascii")
            partial.replace(path)

    def forget(self, run: str) -> None:
        """Erase every batch of a run."""
        if self._batches.is_dir():
            for path in self._batches.glob(f"{run}-*"):
                path.unlink(missing_ok=True)
                self._cached.pop(path, None)
            with contextlib.suppress(OSError):
                self._batches.rmdir()  # only if empty

    def _path(self, run: str, batch: int) -> Path:
        return self._batches / f"{run}-{batch}"

    def _open_batches(self) -> None:
        """Make the folder, owned by us and closed to others; drop what a dead process left a week ago."""
        self._batches.mkdir(mode=0o700, exist_ok=True)
        about = self._batches.lstat()
        if about.st_uid != os.getuid() or about.st_mode & 0o077 or self._batches.is_symlink():
            raise ProtocolError(f"{self._batches} is open to other users", rule="keystore-open")
        for path in self._batches.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - _STALE_S:
                    path.unlink()


def random_seed(profile: Profile = DEFAULT) -> bytes:
    """Return fresh bytes from the operating system: what a signing key grows from, 32 unless the profile says more."""
    return secrets.token_bytes(profile.seed_bytes)
