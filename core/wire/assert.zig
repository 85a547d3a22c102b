//! The rooms' assert. That of std is compiled as std is: in pywgd without its checks (tools/build/core.py), where it
//! would let the compiler believe what it was to find out.
//! Invariant: whatever the program is compiled for, it ends here rather than go on with what cannot be.

/// Of what we promise ourselves. What others send is no matter for it.
pub fn assert(ok: bool) void {
    if (!ok) unreachable;
}
