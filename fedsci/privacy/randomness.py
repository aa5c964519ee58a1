"""A stream of cryptographic random bytes: AES-256-CTR under keys from the operating system.

Noise that an adversary can predict protects nobody, so noise never comes from numpy's, torch's or Python's
generators. AES in counter mode is indistinguishable from uniform bytes up to the birthday bound on its
128-bit blocks: a key is dropped after 2^30 bytes (2^26 blocks), an advantage of at most 2^-77 a key.
"""

from collections.abc import Callable
from typing import Final, NoReturn

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray

from fedsci.errors import InputError

RandomBytes = Callable[[int], bytes]

KEY_BYTES: Final = 32
BYTES_PER_KEY: Final = 1 << 30
_MAX_PIECE: Final = 1 << 16
_ZEROS: Final = memoryview(bytes(_MAX_PIECE))
_BLOCK_BYTES: Final = 16


class KeyStream:
    """Random bytes, each used once, fit for noise.

    One stream belongs to one thread of one process: a fork would draw the same bytes twice. It prints no
    key, and can be neither pickled nor copied.

    Args:
        random_bytes: returns fresh uniform bytes; ``secrets.token_bytes`` outside tests.

    Raises:
        InputError: if ``random_bytes`` does not return the number of bytes it was asked for.
    """

    __slots__ = ("_encryptor", "_left", "_random_bytes")

    def __init__(self, random_bytes: RandomBytes) -> None:
        self._random_bytes = random_bytes
        self._rekey()

    def _rekey(self) -> None:
        key = self._random_bytes(KEY_BYTES)
        if not isinstance(key, bytes) or len(key) != KEY_BYTES:
            raise InputError(f"the source of randomness must return exactly {KEY_BYTES} bytes")
        # The counter may start at zero: no key is ever used for two streams.
        self._encryptor: CipherContext = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
        self._left = BYTES_PER_KEY

    def bytes(self, count: int) -> bytes:
        """Return the next ``count`` bytes; zero gives none.

        Raises:
            InputError: if ``count`` is negative.
        """
        return self._draw(count).tobytes()

    def uint64(self, count: int) -> NDArray[np.uint64]:
        """Return ``count`` independent uniform 64-bit words."""
        return self._draw(8 * count).view(np.uint64)

    def uint32(self, count: int) -> NDArray[np.uint32]:
        """Return ``count`` independent uniform 32-bit words."""
        return self._draw(4 * count).view(np.uint32)

    def uint16(self, count: int) -> NDArray[np.uint16]:
        """Return ``count`` independent uniform 16-bit words."""
        return self._draw(2 * count).view(np.uint16)

    def _draw(self, count: int) -> NDArray[np.uint8]:
        if count < 0:
            raise InputError(f"cannot draw {count} random bytes")
        # The cipher asks for room for one more block than it writes.
        drawn = np.empty(count + _BLOCK_BYTES, dtype=np.uint8)
        room = drawn.data
        done = 0
        while done < count:
            if not self._left:
                self._rekey()
            size = min(count - done, _MAX_PIECE, self._left)
            self._encryptor.update_into(_ZEROS[:size], room[done : done + size + _BLOCK_BYTES])
            self._left -= size
            done += size
        return drawn[:count]

    def __repr__(self) -> str:
        return "KeyStream(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a KeyStream cannot be pickled or copied: the copy would repeat its noise")
