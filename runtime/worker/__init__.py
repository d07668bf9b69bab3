"""Other interpreters: environments, the parent's and the child's end of the pipe, the guard."""
