"""The commands, one a file; `wwopt.cli` puts them together."""
