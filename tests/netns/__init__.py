"""End to end: real daemons, real TUN interfaces, real packets, in network namespaces. Needs
root."""
