"""The same tunnel with a partner that is not pywg: the cases, the kernel in qemu, the table."""
