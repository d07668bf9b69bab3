"""Pictures, videos and HTML pages of what was run."""
