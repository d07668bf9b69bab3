"""A network of stock Lava processes that runs in closed loop. Runs in Lava's interpreter, under `runtime.worker.child`.

    open(entries, connections, populations, reads)  with the arrays of connections and bias_K: describe the network
    play(x: (block, n) integers)  one block: spikes of every population at each step, membranes as `reads` says
    rewind()                      back to the state before the first step

The description is what `targets.lava.engine_lava` makes of a plan. The network is built when it is first played, and
runs as one non-blocking run until it is rewound: its source waits for the next block.
"""

import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SHIM = bool(json.loads((Path(sys.prefix) / "nervecord.json").read_text())["shim"])
"""Whether this environment was made, with the explicit allowance, on a newer Python than Lava declares."""
sys.path[:0] = [str(HERE), str(HERE / "processes")]
if SHIM:
    import shim

    shim.apply()

import ends  # noqa: E402
import numpy as np  # noqa: E402
from deaths import LIVENESS, LavaDiedError, deaths_are_told  # noqa: E402
from lava.magma.core.run_conditions import RunSteps  # noqa: E402
from lava.magma.core.run_configs import Loihi2HwCfg, Loihi2SimCfg  # noqa: E402
from lava.proc.conv.process import Conv  # noqa: E402
from lava.proc.dense.process import DelayDense, Dense  # noqa: E402
from lava.proc.lif.process import LIF, LIFReset  # noqa: E402
from lava.proc.sdn.process import ActivationMode, Delta, Sigma, SigmaDelta  # noqa: E402
from lava.proc.sparse.process import DelaySparse, Sparse  # noqa: E402
from scipy.sparse import csr_matrix  # noqa: E402

MOST_STEPS = 2**31 - 1
"""Lava counts a run's steps in 32 bit."""
MESSAGE_BITS = 16
"""Of a graded spike."""


def run_config(backend: str) -> Any:
    """How Lava executes the network: "sim", or "loihi2".

    The second is a seam and untested: it needs Intel's closed package and a board, and source and sink would have to be
    joined to the chip through Lava's embedded input and output processes.
    """
    return {"sim": Loihi2SimCfg, "loihi2": Loihi2HwCfg}[backend](select_tag="fixed_pt")


class Wire:
    """A connection with its ends, whatever the shape of its ports.

    Args:
        takes: connects the output port of a source, flat. gives: the flat port that it gives to a population.
    """

    def __init__(self, takes: Any, gives: Any) -> None:
        self.takes = takes
        self.gives = gives


def _shared(described: Any) -> Any:
    return {
        "weight_exp": described["weight_exp"],
        "num_weight_bits": described["weight_bits"],
        "num_message_bits": MESSAGE_BITS if described["graded"] else 0,
    }


def dense(arrays: Any, described: Any) -> Wire:
    """A Dense; a DelayDense where a spike takes more than the one step that every connection costs."""
    weight, shared = arrays["weight"], _shared(described)
    if described["delay"] == 1:
        process = Dense(weights=weight, **shared)
    else:
        process = DelayDense(weights=weight, delays=np.full(weight.shape, described["delay"] - 1, dtype=int), **shared)
    return Wire(lambda port: port.connect(process.s_in), process.a_out)


def sparse(arrays: Any, described: Any) -> Wire:
    """A Sparse, or a DelaySparse."""
    shape = (described["outputs"], described["inputs"])
    weights = csr_matrix((arrays["values"], arrays["columns"], arrays["starts"]), shape=shape)
    weights.eliminate_zeros()
    shared = _shared(described)
    if described["delay"] == 1:
        process = Sparse(weights=weights, **shared)
    else:
        delays = weights.copy()
        delays.data = np.full(len(weights.data), described["delay"] - 1, dtype=int)
        process = DelaySparse(weights=weights, delays=delays, **shared)
    return Wire(lambda port: port.connect(process.s_in), process.a_out)


def conv(arrays: Any, described: Any) -> Wire:
    """A Conv between flat ports.

    Lava's pictures are (width, height, channels), and it convolves, so that the kernel is turned around.
    """
    channels, height, width = described["input_shape"]
    process = Conv(
        weight=np.ascontiguousarray(arrays["kernel"].transpose(0, 3, 2, 1)[:, ::-1, ::-1]),
        input_shape=(width, height, channels),
        groups=described["groups"],
        **{name: tuple(described[name][::-1]) for name in ("stride", "padding", "dilation")},
        **_shared(described),
    )
    return Wire(
        lambda port: port.reshape((channels, height, width)).transpose((2, 1, 0)).connect(process.s_in),
        process.a_out.transpose((2, 1, 0)).reshape((described["outputs"],)),
    )


CONNECTIONS = {"dense": dense, "sparse": sparse, "conv": conv}
"""Kind of connection -> what makes it of its arrays and description."""


def lif(bias: Any, described: Any) -> Any:
    """A LIF, or a LIFReset where its state is cleared."""
    shared = {
        "shape": bias.shape,
        "du": described["du"],
        "dv": described["dv"],
        "bias_mant": bias,
        "bias_exp": described["bias_exp"],
        "vth": described["threshold"],
    }
    if not described["reset_interval"]:
        return LIF(**shared)
    # Lava's first step has number 1, ours 0.
    offset = (described["reset_offset"] + 1) % described["reset_interval"]
    return LIFReset(reset_interval=described["reset_interval"], reset_offset=offset, **shared)


