"""NIR: reading the files of any tool, writing ours, and what NIR cannot say in the metadata beside it."""
