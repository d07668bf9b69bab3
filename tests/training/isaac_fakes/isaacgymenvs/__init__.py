"""In place of IsaacGymEnvs: `make` with its arguments."""


def make(seed, task, num_envs, sim_device, rl_device, graphics_device_id=-1, headless=False, force_render=True):
    from isaacgymenvs.tasks import isaacgym_task_map

    assert isinstance(seed, int)
    assert (headless, force_render, sim_device, rl_device) == (True, False, "cuda:0", "cuda:0")
    return isaacgym_task_map[task](num_envs)
