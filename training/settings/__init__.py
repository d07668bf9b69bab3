"""What decides a training: fields with bounds, the configuration, presets, and what tasks and networks are."""
