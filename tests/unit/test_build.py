"""What decides whether the core is built anew; and that it can be, for each architecture."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from tools.build import core


def test_an_editable_install_forgets_what_build_core_put_there(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    native = tmp_path / "pywg" / "_native"
    native.mkdir(parents=True)
    (native / ".content").write_text("of another core")
    (tmp_path / "built.so").write_text("new")
    hook_class = pytest.importorskip("hatch_build").CustomBuildHook
    hook = hook_class(str(tmp_path), {}, None, None, str(tmp_path), "wheel")
    hook._install_in_tree({"libpywg.so": tmp_path / "built.so"})
    assert (native / "libpywg.so").read_text() == "new"
    assert not (native / ".content").exists()


def test_the_core_is_hashed_when_it_is_our_turn_to_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []

    def digest(*arguments: object) -> str:
        order.append("hash")
        return "x"

    monkeypatch.setattr(fcntl, "flock", lambda *arguments: order.append("lock"))
    monkeypatch.setattr(core, "content_digest", digest)
    (tmp_path / ".content").write_text("x")
    assert core.build(tmp_path, "x86_64", ["zig"], products=()) == {}
    assert order == ["lock", "hash"]


# pywgd is built and run for every one: tests/netns/test_targets.py.
@pytest.mark.parametrize("arch", ["armv7l", "s390x"])
def test_the_library_compiles_for_32_bits_and_for_the_other_byte_order(
    arch: str, tmp_path: Path
) -> None:
    pytest.importorskip("ziglang")
    built = core.build(tmp_path, arch, core.find_zig(), products=(core.LIBRARY,))
    assert all(path.stat().st_size for path in built.values())
