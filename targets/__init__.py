"""The targets, a folder each; `catalogue` finds them."""
