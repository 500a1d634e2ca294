"""The command line: one small module per family of commands, loaded when one of them is called."""
