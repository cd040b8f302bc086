"""The command line: options, progress and tables over the engine, and the only place that prints."""
