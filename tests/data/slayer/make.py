"""Makes the files beside this one, with lava-dl's own blocks. Run in an environment that has lava-dl 0.6.0 and torch:

    python tests/data/slayer/make.py tests/data/slayer

network.net is what slayer exports; spikes.npz has what entered and what slayer's layers gave. delayed.net has delays.
"""

import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from lava.lib.dl import slayer

CUBA = {
    "threshold": 1.25,
    "current_decay": 0.25,
    "voltage_decay": 0.03,
    "tau_grad": 0.03,
    "scale_grad": 3,
    "requires_grad": True,
}


def export(blocks: Any, path: Path) -> None:
    with h5py.File(path, "w") as file:
        layers = file.create_group("layer")
        for k, block in enumerate(blocks):
            block.export_hdf5(layers.create_group(f"{k}"))


def main(folder: Path) -> None:
    torch.manual_seed(0)
    sizes = (6, 10, 8, 4)
    blocks = [slayer.block.cuba.Dense(CUBA, a, b, weight_norm=True) for a, b in zip(sizes, sizes[1:])]  # noqa: B905, RUF007
    x = (torch.rand(1, sizes[0], 60) < 0.4).float()
    spikes = {"x": x[0].numpy()}
    with torch.no_grad():
        y = x
        for k, block in enumerate(blocks):
            block.synapse.weight_g *= 3  # lively
            y = block(y)
            spikes[f"y{k + 1}"] = y[0].numpy()
    export(blocks, folder / "network.net")
    np.savez(folder / "spikes.npz", **spikes)
    delayed = [slayer.block.cuba.Dense(CUBA, 6, 4, weight_norm=True, delay=True)]
    with torch.no_grad():
        delayed[0](x)
        delayed[0].delay.delay += 3
    export(delayed, folder / "delayed.net")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
