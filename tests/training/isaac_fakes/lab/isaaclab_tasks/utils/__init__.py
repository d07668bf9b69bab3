"""The configuration of a task, with overrides as hydra's."""

import types

import gymnasium


class Cfg:
    """Of all tasks here."""

    def __init__(self):
        self.scene = types.SimpleNamespace(num_envs=4096)
        self.sim = types.SimpleNamespace(device="cuda:0")
        self.seed = None
        self.compute_final_obs = False


def setup_preset_cli(parser):
    return parser.parse_known_args()


def resolve_task_config(task, agent, overrides):
    gymnasium.spec(task)  # refuses an unknown one
    cfg = Cfg()
    for override in overrides:
        name, _, value = override.partition("=")
        if name == "env.compute_final_obs":
            cfg.compute_final_obs = value == "true"
        elif name == "env.sim.device":
            cfg.sim.device = value
        else:
            raise ValueError(f"what is {override}?")
    return cfg, None
