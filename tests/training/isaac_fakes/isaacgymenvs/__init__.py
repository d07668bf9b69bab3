"""In place of IsaacGymEnvs: `make` with its arguments."""


def make(
    seed,
    task,
    num_envs,
    sim_device,
    rl_device,
    graphics_device_id=-1,
    headless=False,
    multi_gpu=False,
    virtual_screen_capture=False,
    force_render=True,
    cfg=None,
):
    from isaacgymenvs.tasks import isaacgym_task_map

    assert isinstance(seed, int)
    assert headless
    assert not force_render
    assert sim_device == rl_device == "cpu", "there is no card for the others"
    wanted = {f"task={task}", f"num_envs={num_envs}", "sim_device=cpu", "rl_device=cpu", "pipeline=cpu"}
    assert cfg["config_name"] == "config"
    assert wanted < set(cfg["overrides"]), cfg
    return isaacgym_task_map[task]({"sim": {"dt": 0.0166}}, num_envs, rl_device)
