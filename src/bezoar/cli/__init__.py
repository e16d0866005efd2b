"""The command line: one command per verb, options from the fields of the methods."""
