# Sourced by quickstart, test and tool: finds Python, makes .venv, installs Debian packages when root.
# shellcheck shell=bash
python=${PYTHON:-python3}

say() { printf '%s\n' "${0##*/}: $*" >&2; }
die() { say "$*"; exit 1; }
can_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

# Tries without a package list first: `apt-get update` costs time.
apt_install() {
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@" >/dev/null 2>&1 && return
    apt-get update >/dev/null 2>&1 &&
        DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@" >/dev/null 2>&1
}

find_python() {
    command -v "$python" >/dev/null || die "no $python: sudo apt-get install python3 python3-venv"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "$("$python" --version) is too old: pywg needs Python 3.11; set PYTHON=/path/to/python3.11"
}

make_venv() {
    [ ! -x .venv/bin/pip ] || return 0
    find_python
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        can_apt || die "Python has no venv module: sudo apt-get install python3-venv"
        say "installing python3-venv"
        apt_install python3-venv || die "apt-get install python3-venv failed"
    fi
    say "making .venv"
    "$python" -m venv .venv
}

# Arguments: more to install beside pywg itself.
install_pywg() {
    say "building and installing pywg (the Zig compiler is about 100 MB to download, once)"
    .venv/bin/pip install --quiet --disable-pip-version-check --editable . "$@" ||
        die "pip failed; it needs the network the first time, or PYWG_ZIG=/path/to/zig 0.17.1"
}
