"""Studies of many trainings: read from a file (`study`), trained as tasks of Ray (`ray_tasks`), reported with plots."""
