"""Reads the bits of a codec's headers, the first one highest."""

from .errors import Unreadable


class Bits:
    """Raises Unreadable behind the end."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def read(self, count: int) -> int:
        """The next `count` bits, as a number."""
        self._left -= count
        if self._left < 0:
            raise Unreadable("The picture's coded header is too short.")
        return self._value >> self._left & ((1 << count) - 1)

    def exponential(self) -> int:
        """An unsigned Exp-Golomb number (ITU-T H.265, 9.2), which AV1 calls uvlc."""
        zeros = 0
        while not self.read(1):
            zeros += 1
            if zeros > 31:
                raise Unreadable("The picture's coded header has an impossible number.")
        return (1 << zeros) - 1 + self.read(zeros)
