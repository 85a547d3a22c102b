"""Builds libpywg.so, libpywg.a and pywgd with plain zig commands.

`zig build` does the same from build.zig, but compiles its own build system first, which takes
minutes; these commands take seconds, so pip, quickstart and tests use them. The CPU is always the
baseline of the architecture; the AEAD is compiled once per flavour on top and picked at start.

    scripts/build_core [--out DIRECTORY] [--arch ARCH] [--optimize MODE] [--force]

Invariant: what is in the output folder belongs to one content of core/; an unchanged core costs one
hash. Files appear by rename, so a running tunnel keeps the library it has mapped.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# ---- what is built -------------------------------------------------------------------------------

# module -> (root file, modules it imports). Options are modules too: they are generated.
Graph = Mapping[str, tuple[str, list[str]]]
MODULES: Graph = {
    "wire": ("core/wire/wire.zig", []),
    "protocol": ("core/protocol/protocol.zig", ["wire"]),
    "config": ("core/config/config.zig", ["wire", "protocol"]),
    "cipher": ("core/cipher/cipher.zig", ["cipher_options"]),
    "io": ("core/io/io.zig", ["wire"]),
    "device": ("core/device/device.zig", ["wire", "protocol", "cipher", "io"]),
    "runtime": ("core/runtime.zig", []),
    "abi": (
        "core/abi/abi.zig",
        ["wire", "protocol", "cipher", "io", "device", "runtime", "build_options"],
    ),
    "daemon": (
        "core/daemon/daemon.zig",
        ["wire", "protocol", "config", "cipher", "io", "device", "runtime", "build_options"],
    ),
}
KERNELS = "core/cipher/kernels.zig"
KERNELS_OPTIONS = "kernel_options"
# Where X25519 is an object of its own, for size; and where LLVM leaves a table of all functions
# (.pdr) in a file without symbols.
CURVE = "core/cipher/curve.zig"
MIPS = ("mips", "mipsel")

# architecture -> (zig target, [(flavour, CPU)])
TARGETS: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "x86_64": (
        "x86_64-linux-none",
        [
            ("baseline", "x86_64"),
            ("v3", "x86_64_v3"),
            ("v4", "x86_64_v4"),
            ("v4ifma", "x86_64_v4+avx512ifma"),
        ],
    ),
    "i686": ("x86-linux-none", [("baseline", "pentium4")]),
    "aarch64": ("aarch64-linux-none", [("baseline", "baseline")]),
    "armv7l": ("arm-linux-none", [("baseline", "generic+v7a")]),  # NEON is optional in ARMv7
    # That of the first Raspberry Pi, without what not all of its kind have.
    "armv6": ("arm-linux-none", [("baseline", "arm1176jzf_s+soft_float-vfp2")]),
    "riscv64": ("riscv64-linux-none", [("baseline", "baseline_rv64")]),
    # Routers: few of their processors have a floating point unit.
    "mips": ("mips-linux-none", [("baseline", "mips32r2+soft_float")]),
    "mipsel": ("mipsel-linux-none", [("baseline", "mips32r2+soft_float")]),
    "ppc64le": ("powerpc64le-linux-none", [("baseline", "ppc64le")]),
    "s390x": ("s390x-linux-none", [("baseline", "arch8")]),
}
# CPU of everything but the AEAD.
BASELINE = {
    arch: flavours[0][1]
    for arch, (_, flavours) in TARGETS.items()
    if arch not in ("x86_64", "aarch64")
}

# Tags of wheels. No libc is linked, so one file serves glibc and musl; others get only the static
# file.
PLATFORMS = {
    "x86_64": "manylinux_2_17_x86_64.manylinux2014_x86_64.musllinux_1_1_x86_64",
    "i686": "manylinux_2_17_i686.manylinux2014_i686.musllinux_1_1_i686",
    "aarch64": "manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64",
    "armv7l": "manylinux_2_17_armv7l.manylinux2014_armv7l.musllinux_1_1_armv7l",
    "riscv64": "manylinux_2_31_riscv64.musllinux_1_2_riscv64",
    "ppc64le": "manylinux_2_17_ppc64le.manylinux2014_ppc64le.musllinux_1_1_ppc64le",
    "s390x": "manylinux_2_17_s390x.manylinux2014_s390x.musllinux_1_1_s390x",
}

LIBRARY, STATIC_LIBRARY, DAEMON = "libpywg.so", "libpywg.a", "pywgd"
PRODUCTS = (LIBRARY, STATIC_LIBRARY, DAEMON)
HEADER = ROOT / "core" / "include" / "pywg.h"
# What C programs ask pkg-config for. Relative to where it lies, so that it may be moved.
PKG_CONFIG = """prefix=${{pcfiledir}}/{prefix}
includedir=${{prefix}}/include
libdir=${{prefix}}/{libdir}

