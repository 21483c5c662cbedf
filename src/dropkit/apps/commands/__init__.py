"""The commands, each in a module of its own. Nothing heavy is imported before one runs."""
