"""The core in this process: the header in ctypes, and the classes on top of it."""
