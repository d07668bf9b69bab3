"""A chain of stock Lava processes that runs in closed loop. Runs in Lava's interpreter, under `runtime.worker_child`.

    open(layers, window, every_step)  with arrays weight_K, bias_K: describe the network
    play(x: (window, n) integers)     one window: spikes of every layer at each step, membranes at each step or the last
    rewind()                          back to the state before the first step

A layer is the dictionary that `targets.lava.engine_lava` makes of a connection and its neurons. The network is built
when it is first played, and runs as one non-blocking run until it is rewound: its source waits for the next window.
"""

import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SHIM = bool(json.loads((Path(sys.prefix) / "nervecord.json").read_text())["shim"])
"""Whether this environment was made, with the explicit allowance, on a newer Python than Lava declares."""
if SHIM:
    sys.path.insert(0, str(HERE))
    import shim

    shim.apply()
sys.path.insert(0, str(HERE / "processes"))

import ends  # noqa: E402
import numpy as np  # noqa: E402
from lava.magma.core.run_conditions import RunSteps  # noqa: E402
from lava.magma.core.run_configs import Loihi2HwCfg, Loihi2SimCfg  # noqa: E402
from lava.proc.dense.process import Dense  # noqa: E402
from lava.proc.lif.process import LIF, LIFReset  # noqa: E402

MOST_STEPS = 2**31 - 1
"""Lava counts a run's steps in 32 bit."""
MESSAGE_BITS = 16
"""Of a graded spike."""
LIVENESS = 0.05
"""Seconds between two looks at whether Lava's processes live, while waiting for an answer."""


class LavaDiedError(Exception):
    """One of Lava's processes ended; what it said is in the worker's output."""

    hint = "what Lava printed is below; open a new session to go on"


def run_config(backend: str) -> Any:
    """How Lava executes the network: "sim", or "loihi2".

    The second is a seam and untested: it needs Intel's closed package and a board, and source and sink would have to be
    joined to the chip through Lava's embedded input and output processes.
    """
    return {"sim": Loihi2SimCfg, "loihi2": Loihi2HwCfg}[backend](select_tag="fixed_pt")


def chain(layers: Any, arrays: Any) -> Any:
    """The stock processes of a chain: [(Dense, LIF or LIFReset), ...], connected to one another."""
    made: Any = []
    for k, layer in enumerate(layers):
        weight = arrays[f"weight_{k}"]
        dense = Dense(
            weights=weight,
            weight_exp=layer["weight_exp"],
            num_weight_bits=layer["weight_bits"],
            num_message_bits=MESSAGE_BITS if layer["graded"] else 0,
        )
        shared = {
            "shape": (weight.shape[0],),
            "du": layer["du"],
            "dv": layer["dv"],
            "bias_mant": arrays[f"bias_{k}"],
            "bias_exp": layer["bias_exp"],
            "vth": layer["threshold"],
        }
        if layer["reset_interval"]:
            # Lava's first step has number 1, ours 0.
            offset = (layer["reset_offset"] + 1) % layer["reset_interval"]
            neurons = LIFReset(reset_interval=layer["reset_interval"], reset_offset=offset, **shared)
        else:
            neurons = LIF(**shared)
        dense.a_out.connect(neurons.a_in)
        if made:
            made[-1][1].s_out.connect(dense.s_in)
        made.append((dense, neurons))
    return made


class Network:
    """A chain that runs."""

    def __init__(self, layers: Any, arrays: Any, window: int, every_step: bool, backend: str) -> None:
        source_theirs, self.request = multiprocessing.Pipe(duplex=False)
        self.answer, sink_theirs = multiprocessing.Pipe(duplex=False)
        processes = chain(layers, arrays)
        self.source = ends.Source(size=arrays["weight_0"].shape[1], connection=source_theirs)
        self.source.s_out.connect(processes[0][0].s_in)
        spiking = [processes[k][1] for k, layer in enumerate(layers) if not layer["readout"]]
        read = [processes[k][1] for k, layer in enumerate(layers) if layer["membrane"]]
        self.sink = ends.sink_type(len(spiking), len(read))(
            spikes=[neurons.s_out.shape[0] for neurons in spiking],
            membranes=[neurons.s_out.shape[0] for neurons in read],
            window=window,
            every_step=every_step,
            connection=sink_theirs,
        )
        for k, neurons in enumerate(spiking):
            neurons.s_out.connect(getattr(self.sink, f"s_in_{k}"))
        for k, neurons in enumerate(read):
            getattr(self.sink, f"v_{k}").connect_var(neurons.v)
        self.source.run(condition=RunSteps(num_steps=MOST_STEPS, blocking=False), run_cfg=run_config(backend))

    def play(self, x: Any) -> bytes:
        """One window."""
        self.request.send_bytes(np.ascontiguousarray(x, dtype=np.int32).tobytes())
        while not self.answer.poll(LIVENESS):
            dead = [actor.name for actor in self.actors if not actor.is_alive()]
            if dead:
                raise LavaDiedError(f"{len(dead)} of Lava's {len(self.actors)} processes ended")
        return self.answer.recv_bytes()

    @property
    def actors(self) -> Any:
        """Lava's operating system processes."""
        return self.source.runtime._messaging_infrastructure.actors

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
        self.described = (values["layers"], arrays, values["window"], values["every_step"], self.backend)
        self.spikes = sum(len(arrays[f"bias_{k}"]) for k, layer in enumerate(values["layers"]) if not layer["readout"])
        self.membranes = sum(len(arrays[f"bias_{k}"]) for k, layer in enumerate(values["layers"]) if layer["membrane"])

    def play(self, values: Any, arrays: Any) -> Any:
        """One window."""
        if self.network is None:
            self.network = Network(*self.described)
        block = np.frombuffer(self.network.play(arrays["x"]), dtype=np.int32)
        _, _, window, every_step, _ = self.described
        cut = window * self.spikes
        spikes = block[:cut].reshape(window, self.spikes)
        return {}, {"spikes": spikes, "membranes": block[cut:].reshape(window if every_step else 1, self.membranes)}

    def rewind(self, values: Any, arrays: Any) -> None:
        """Stop what runs; the next window starts from the beginning."""
        if self.network is not None:
            self.network.stop()
            self.network = None

    def processes(self, values: Any, arrays: Any) -> Any:
        """Numbers of Lava's operating system processes; for the tests of what a fault leaves behind."""
        return {"pids": [actor.pid for actor in self.network.actors] if self.network else []}, {}

    def close(self) -> None:
        """Stop what runs."""
        self.rewind({}, {})
