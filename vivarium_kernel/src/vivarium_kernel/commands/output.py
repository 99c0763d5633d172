"""The room of output: what is kept of one stream of a command."""


class Output:
    """Keeps the first half and the last half of a byte limit; what came between is only counted."""

    def __init__(self, limit_bytes: int) -> None:
        self._head_limit = limit_bytes - limit_bytes // 2
        self._tail_limit = limit_bytes // 2
        self._head = bytearray()
        self._tail = bytearray()
        self._seen = 0

    def add(self, chunk: bytes) -> None:
        self._seen += len(chunk)
        room = self._head_limit - len(self._head)
        if room > 0:
            self._head += chunk[:room]
            chunk = chunk[room:]
        self._tail += chunk
        if len(self._tail) > 4 * self._tail_limit + 65536:
            self._trim()

    @property
    def truncated(self) -> bool:
        return self._seen > self._head_limit + self._tail_limit

    def text(self) -> str:
        """As UTF-8, bytes that are none replaced; where bytes are missing a line says how many and what is kept."""
        self._trim()
        if not self.truncated:
            return (self._head + self._tail).decode(errors="replace")
        head, tail = _whole_to_the_end(bytes(self._head)), _whole_from_the_start(bytes(self._tail))
        missing = self._seen - len(head) - len(tail)
        mark = f"[truncated: {missing:,} bytes more; the first {len(head):,} and the last {len(tail):,} are kept]"
        return f"{head.decode(errors='replace')}\n{mark}\n{tail.decode(errors='replace')}"

    def _trim(self) -> None:
        del self._tail[: max(len(self._tail) - self._tail_limit, 0)]


def _whole_to_the_end(data: bytes) -> bytes:
    """Without the first bytes of a character whose rest was cut off."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return data[:-back] if back < needed else data
        if byte < 0x80:
            break
    return data


def _whole_from_the_start(data: bytes) -> bytes:
    """Without the last bytes of a character whose start was cut off."""
    start = 0
    while start < min(3, len(data)) and 0x80 <= data[start] < 0xC0:
        start += 1
    return data[start:]
