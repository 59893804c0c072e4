"""The few calls of the CUDA driver that copies and a stream need; it comes with the graphics driver."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy.typing as npt

from graphprune.errors import DeviceError

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


class Card:
    """The first visible NVIDIA card: its primary context, a stream, memory that is freed by :meth:`close`.

    Raises:
        DeviceError: there is no driver, or no card.
    """

    def __init__(self) -> None:
        try:
            self._cuda = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            what = "there is no NVIDIA driver"
            raise DeviceError(what, because=str(error), hint="NVIDIA's driver, and a card") from error
        self._call("cuInit", ctypes.c_uint(0))
        device, self._context, stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)
        self._call("cuCtxSetCurrent", self._context)
        self._call("cuStreamCreate", ctypes.byref(stream), ctypes.c_uint(0))
        self.stream = int(stream.value or 0)
        self._taken: list[int] = []

    def allocate(self, size: int) -> int:
        """The address of so many bytes on the card."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(size, 1)))
        self._taken.append(address.value)
        return address.value

    def upload(self, address: int, array: npt.NDArray[Any]) -> None:
        """Copies an array to the card, in the stream."""
        host = ctypes.c_void_p(array.ctypes.data)
        size, stream = ctypes.c_size_t(array.nbytes), ctypes.c_void_p(self.stream)
        self._call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), host, size, stream)

    def download(self, array: npt.NDArray[Any], address: int) -> None:
        """Copies from the card into an array, in the stream."""
        host = ctypes.c_void_p(array.ctypes.data)
        size, stream = ctypes.c_size_t(array.nbytes), ctypes.c_void_p(self.stream)
        self._call("cuMemcpyDtoHAsync_v2", host, ctypes.c_uint64(address), size, stream)

    def wait(self) -> None:
        """Until everything in the stream is done."""
        self._call("cuStreamSynchronize", ctypes.c_void_p(self.stream))

    def used(self) -> int:
        """Bytes in use on the card, by all."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return total.value - free.value

    def close(self) -> None:
        """Frees what was allocated."""
        for address in self._taken:
            self._call("cuMemFree_v2", ctypes.c_uint64(address))
        self._taken.clear()

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._cuda, name)(*arguments)
        if status != 0:
            text = ctypes.c_char_p()
            self._cuda.cuGetErrorString(ctypes.c_int(status), ctypes.byref(text))
            what = f"the NVIDIA driver fails in {name}"
            reason = (text.value or b"").decode() or f"error {status}"
            raise DeviceError(what, because=reason, hint="nvidia-smi says whether a card is there")
