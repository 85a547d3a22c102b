"""What is handed out: wheels and static files for every architecture, and a trial of each here.

commit.py   the time that goes into archives in the place of the clock's
static.py   scripts/build-static
sbom.py     what a static file is made of, as CycloneDX
wheels.py   scripts/build-wheels
machine.py  programs and Pythons of other architectures, run here by qemu-user
zigtests.py the Zig tests of each room, on each architecture
trial.py    scripts/try-targets
"""
