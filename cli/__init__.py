"""The command line: `command` finds the verb and turns errors into exit codes; each verb has a module of its own."""
