"""The command line: `command` finds the verb and turns errors into exit codes, `verbs` says what each one does."""
