"""The build hook: compiles the core for the wheel, or into the tree for an editable install.

Environment, since hatchling passes no config settings on:
    PYWG_ZIG_TARGET=aarch64    build for another machine (see core.PLATFORMS)
    PYWG_ZIG=/usr/bin/zig      this zig instead of the `ziglang` wheel
    PYWG_ZIG_OPTIMIZE=Debug    how everything but the AEAD is compiled (default ReleaseSafe)
    PYWG_PREBUILT=DIRECTORY    no zig at all: take libpywg.so, libpywg.a and pywgd from there
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ZIGLANG = "ziglang==0.17.1"  # pinned: Zig breaks with every release
PACKAGED = ("libpywg.so", "libpywg.a", "pywgd")
# For C programs, beside these: tests/unit/test_c_library.py finds them by pkg-config.
HEADER = "include/pywg.h"
PKG_CONFIG = "pkgconfig/pywg.pc"


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    def dependencies(self) -> list[str]:
        needs_zig = not os.environ.get("PYWG_ZIG") and not os.environ.get("PYWG_PREBUILT")
        return [ZIGLANG] if needs_zig and self.target_name == "wheel" else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        core = self._build_core_module()
        arch = core.find_arch()
        if arch not in core.PLATFORMS:
            raise SystemExit(f"there is no wheel for {arch}; pywgd: scripts/build-static {arch}")
        built = self._products(core, arch)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{core.PLATFORMS[arch]}"
        if version == "editable":
            self._install_in_tree(built)
            return
        # Never through the tree: a build for another machine must not replace an editable install.
        for name, path in {**built, **self._for_c_programs(core)}.items():
            build_data["force_include"][str(path)] = f"pywg/_native/{name}"

    def _for_c_programs(self, core: ModuleType) -> dict[str, Path]:
        """The header, and what pkg-config says of the libraries around it."""
        description = Path(self.root) / ".zig-cache" / "wheel" / "pywg.pc"
        description.parent.mkdir(parents=True, exist_ok=True)
        description.write_text(core.pkg_config("..", "."), encoding="ascii")
        return {HEADER: core.HEADER, PKG_CONFIG: description}

    def _products(self, core: ModuleType, arch: str) -> dict[str, Path]:
        prebuilt = os.environ.get("PYWG_PREBUILT")
        if prebuilt:
            return {name: Path(prebuilt).resolve() / name for name in PACKAGED}
        products: dict[str, Path] = core.build(
            Path(self.root) / ".zig-cache" / "wheel" / arch,
            arch,
            core.find_zig(),
            optimize=os.environ.get("PYWG_ZIG_OPTIMIZE", core.OPTIMIZE_DEFAULT),
            products=PACKAGED,
        )
        return products

    def _install_in_tree(self, built: dict[str, Path]) -> None:
        """By rename: a tunnel that runs keeps the file it has mapped."""
        native = Path(self.root) / "pywg" / "_native"
        native.mkdir(exist_ok=True)
        # build_core's note of what lies here: no longer true.
        (native / ".content").unlink(missing_ok=True)
        for name, path in built.items():
            fresh = native / f".{name}.new"
            shutil.copy(path, fresh)
            fresh.replace(native / name)

    def _build_core_module(self) -> ModuleType:
        """tools/build/core.py; hatchling imports nothing of the project."""
        path = Path(self.root) / "tools" / "build" / "core.py"
        spec = importlib.util.spec_from_file_location("build_core", path)
        if spec is None or spec.loader is None:
            raise ImportError(f"cannot import {path}")
        module = importlib.util.module_from_spec(spec)
        # Registered first: dataclasses look their own module up.
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module
