"""The two ends of the network inside Lava: observations enter by a pipe, spikes and membranes leave by one.

In a folder of its own, because Lava executes every file in the folder of a Process's class. Runs in Lava's interpreter.

Source: takes a block of int32 (steps, n) from its pipe and sends one row at each step; with none at hand it waits, and
with it the whole network. An empty block asks Lava to stop after this step.

Sink: records the spikes of every neuron layer it is connected to at each step, and the membranes it refers to, read in
the management phase after all neurons have been updated: at each step, or in the last step of each window only. Gives a
window's record as one block of int32: (window, spikes), then (window or 1, membranes).
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
    """Sends (n,) graded integers or spikes at each step."""

    def __init__(self, *, size: int, connection: Any) -> None:
        super().__init__(connection=connection)
        self.s_out = OutPort(shape=(size,))


@implements(proc=Source, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PySourceModel(PyLoihiProcessModel):
    """See the module."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.connection = proc_params["connection"]
        self.rows = np.zeros((0, 0), dtype=np.int32)
        self.at = 0

    def run_spk(self) -> None:
        """One step."""
        size = self.s_out.shape[0]
        if self.at == len(self.rows):
            block = self.connection.recv_bytes()
            self.rows, self.at = np.frombuffer(block, dtype=np.int32).reshape(-1, size), 0
            if not block:
                self._req_stop = True
                self.s_out.send(np.zeros(size, dtype=np.int32))
                return
        self.s_out.send(self.rows[self.at])
        self.at += 1


class Sink(AbstractProcess):
    """Base of the sinks; `sink_type` makes the one with the right number of ports, which Lava wants as attributes."""

    SPIKES = 0
    MEMBRANES = 0

    def __init__(self, *, spikes: Any, membranes: Any, window: int, every_step: bool, connection: Any) -> None:
        super().__init__(
            spikes=spikes, membranes=membranes, window=window, every_step=every_step, connection=connection
        )
        for k, size in enumerate(spikes):
            setattr(self, f"s_in_{k}", InPort(shape=(size,)))
        for k, size in enumerate(membranes):
            setattr(self, f"v_{k}", RefPort(shape=(size,)))


class SinkModel(PyLoihiProcessModel):
    """See the module."""

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.connection = proc_params["connection"]
        self.window = proc_params["window"]
        self.every_step = proc_params["every_step"]
        self.spike_ports = len(proc_params["spikes"])
        self.membrane_ports = len(proc_params["membranes"])
        kept = self.window if self.every_step else 1
        self.spikes = np.zeros((self.window, sum(proc_params["spikes"])), dtype=np.int32)
        self.membranes = np.zeros((kept, sum(proc_params["membranes"])), dtype=np.int32)

    def run_spk(self) -> None:
        """One step's spikes."""
        if self.spike_ports:
            row = [getattr(self, f"s_in_{k}").recv() for k in range(self.spike_ports)]
            self.spikes[(self.time_step - 1) % self.window] = np.concatenate(row)
        if not self.membrane_ports:
            self._give()

    def post_guard(self) -> bool:
        """Whether this step has a management phase."""
        return bool(self.membrane_ports) and (self.every_step or self.time_step % self.window == 0)

    def run_post_mgmt(self) -> None:
        """One step's membranes."""
        row = [getattr(self, f"v_{k}").read() for k in range(self.membrane_ports)]
        self.membranes[(self.time_step - 1) % self.window if self.every_step else 0] = np.concatenate(row)
        self._give()

    def _give(self) -> None:
        if self.time_step % self.window == 0:
            self.connection.send_bytes(self.spikes.tobytes() + self.membranes.tobytes())


def sink_type(spikes: int, membranes: int) -> Any:
    """The Sink with this many input ports and references. Lava finds its model in this module's namespace."""
    name = f"Sink{spikes}x{membranes}"
    if name not in globals():
        process = type(name, (Sink,), {"__module__": __name__})
        ports = {f"s_in_{k}": LavaPyType(PyInPort.VEC_DENSE, np.int32) for k in range(spikes)}
        ports.update({f"v_{k}": LavaPyType(PyRefPort.VEC_DENSE, np.int32) for k in range(membranes)})
        model = type(f"Py{name}Model", (SinkModel,), {"__module__": __name__, **ports})
        globals()[name] = process
        globals()[model.__name__] = tag("fixed_pt")(
            requires(CPU)(implements(proc=process, protocol=LoihiProtocol)(model))
        )
    return globals()[name]
