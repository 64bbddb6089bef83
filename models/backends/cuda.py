"""The few calls of the CUDA driver that running an engine takes, through its C library: no package needed."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import byref, c_char, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p

import numpy as np

from models.session import FloatArray

# cuda.h: CUdevice_attribute, and a stream that does not wait for the default one.
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
_NON_BLOCKING = 1


class CudaError(Exception):
    """What the driver says, in its own words."""


class CudaDevice:
    """The first NVIDIA GPU, its primary context and one stream of its own.

    Raises
    ------
    CudaError
        If there is no driver or no GPU.
    """

    def __init__(self) -> None:
        try:
            self._driver = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise CudaError("no NVIDIA driver (libcuda.so.1)") from error
        self._call("cuInit", c_uint(0))
        device, context, stream = c_int(), c_void_p(), c_void_p()
        self._call("cuDeviceGet", byref(device), c_int(0))
        name = (c_char * 256)()
        self._call("cuDeviceGetName", name, c_int(256), device)
        major, minor = c_int(), c_int()
        self._call("cuDeviceGetAttribute", byref(major), c_int(_CAPABILITY_MAJOR), device)
        self._call("cuDeviceGetAttribute", byref(minor), c_int(_CAPABILITY_MINOR), device)
        self.name = f"{name.value.decode()} (SM {major.value}.{minor.value})"
        # The primary context is the one that the library's runtime uses too.
        self._call("cuDevicePrimaryCtxRetain", byref(context), device)
        self._call("cuCtxSetCurrent", context)
        self._context = context
        self._call("cuStreamCreate", byref(stream), c_uint(_NON_BLOCKING))
        self._stream = stream

    @property
    def stream(self) -> int:
        """Handle of the stream."""
        return self._stream.value or 0

    def enter(self) -> None:
        """Make the context that of the calling thread: a session may be loaded in one and run in another."""
        self._call("cuCtxSetCurrent", self._context)

    def pinned(self, shape: Sequence[int]) -> FloatArray:
        """Return zeros in page-locked memory of the host, which copies to and from the GPU need not stage."""
        count = int(np.prod(shape))
        pointer = c_void_p()
        self._call("cuMemHostAlloc", byref(pointer), c_size_t(4 * count), c_uint(0))
        array = np.ctypeslib.as_array((ctypes.c_float * count).from_address(pointer.value or 0))
        array[:] = 0
        return array.reshape(shape)

    def allocate(self, size: int) -> int:
        """Return the address of `size` bytes on the GPU; they are the process's until it ends."""
        pointer = c_uint64()
        self._call("cuMemAlloc_v2", byref(pointer), c_size_t(size))
        return pointer.value

    def to_device(self, target: int, source: FloatArray) -> None:
        """Queue a copy of contiguous, page-locked memory to the GPU."""
        self._call(
            "cuMemcpyHtoDAsync_v2",
            c_uint64(target),
            c_void_p(source.ctypes.data),
            c_size_t(source.nbytes),
            self._stream,
        )

    def to_host(self, target: FloatArray, source: int) -> None:
        """Queue a copy from the GPU to contiguous, page-locked memory."""
        self._call(
            "cuMemcpyDtoHAsync_v2",
            c_void_p(target.ctypes.data),
            c_uint64(source),
            c_size_t(target.nbytes),
            self._stream,
        )

    def wait(self) -> None:
        """Wait until everything queued is done."""
        self._call("cuStreamSynchronize", self._stream)

    def _call(self, function: str, *arguments: object) -> None:
        status = getattr(self._driver, function)(*arguments)
        if status:
            name, text = c_char_p(), c_char_p()
            self._driver.cuGetErrorName(c_int(status), byref(name))
            self._driver.cuGetErrorString(c_int(status), byref(text))
            said = [part.value.decode() for part in (name, text) if part.value]
            raise CudaError(f"{function}: {', '.join(said) or status}")
