"""What tests and commands use, and no install has. It imports pywg, never tests; scripts/ has the
commands.

build       compiles the core, and the programs that check it
targets     wheels and static files for every architecture, and a trial of each
lab         namespaces, daemons and traffic, for everything that runs end to end
reference   second, obvious implementations to compare with
emulator    a PC with AVX-512
bench       measures beside other implementations
kernels     the AEAD's kernels, called from Python
wycheproof  runs Wycheproof's vectors
fuzz        made-up cases, and what must hold for each
sim         many hosts in virtual time
take_over   a tunnel that is taken over again and again under load
soak        a tunnel that is disturbed for a long time
low_memory  what pywgd needs of memory, and what little memory costs
leaks       whether anything leaves in clear beside a tunnel with a kill switch
green       the tests again and again, also under load
selftest    what the kernel asks of its driver, asked of the daemon, again and again
interop     one table of pywg beside other implementations
pictures    the pictures of docs/
docs        a site of README.md, docs/ and all docstrings
first_minute  how long it takes from a clone, a wheel, or nothing to a tunnel
packages    packages of distributions, made and tried
many_gateways  one list of peers in etcd, and what a change takes to all gateways
vm          a booted Debian in qemu, with systemd and the kernel's WireGuard
"""
