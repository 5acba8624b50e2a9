# SPDX-License-Identifier: Apache-2.0
"""Where kernels run: a CUDA device, or this processor in Triton's interpreter. Streams and events of either."""

from __future__ import annotations

import importlib
import importlib.util
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from codesign.errors import InputError

if TYPE_CHECKING:
    import torch

INTERPRET = "TRITON_INTERPRET"
"""Set to 1, kernels run on the processor, slowly, in NumPy."""
_REMEDY = f"run on a machine with an NVIDIA GPU and torch built for CUDA, or set {INTERPRET}=1 (slow, on the processor)"


@dataclass(frozen=True)
class Device:
    """A place for tensors and kernels. `name` is for reports."""

    name: str
    interpreted: bool
    library: Any = field(repr=False)
    """The module torch."""

    @property
    def place(self) -> str:
        """What torch calls it."""
        return "cpu" if self.interpreted else "cuda"

    def tensor(self, values: npt.NDArray[Any]) -> torch.Tensor:
        """A copy of the values on the device; a copy from pageable memory, which waits."""
        made: torch.Tensor = self.library.from_numpy(np.array(values)).to(self.place)
        return made

    def upload(self, values: npt.NDArray[Any]) -> torch.Tensor:
        """As `tensor`, for small arrays in the middle of a computation: the processor does not wait."""
        host = self.library.from_numpy(np.array(values))
        made: torch.Tensor = host if self.interpreted else host.pin_memory().to(self.place, non_blocking=True)
        return made

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """A tensor of no particular values."""
        made: torch.Tensor = self.library.empty(shape, dtype=dtype, device=self.place)
        return made

    def full(self, shape: tuple[int, ...], value: int, dtype: torch.dtype) -> torch.Tensor:
        """A tensor of one value."""
        made: torch.Tensor = self.library.full(shape, value, dtype=dtype, device=self.place)
        return made

    def host_bytes(self, size: int) -> torch.Tensor:
        """`size` bytes of host memory that the device reads by itself (page-locked). Raises InputError without room."""
        try:
            made: torch.Tensor = self.library.empty(size, dtype=self.library.uint8, pin_memory=not self.interpreted)
        except RuntimeError:
            raise InputError(f"host memory must hold {size} page-locked bytes, and it does not; free memory") from None
        return made

    def device_bytes(self, size: int) -> torch.Tensor:
        """`size` bytes on the device. Raises InputError without room."""
        try:
            return self.empty((size,), self.library.uint8)
        except RuntimeError:
            raise InputError(f"device {self.name} must have {size} bytes free, and it has not; lower it") from None

    def stream(self) -> Stream:
        """A stream beside the one that computes."""
        return Stream(self, None if self.interpreted else self.library.cuda.Stream())

    def computing(self) -> Stream:
        """The stream that kernels run on."""
        return Stream(self, None if self.interpreted else self.library.cuda.current_stream())

    def synchronize(self) -> None:
        """Wait until everything is done."""
        if not self.interpreted:
            self.library.cuda.synchronize()


@dataclass(frozen=True)
class Mark:
    """A point in a stream's work: an event, or, where nothing runs by itself, the nanoseconds when it was passed."""

    event: Any
    nanoseconds: int

    def since(self, other: Mark) -> int:
        """Nanoseconds from another mark to this one. Both must have been reached."""
        if self.event is None:
            return self.nanoseconds - other.nanoseconds
        return round(float(other.event.elapsed_time(self.event)) * 1e6)


@dataclass(frozen=True)
class Stream:
    """Work in order. In the interpreter everything is done at once, in the order of the calls."""

    device: Device
    native: Any

    def mark(self) -> Mark:
        """The point behind everything asked for so far."""
        if self.native is None:
            return Mark(None, time.monotonic_ns())
        event = self.device.library.cuda.Event(enable_timing=True)
        event.record(self.native)
        return Mark(event, 0)

    def wait(self, mark: Mark | None) -> None:
        """What is asked for from now on begins behind that point, of whatever stream."""
        if self.native is not None and mark is not None:
            self.native.wait_event(mark.event)

    def copy(self, to: torch.Tensor, source: torch.Tensor) -> None:
        """Copy page-locked host memory to the device."""
        if self.native is None:
            to.copy_(source)
        else:
            with self.device.library.cuda.stream(self.native):
                to.copy_(source, non_blocking=True)


def open_device() -> Device:
    """The CUDA device; with TRITON_INTERPRET=1 this processor.

    Raises InputError when torch or Triton are missing, and when there is neither a device nor that setting.
    """
    for package in ("torch", "triton"):
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"a GPU's kernels must have torch and triton, and {package} is missing; pip install codesign[gpu]"
            )
    torch = importlib.import_module("torch")
    if os.environ.get(INTERPRET, "0").lower() in ("1", "true", "on", "yes", "y"):
        device = Device("Triton's interpreter on the processor", True, torch)
    elif torch.cuda.is_available():
        device = Device(str(torch.cuda.get_device_name()), False, torch)
    else:
        raise InputError(
            f"a GPU's kernels must have a CUDA device, and torch {torch.__version__} finds none; {_REMEDY}"
        )
    if device.interpreted != importlib.import_module("codesign.kernels.gpu.code.rows").INTERPRETED:
        raise InputError(f"{INTERPRET} must be set before Triton is imported, and stay; start the program again")
    return device
