"""The machine beneath: files, the terminal, the command line, the hardware and versions."""