Name: pywg
Description: Userspace WireGuard: a whole device, or the protocol alone
Version: {version}
Cflags: -I${{includedir}}
Libs: -L${{libdir}} -lpywg
"""
OPTIMIZE_DEFAULT = "ReleaseSafe"
# Of the static file, which nobody unwinds. Its root is ReleaseSmall, so that LLVM inlines little
# everywhere; std is compiled as the root is, for size and without checks. The rooms, which read
# what comes from outside, are not: each module has its own -O, and they have their own assert.
SMALL_FLAGS = ("-fno-unwind-tables", "-fdata-sections", "-ffunction-sections", "--gc-sections")
# Flavours that the static file does without: those CPUs take the one before.
SMALL_LEAVES_OUT = ("v4",)
JOBS = 2


@dataclass(frozen=True)
class Build:
    """One set of commands; `work` takes objects and generated options."""

    zig: Sequence[str]
    arch: str
    optimize: str
    version: str
    work: Path
    flags: Sequence[str] = ()
    soname: str = LIBRARY
    graph: Graph = field(default_factory=lambda: MODULES)
    # flavour -> the form of the AEAD that it gets, whatever instructions there are
    models: Mapping[str, str] = field(default_factory=dict)
    # pywgd, as the static file is.
    is_small: bool = False

    @property
    def target(self) -> str:
        return TARGETS[self.arch][0]

    @property
    def flavours(self) -> list[tuple[str, str]]:
        every = TARGETS[self.arch][1]
        return [one for one in every if not (self.is_small and one[0] in SMALL_LEAVES_OUT)]

    @property
    def objects(self) -> list[str]:
        names = [f"cipher_{flavour}.o" for flavour, _ in self.flavours]
        if self.arch in MIPS:
            names.append("curve.o")
        return [str(self.work / name) for name in names]

    def write_options(self) -> None:
        names = ", ".join(f'"{flavour}"' for flavour, _ in self.flavours)
        sources = {
            "cipher_options": f"pub const flavours: []const []const u8 = &.{{ {names} }};\n",
            "build_options": f'pub const version = "{self.version}";\n',
            **{
                f"{KERNELS_OPTIONS}_{flavour}": f'pub const suffix = "{flavour}";\n'
                f'pub const model: []const u8 = "{self.models.get(flavour, "")}";\n'
                for flavour, _ in self.flavours
            },
        }
        for name, text in sources.items():
            self.options_file(name).write_text(text, encoding="utf-8")

    def options_file(self, name: str) -> Path:
        return self.work / f"{name}.zig"

    def kernels(self, flavour: str, cpu: str) -> list[str]:
        """The AEAD for one CPU. Always ReleaseFast: its bounds are its callers' promise."""
        return [
            *self.zig,
            "build-obj",
            *("-target", self.target, "-mcpu", cpu, "-O", "ReleaseFast"),
            *("-fPIC", "-fstrip", "-fomit-frame-pointer"),
            f"-femit-bin={self.work / f'cipher_{flavour}.o'}",
            *("--name", f"cipher_{flavour}"),
            *("--dep", KERNELS_OPTIONS, "--dep", "wire", f"-Mroot={KERNELS}"),
            f"-M{KERNELS_OPTIONS}={self.options_file(f'{KERNELS_OPTIONS}_{flavour}')}",
            f"-Mwire={self.graph['wire'][0]}",
        ]

    def apart(self) -> list[list[str]]:
        """What makes `objects`."""
        curve = [self.curve()] if self.arch in MIPS else []
        return [*(self.kernels(flavour, cpu) for flavour, cpu in self.flavours), *curve]

    def curve(self) -> list[str]:
        return [
            *self.zig,
            "build-obj",
            *("-target", self.target, "-mcpu", BASELINE[self.arch], "-O", "ReleaseSmall"),
            *("-fPIC", "-fstrip", f"-femit-bin={self.work / 'curve.o'}"),
            *("--name", "curve", f"-Mroot={CURVE}"),
        ]

    def shared_library(self) -> list[str]:
        flags = ["-dynamic", "-fPIC", f"-fsoname={self.soname}"]
        return self._link("build-lib", "abi", LIBRARY, "pywg", flags)

    def static_library(self) -> list[str]:
        flags = ["-static", "-fPIC", "-fcompiler-rt"]
        return self._link("build-lib", "abi", STATIC_LIBRARY, "pywg", flags)

    def daemon(self) -> list[str]:
        flags = ["-static", *(SMALL_FLAGS if self.is_small else ())]
        return self._link("build-exe", "daemon", DAEMON, "pywgd", flags, is_small=self.is_small)

    def _link(
        self,
        verb: str,
        root: str,
        file: str,
        name: str,
        flags: list[str],
        *,
        is_small: bool = False,
    ) -> list[str]:
        return [
            *self.zig,
            verb,
            *("-target", self.target, "-mcpu", BASELINE.get(self.arch, "baseline")),
            *("-O", self.optimize, "-fstrip", *flags, *self.flags),
            f"-femit-bin={self.work / file}",
            *("--name", name),
            *self.objects,
            *self.modules(root, is_small=is_small),
        ]

    def modules(self, root: str, *, is_small: bool = False) -> list[str]:
        """`--dep` and `-M` of every module the root needs; the root comes first, as `root`."""
        arguments: list[str] = []
        for name in reachable(root, self.graph):
            file, imports = self.graph.get(name, (str(self.options_file(name)), []))
            if is_small:
                arguments += ["-O", "ReleaseSmall" if name == root else self.optimize]
            for imported in imports:
                arguments += ["--dep", imported]
            arguments.append(f"-M{'root' if name == root else name}={file}")
        return arguments


