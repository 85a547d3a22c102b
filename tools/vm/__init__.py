"""pywg on a booted Debian: systemd, its resolver, its network managers, its kernel's WireGuard.

A machine is made of two disks: Debian, which is built once, and pywg as it is in this tree.

command   what scripts/vm is asked for, and the table it prints
image     the disk with Debian, its kernel and its initrd, in a cache
payload   the disk with pywg, what it depends on, and the cases
machine   qemu: it boots the two disks and hands on what the guest says
results   the lines that the guest says of each case
guest     what runs inside: the cases and the far end of their tunnels
"""
