"""The two ends of the network inside Lava: values enter by a pipe, spikes and membranes leave by one.

In a folder of its own, because Lava executes every file in the folder of a Process's class. Runs in Lava's interpreter.

Source: takes a block of int32 (steps, all entries side by side) from its pipe and sends one row at each step, to every
entry its part; with none at hand it waits, and with it the whole network. An empty block asks Lava to stop after this
step.

Sink: records the spikes of the populations it is connected to at each step, and the membranes it refers to at the steps
it was told, read in the management phase after all neurons have been updated. Gives a block's record as int32: spikes
(block, populations side by side), then the membranes in the order in which they were read.
"""

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort, PyRefPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort, RefPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol


class Source(AbstractProcess):
    """Base of the sources; `source_type` makes the one with the right number of ports, which Lava wants as attributes.

    Args:
        sizes: of the entries, one port s_out_K each.
    """

    def __init__(self, *, sizes: Any, connection: Any) -> None:
        super().__init__(sizes=sizes, connection=connection)
        for k, size in enumerate(sizes):
            setattr(self, f"s_out_{k}", OutPort(shape=(size,)))


class SourceModel(PyLoihiProcessModel):
    """See the module."""

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.connection = proc_params["connection"]
        self.cuts = np.cumsum([0, *proc_params["sizes"]])
        self.rows = np.zeros((0, int(self.cuts[-1])), dtype=np.int32)
        self.at = 0

    def run_spk(self) -> None:
        """One step."""
        width = int(self.cuts[-1])
        row = np.zeros(width, dtype=np.int32)
        if self.at == len(self.rows):
            block = self.connection.recv_bytes()
            self.rows, self.at = np.frombuffer(block, dtype=np.int32).reshape(-1, width), 0
            if not block:
                self._req_stop = True
        if len(self.rows):
            row = self.rows[self.at]
            self.at += 1
        for k in range(len(self.cuts) - 1):
            getattr(self, f"s_out_{k}").send(row[self.cuts[k] : self.cuts[k + 1]])


class Sink(AbstractProcess):
    """Base of the sinks; `sink_type` makes the one with the right number of ports.

    Args:
        spikes: sizes of the populations whose spikes are recorded, one port s_in_K each.
        membranes: sizes of those whose membranes are read, one reference v_K each.
        reads: for every step of a block the numbers of the references read in it.
    """

    def __init__(self, *, spikes: Any, membranes: Any, reads: Any, connection: Any) -> None:
        super().__init__(spikes=spikes, membranes=membranes, reads=reads, connection=connection)
        for k, size in enumerate(spikes):
            setattr(self, f"s_in_{k}", InPort(shape=(size,)))
        for k, size in enumerate(membranes):
            setattr(self, f"v_{k}", RefPort(shape=(size,)))


class SinkModel(PyLoihiProcessModel):
    """See the module."""

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.connection = proc_params["connection"]
        self.reads = proc_params["reads"]
        self.ports = len(proc_params["spikes"])
        self.spikes = np.zeros((len(self.reads), sum(proc_params["spikes"])), dtype=np.int32)
        self.membranes: Any = []

    @property
    def step(self) -> int:
        """Number of this step in its block; Lava's first has number 1."""
        return (self.time_step - 1) % len(self.reads)

    def run_spk(self) -> None:
        """One step's spikes."""
        row = [getattr(self, f"s_in_{k}").recv() for k in range(self.ports)]
        if row:
            self.spikes[self.step] = np.concatenate(row)
        if not self.reads[self.step]:
            self._give()

    def post_guard(self) -> bool:
        """Whether this step has a management phase."""
        return bool(self.reads[self.step])

    def run_post_mgmt(self) -> None:
        """One step's membranes."""
        for k in self.reads[self.step]:
            self.membranes.append(np.asarray(getattr(self, f"v_{k}").read(), dtype=np.int32))
        self._give()

    def _give(self) -> None:
        if self.step == len(self.reads) - 1:
            self.connection.send_bytes(self.spikes.tobytes() + b"".join(v.tobytes() for v in self.membranes))
            self.membranes = []


def _made(name: str, process: Any, model: Any, ports: Any) -> Any:
    """A Process class of this name with its model. Lava finds the model in this module's namespace."""
    if name not in globals():
        globals()[name] = type(name, (process,), {"__module__": __name__})
        made = type(f"Py{name}Model", (model,), {"__module__": __name__, **ports})
        implemented = implements(proc=globals()[name], protocol=LoihiProtocol)(made)
        globals()[made.__name__] = tag("fixed_pt")(requires(CPU)(implemented))
    return globals()[name]


def source_type(entries: int) -> Any:
    """The Source with this many output ports."""
    ports = {f"s_out_{k}": LavaPyType(PyOutPort.VEC_DENSE, np.int32) for k in range(entries)}
    return _made(f"Source{entries}", Source, SourceModel, ports)


def sink_type(spikes: int, membranes: int) -> Any:
    """The Sink with this many input ports and references."""
    ports = {f"s_in_{k}": LavaPyType(PyInPort.VEC_DENSE, np.int32) for k in range(spikes)}
    ports.update({f"v_{k}": LavaPyType(PyRefPort.VEC_DENSE, np.int32) for k in range(membranes)})
    return _made(f"Sink{spikes}x{membranes}", Sink, SinkModel, ports)