def reachable(root: str, graph: Graph = MODULES) -> list[str]:
    """The module and all it imports, each once."""
    found = [root]
    for name in found:
        for imported in graph.get(name, ("", []))[1]:
            if imported not in found:
                found.append(imported)
    return found


# ---- building ------------------------------------------------------------------------------------


def build(
    out: Path,
    arch: str,
    zig: Sequence[str],
    flags: Sequence[str] = (),
    *,
    optimize: str = OPTIMIZE_DEFAULT,
    products: Sequence[str] = PRODUCTS,
    soname: str = LIBRARY,
    small: bool = False,
    force: bool = False,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Path]:
    """Puts the products in `out` unless they are there for this content of core/. `small`: with
    pywgd as the static file is."""
    stamp = out / ".content"
    paths = {product: out / product for product in products}
    out.mkdir(parents=True, exist_ok=True)
    with open(out / ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second build waits, and finds the work done
        digest = content_digest(
            arch, optimize, flags, (*products, soname, *(("small",) if small else ()))
        )  # not before: it may have changed
        present = all(path.is_file() for path in paths.values())
        known = stamp.read_text(encoding="ascii") if stamp.is_file() else ""
        if present and known == digest and not force:
            log("the core is unchanged")
            return paths
        stamp.unlink(missing_ok=True)
        # Always the same folder: its name is part of zig's cache key.
        work = out / ".build"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        job = Build(
            zig,
            arch,
            optimize,
            version(),
            work,
            flags,
            soname,
            is_small=small,
        )
        _compile(job, products, log)
        if small and arch in MIPS:
            cut_sections(work / DAEMON)
        for product, path in paths.items():
            (work / product).chmod(0o644 if product == STATIC_LIBRARY else 0o755)
            (work / product).replace(path)
        shutil.rmtree(work)
        stamp.write_text(digest, encoding="ascii")
    return paths


def _compile(job: Build, products: Sequence[str], log: Callable[[str], None]) -> None:
    """First the AEAD flavours, then what links them; a few at a time."""
    job.write_options()
    _run_all(job.apart(), log)
    makers = {
        LIBRARY: job.shared_library,
        STATIC_LIBRARY: job.static_library,
        DAEMON: job.daemon,
    }
    _run_all([makers[product]() for product in products], log)


def cut_sections(path: Path) -> None:
    """Leaves what the kernel loads: a program needs no table of sections, nor what only that names.
    The fields are those of elf(5)."""
    program = bytearray(path.read_bytes())
    is_64, order = program[4] == 2, "<" if program[5] == 1 else ">"
    head = order + ("16xHHIQQQIHHHHHH" if is_64 else "16xHHIIIIIHHHHHH")
    fields = list(struct.unpack_from(head, program))
    first, size, count = fields[4], fields[8], fields[9]
    end = first + size * count
    for place in range(first, end, size):
        # p_offset and p_filesz: of PT_LOAD alone, the others lie in those.
        row = struct.unpack_from(order + ("I4xQ16xQ" if is_64 else "II8xI"), program, place)
        if row[0] == 1:
            end = max(end, row[1] + row[2])
    fields[5] = fields[11] = fields[12] = 0  # e_shoff, e_shnum, e_shstrndx
    struct.pack_into(head, program, 0, *fields)
    program[:16] = path.read_bytes()[:16]
    path.write_bytes(program[:end])


def content_digest(arch: str, optimize: str, flags: Sequence[str], products: Sequence[str]) -> str:
    """Of everything that decides the bytes that come out."""
    digest = hashlib.sha256(repr((arch, optimize, list(flags), list(products))).encode())
    files = [*(ROOT / "core").rglob("*"), ROOT / "build.zig.zon", Path(__file__)]
    for path in sorted(path for path in files if path.is_file()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(ROOT)}:{len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def pkg_config(prefix: str, libdir: str) -> str:
    """pywg.pc: `prefix` as seen from its folder, `libdir` as seen from there."""
    return PKG_CONFIG.format(prefix=prefix, libdir=libdir, version=version())


def version() -> str:
    text = (ROOT / "build.zig.zon").read_text(encoding="utf-8")
    found = re.search(r'\.version = "([^"]+)"', text)
    if found is None:
        raise SystemExit("build.zig.zon names no version")
    return found.group(1)


def find_zig() -> list[str]:
    """PYWG_ZIG, else the zig of the `ziglang` wheel, else zig on PATH."""
    given = os.environ.get("PYWG_ZIG")
    if given:
        return shlex.split(given)
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang"]
    found = shutil.which("zig")
    if found:
        return [found]
    raise SystemExit("no zig: pip install ziglang==0.17.1, or PYWG_ZIG=/path/to/zig")


# What others call them: Debian, Go, uname.
OTHER_NAMES = {
    "amd64": "x86_64",
    "arm": "armv7l",
    "arm64": "aarch64",
    "armv6l": "armv6",
    "armv7": "armv7l",
    "i386": "i686",
    "ppc64el": "ppc64le",
    "x86-64": "x86_64",
}


def arch_of(name: str) -> str:
    """Of any of its names, also with the system behind it (`aarch64-linux`)."""
    given = name.partition("-linux")[0]
    arch = OTHER_NAMES.get(given, given)
    if arch in TARGETS:
        return arch
    raise SystemExit(f"no target for {name}; there are {', '.join(TARGETS)}")


def find_arch() -> str:
    """PYWG_ZIG_TARGET, else this machine's."""
    return arch_of(os.environ.get("PYWG_ZIG_TARGET") or os.uname().machine)


def _run_all(commands: Sequence[Sequence[str]], log: Callable[[str], None]) -> None:
    environment = dict(os.environ)
    if not os.access(Path.home(), os.W_OK):
        # zig wants a cache it can write to.
        environment.setdefault("ZIG_GLOBAL_CACHE_DIR", str(ROOT / ".zig-cache" / "global"))

    def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        log(shlex.join(command))
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )

    with ThreadPoolExecutor(JOBS) as pool:
        results = list(pool.map(run, commands))
    for result in results:
        if result.returncode != 0:
            sys.stderr.write(result.stderr)
            raise SystemExit(f"zig failed with {result.returncode}: {shlex.join(result.args)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="build_core", description="Build libpywg.so, libpywg.a and pywgd."
    )
    parser.add_argument(
        "--out", type=lambda text: Path(text).resolve(), default=ROOT / "pywg" / "_native"
    )
    parser.add_argument("--arch", choices=sorted(TARGETS), default=find_arch())
    parser.add_argument(
        "--optimize",
        choices=("Debug", "ReleaseSafe", "ReleaseFast"),
        default=os.environ.get("PYWG_ZIG_OPTIMIZE", OPTIMIZE_DEFAULT),
    )
    parser.add_argument("--force", action="store_true", help="even if nothing changed")
    parser.add_argument("--verbose", action="store_true", help="print the commands")
    options = parser.parse_args()

    def log(line: str) -> None:
        if options.verbose:
            print(line, file=sys.stderr)

    for path in build(
        options.out,
        options.arch,
        find_zig(),
        optimize=options.optimize,
        force=options.force,
        log=log,
    ).values():
        print(path)


if __name__ == "__main__":
    main()
