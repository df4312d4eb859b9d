"""Bytes in memory, read strictly: a short read is an error, never a shorter answer."""

from __future__ import annotations


class Reader:
    """A file-like object over `content`.

    Parameters
    ----------
    content : bytes

    Attributes
    ----------
    position : int
        Bytes read so far.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.position = 0

    @property
    def remaining(self) -> int:
        """Bytes not yet read."""
        return len(self._content) - self.position

    def read(self, size: int, /) -> bytes:
        """Exactly `size` bytes.

        Raises
        ------
        EOFError
            When there are fewer.
        """
        start = self.position
        self.skip(size)
        return self._content[start : self.position]

    def readline(self) -> bytes:
        """Bytes up to and with the next line feed.

        Raises
        ------
        EOFError
            When there is none.
        """
        end = self._content.find(b"\n", self.position)
        if end < 0:
            raise EOFError("the file ends inside a line")
        return self.read(end + 1 - self.position)

    def skip(self, size: int) -> None:
        """Step over `size` bytes without copying them.

        Raises
        ------
        EOFError
            When there are fewer.
        """
        if size < 0 or size > self.remaining:
            raise EOFError(f"{size} bytes are announced and {self.remaining} are left")
        self.position += size