def sigma_delta(bias: Any, described: Any) -> Any:
    """A Delta, SigmaDelta or Sigma."""
    shared = {
        name: described[key]
        for name, key in (("vth", "threshold"), ("spike_exp", "spike_exp"), ("state_exp", "state_exp"))
        if key in described
    }
    if described["process"] == "SigmaDelta":
        shared.update(bias=bias, act_mode=ActivationMode[described["activation"].upper()])
    return {"Delta": Delta, "SigmaDelta": SigmaDelta, "Sigma": Sigma}[described["process"]](shape=bias.shape, **shared)


POPULATIONS = {"lif": lif, "Delta": sigma_delta, "SigmaDelta": sigma_delta, "Sigma": sigma_delta}
"""Kind of process -> what makes it of its bias and description."""


def _of(arrays: Any, k: int) -> Any:
    """The arrays of connection k, by name."""
    return {name: arrays[f"{name}_{k}"] for name in ARRAYS if f"{name}_{k}" in arrays}


ARRAYS = ("weight", "values", "columns", "starts", "kernel")


class Network:
    """A network that runs.

    Args:
        description: "entries": sizes. "connections": see `CONNECTIONS`, with their "process" and "outputs", and
            "sources", each ["entry" or "population", its number]. "populations": see `POPULATIONS`, with its "process"
            and "size", "incoming", numbers of connections, whether it "sends", and the variable that is "shown" as its
            membrane. "reads": for every step of a block the numbers of the populations whose membranes are read.
    """

    def __init__(self, description: Any, arrays: Any, backend: str) -> None:
        source_theirs, self.request = multiprocessing.Pipe(duplex=False)
        self.answer, sink_theirs = multiprocessing.Pipe(duplex=False)
        entries = description["entries"]
        self.source = ends.source_type(len(entries))(sizes=entries, connection=source_theirs)
        connections = [CONNECTIONS[c["process"]](_of(arrays, k), c) for k, c in enumerate(description["connections"])]
        populations = [
            POPULATIONS[described["process"]](arrays[f"bias_{k}"], described)
            for k, described in enumerate(description["populations"])
        ]
        for built, described in zip(connections, description["connections"]):  # noqa: B905 - as old as Python 3.10
            for kind, k in described["sources"]:
                port = getattr(self.source, f"s_out_{k}") if kind == "entry" else populations[k].s_out
                built.takes(port)
        for built, described in zip(populations, description["populations"]):  # noqa: B905
            for k in described["incoming"]:
                connections[k].gives.connect(built.a_in)
        read = sorted({k for row in description["reads"] for k in row})
        spiking = [k for k, described in enumerate(description["populations"]) if described["sends"]]
        self.sink = ends.sink_type(len(spiking), len(read))(
            spikes=[populations[k].s_out.shape[0] for k in spiking],
            membranes=[populations[k].s_out.shape[0] for k in read],
            reads=[[read.index(k) for k in row] for row in description["reads"]],
            connection=sink_theirs,
        )
        for k, number in enumerate(spiking):
            populations[number].s_out.connect(getattr(self.sink, f"s_in_{k}"))
        shown = [described["shown"] for described in description["populations"]]
        for k, number in enumerate(read):
            getattr(self.sink, f"v_{k}").connect_var(getattr(populations[number], shown[number]))
        with deaths_are_told(self._started):
            self.source.run(condition=RunSteps(num_steps=MOST_STEPS, blocking=False), run_cfg=run_config(backend))

    def play(self, x: Any) -> bytes:
        """One block."""
        self.request.send_bytes(np.ascontiguousarray(x, dtype=np.int32).tobytes())
        while not self.answer.poll(LIVENESS):
            dead = [actor.name for actor in self.actors if not actor.is_alive()]
            if dead:
                raise LavaDiedError(f"{len(dead)} of Lava's {len(self.actors)} processes ended")
        return self.answer.recv_bytes()

    @property
    def actors(self) -> Any:
        """Lava's operating system processes."""
        return list(self.source.runtime._messaging_infrastructure.actors)

    def _started(self) -> Any:
        """Those of them that Lava has started so far."""
        infrastructure = getattr(self.source.runtime, "_messaging_infrastructure", None)
        return [] if infrastructure is None else list(infrastructure.actors)

    def stop(self) -> None:
        """Let Lava end in order."""
        self.request.send_bytes(b"")
        self.source.wait()
        for connection in (self.request, self.answer):
            connection.close()


class Handler:
    """See the module. One network at a time."""

    def __init__(self, options: Any) -> None:
        self.backend = options.get("backend", "sim")
        self.network: Any = None
        self.described: Any = None

    def info(self) -> Any:
        """Versions."""
        from importlib.metadata import version

        return {"lava": version("lava-nc"), "shim": SHIM}

    def open(self, values: Any, arrays: Any) -> None:
        """Describe a network; the one before is stopped."""
        self.rewind({}, {})
        self.described = (values, arrays)
        self.width = sum(p["size"] for p in values["populations"] if p["sends"])

    def play(self, values: Any, arrays: Any) -> Any:
        """One block."""
        if self.network is None:
            self.network = Network(*self.described, self.backend)
        block = np.frombuffer(self.network.play(arrays["x"]), dtype=np.int32)
        steps = len(self.described[0]["reads"])
        size = steps * self.width
        return {}, {"spikes": block[:size].reshape(steps, self.width), "membranes": block[size:]}

    def rewind(self, values: Any, arrays: Any) -> None:
        """Stop what runs; the next block starts from the beginning."""
        if self.network is not None:
            self.network.stop()
            self.network = None

    def processes(self, values: Any, arrays: Any) -> Any:
        """Numbers of Lava's operating system processes; for the tests of what a fault leaves behind."""
        return {"pids": [actor.pid for actor in self.network.actors] if self.network else []}, {}

    def close(self) -> None:
        """Stop what runs."""
        self.rewind({}, {})
