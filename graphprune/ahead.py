"""Work that is done ahead of its use, by a few threads: the results come in order, and few of them wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
#: Results that wait at most, and threads.
_WAITING, _THREADS = 3, 2


def ahead(works: Iterable[Callable[[], Item]]) -> Iterator[Item]:
    """What each of these returns, in order."""
    with ThreadPoolExecutor(_THREADS) as pool:
        waiting: deque[Future[Item]] = deque()
        for work in works:
            waiting.append(pool.submit(work))
            if len(waiting) > _WAITING:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
