"""The command line: one file a command, each parses, makes one call of the library and prints.

stdout is data, stderr is progress and words.
"""
