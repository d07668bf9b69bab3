"""The launcher: takes its arguments and launches nothing."""

import contextlib


def add_launcher_args(parser):
    parser.add_argument("--device", default="cuda:0")


@contextlib.contextmanager
def launch_simulation(cfg, args):
    assert args.device == cfg.sim.device
    print("[INFO]: launched, on the standard output")
    yield
