"""A tunnel without root: a network namespace of its own, and one program, or some sockets, in it.

The helper lives inside and makes what has to be made there; the device, with its UDP sockets,
stays outside. Nothing of the host is touched, and nothing is left when the processes have ended.
"""
