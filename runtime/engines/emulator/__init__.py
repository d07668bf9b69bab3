"""The compiled emulator: tables of a plan, and the loop that walks them."""
