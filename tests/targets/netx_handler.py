"""Loads a netx file with the real lava-dl and steps it. Runs in an interpreter that has lava-dl, under a Worker."""

import sys
from typing import Any


class Handler:
    """options: "shim", the folder of the shim for newer Pythons than Lava declares."""

    def __init__(self, options: Any) -> None:
        sys.path.insert(0, options["shim"])
        import shim

        shim.apply()
        # Says that a toolbox for event cameras is missing, on stdout.
        from lava.lib.dl.netx import hdf5

        self.hdf5 = hdf5

    def info(self) -> Any:
        """Versions."""
        from importlib.metadata import version

        return {"lava": version("lava-nc"), "lava_dl": version("lava-dl")}

    def play(self, values: Any, arrays: Any) -> Any:
        """x: (steps, n) -> v of every layer at each step: v_0, v_1, ... (steps, neurons)."""
        import numpy as np
        from lava.magma.core.run_conditions import RunSteps
        from lava.magma.core.run_configs import Loihi2SimCfg
        from lava.proc.io.source import RingBuffer

        network = self.hdf5.Network(net_config=values["file"], **values["arguments"])
        source = RingBuffer(data=arrays["x"].T.astype(np.int32))
        source.s_out.connect(network.inp)
        records: Any = [[] for _ in network.layers]
        try:
            for _ in range(len(arrays["x"])):
                network.run(condition=RunSteps(num_steps=1), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
                for layer, record in zip(network.layers, records):  # noqa: B905 - Python 3.8
                    record.append(np.array(layer.neuron.v.get(), dtype=np.int64))
        finally:
            network.stop()
        return {}, {f"v_{k}": np.stack(record) for k, record in enumerate(records)}
