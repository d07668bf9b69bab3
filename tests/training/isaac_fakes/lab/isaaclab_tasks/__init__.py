"""Registers the tasks."""

import gymnasium

gymnasium.register("Isaac-Ant", entry_point="isaaclab_tasks.scripted:Scripted", disable_env_checker=True)
gymnasium.register("Isaac-Forgetful", entry_point="isaaclab_tasks.scripted:Forgetful", disable_env_checker=True)
gymnasium.register("Isaac-Limited", entry_point="isaaclab_tasks.scripted:Limited", disable_env_checker=True)
