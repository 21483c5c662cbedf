"""The only talkers: the command, its tables, the report, the model folder, the estimators."""
