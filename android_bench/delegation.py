"""What really ran: which delegate took how much of the model, and with what behind it.

A delegate that was asked for may take all of the model, a part, or nothing; the GPU's may fall back
from OpenCL to OpenGL; NNAPI may have nothing but `nnapi-reference`, which is the CPU. All of it
stands in the log only.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Optional

from android_bench.profile_table import ParseError

_APPLIED = re.compile(
    r"(?:Explicitly applied|Applied) (?P<name>\S+) delegate"
    r"(?:, and the model graph will be (?P<extent>completely|partially) executed (?:by|w/|with)"
    r" the delegate(?: w/ \d+ delegate kernels)?)?\."
)
_NOT_EXECUTED = re.compile(
    r"Though (?P<name>\S+) delegate is explicitly applied,"
    r" the model graph will not be executed by the delegate\."
)
_REPLACED = re.compile(
    r"Replacing (?P<some>\d+) out of (?P<all>\d+) node\(s\) with delegate \((?P<name>[^)]+)\) node"
)
_REPLACING_DELEGATES = {
    "TfLiteXNNPackDelegate": "XNNPACK",
    "TfLiteGpuDelegateV2": "GPU",
    "TfLiteNnapiDelegate": "NNAPI",
}
_EXTENTS = {"completely": "complete", "partially": "partial", None: "unstated"}
_ACCELERATORS = re.compile(r"NNAPI accelerators available: \[(?P<names>[^\]]*)\]")
_ACCELERATOR = re.compile(r"NNAPI accelerator name: \[(?P<name>[^\]]*)\]")
_GPU_API = re.compile(r"Initialized (?P<api>OpenCL|OpenGL|Vulkan|WebGPU)-based API")
_FALL_BACK = re.compile(r"Falling back to (?P<api>\S+?)\.?$")

# The accelerator that is NNAPI's own reference implementation on the CPU.
NNAPI_REFERENCE = "nnapi-reference"


@dataclasses.dataclass(frozen=True)
class Delegation:
    """What became of a delegate.

    Attributes:
      delegate: Its name as logged, in upper case: "XNNPACK", "GPU", "NNAPI", "EXTERNAL".
      extent: "complete", "partial", "none", or "unstated" (TensorFlow before 2.2).
      nodes: How many nodes it took; None if the log does not say, as for the next.
      of_nodes: Of how many.
    """

    delegate: str
    extent: str
    nodes: Optional[int] = None
    of_nodes: Optional[int] = None


@dataclasses.dataclass(frozen=True)
class Execution:
    """What the log says about where the model ran.

    Attributes:
      delegations: In the order of the log; a delegate once, with its last word.
      gpu_api: What the GPU's delegate computes with, e.g. "OpenCL"; None if not said.
      gpu_wanted: What it tried before; None if nothing else.
      accelerators: What NNAPI had to offer; None if not said.
      accelerator: Which one was asked for; None if none was.
    """

    delegations: tuple[Delegation, ...] = ()
    gpu_api: Optional[str] = None
    gpu_wanted: Optional[str] = None
    accelerators: Optional[tuple[str, ...]] = None
    accelerator: Optional[str] = None

    @property
    def only_reference(self) -> bool:
        """Whether all that NNAPI could use was its reference implementation, the CPU."""
        usable = (self.accelerator,) if self.accelerator else self.accelerators
        return bool(usable) and set(usable) == {NNAPI_REFERENCE}

    def taken(self) -> list[Delegation]:
        """Returns the delegates that took something."""
        return [d for d in self.delegations if d.extent != "none"]

    def __str__(self) -> str:
        """E.g. "GPU (OpenGL, because OpenCL failed), 31 of 31 nodes"; "CPU" without delegates."""
        return " + ".join(map(self._describe, self.taken())) or "CPU"

    def _describe(self, delegation: Delegation) -> str:
        inner = ""
        if delegation.delegate == "GPU" and self.gpu_api:
            inner = self.gpu_api
            if self.gpu_wanted:
                inner += f", because {self.gpu_wanted} failed"
        elif delegation.delegate == "NNAPI" and (self.accelerator or self.accelerators):
            inner = self.accelerator or ", ".join(self.accelerators)
        text = f"{delegation.delegate} ({inner})" if inner else delegation.delegate
        if delegation.nodes is not None:
            return f"{text}, {delegation.nodes} of {delegation.of_nodes} nodes"
        extents = {"complete": ", all", "partial": ", a part"}
        return text + extents.get(delegation.extent, "")


class ExecutionReader:
    """Collects the lines of one run."""

    def __init__(self) -> None:
        """Knows nothing yet."""
        self._delegations: dict[str, Delegation] = {}
        self._gpu_api: Optional[str] = None
        self._gpu_wanted: Optional[str] = None
        self._accelerators: Optional[tuple[str, ...]] = None
        self._accelerator: Optional[str] = None

    def read(self, number: int, message: str) -> bool:
        """Returns whether the line is about delegates.

        Raises:
          ParseError: If it is, but in no known format.
        """
        if message.startswith(("Applied ", "Explicitly applied ")):
            match = _fully(_APPLIED, number, message)
            self._add(match["name"].upper(), _EXTENTS[match["extent"]])
        elif message.startswith("Though "):
            self._add(_fully(_NOT_EXECUTED, number, message)["name"].upper(), "none")
        elif message.startswith("Replacing "):
            self._read_replaced(number, message)
        elif match := _ACCELERATORS.match(message):
            names = match["names"].split(",")
            self._accelerators = tuple(name for name in map(str.strip, names) if name)
        elif match := _ACCELERATOR.match(message):
            self._accelerator = match["name"] or None
        elif match := _GPU_API.match(message):
            self._gpu_api = match["api"]
        elif match := _FALL_BACK.search(message):
            self._gpu_api, self._gpu_wanted = match["api"], self._gpu_api or "OpenCL"
        else:
            return False
        return True

    def finish(self) -> Execution:
        """Returns what was read."""
        return Execution(
            tuple(self._delegations.values()),
            self._gpu_api,
            self._gpu_wanted if self._gpu_wanted != self._gpu_api else None,
            self._accelerators,
            self._accelerator,
        )

    def _read_replaced(self, number: int, message: str) -> None:
        match = _REPLACED.match(message)
        if not match:
            raise ParseError(number, message, "not a known format of this line")
        name = _REPLACING_DELEGATES.get(match["name"], match["name"].upper())
        extent = "complete" if match["some"] == match["all"] else "partial"
        known = self._delegations.get(name)
        some, every = int(match["some"]), int(match["all"])
        if known and known.nodes is not None:
            # One line a subgraph.
            some, every = some + known.nodes, every + known.of_nodes
            extent = "complete" if some == every else "partial"
        self._delegations[name] = Delegation(name, extent, some, every)

    def _add(self, name: str, extent: str) -> None:
        known = self._delegations.get(name)
        # "Replacing" may have told the share before; it knows better than "unstated".
        if known and extent == "unstated":
            return
        nodes = (known.nodes, known.of_nodes) if known else (None, None)
        self._delegations[name] = Delegation(name, extent, *nodes)


def _fully(pattern: re.Pattern[str], number: int, message: str) -> re.Match[str]:
    match = pattern.fullmatch(message)
    if not match:
        raise ParseError(number, message, "not a known format of this line")
    return match
