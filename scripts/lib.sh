# Shared by the scripts: where things are, and how each says what it does. Sourced, not run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools="$root/.tools"

say() { printf '== %s\n' "$*"; }
die() { printf 'error: %s\n' "$1" >&2; [ $# -lt 2 ] || printf 'hint: %s\n' "$2" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# apt_install PACKAGE… — Debian's packages, with sudo unless this is root already.
apt_install() {
  have apt-get || die "this machine lacks $*, and has no apt-get" \
    "install your system's equivalents of: $*"
  local sudo=()
  if [ "$(id -u)" != 0 ]; then
    have sudo || die "installing $* needs root" "run as root: apt-get install $*"
    sudo=(sudo)
  fi
  say "installing Debian packages: $*"
  "${sudo[@]}" apt-get update -qq </dev/null
  # Debian starts an installed etcd-server as a service; none of these scripts wants one.
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get install -y -qq --no-install-recommends "$@" </dev/null >/dev/null
}

# Whether protoc finds Google's own definitions.
google_protos() {
  have protoc || return 1
  local dir; dir=$(mktemp -d)
  printf 'syntax = "proto3"; import "google/protobuf/descriptor.proto";' >"$dir/probe.proto"
  local status=0
  protoc -I "$dir" -o /dev/null "$dir/probe.proto" 2>/dev/null || status=1
  rm -rf "$dir"
  return "$status"
}

# The toolchain, and what the program's own build calls.
need_build_tools() {
  have cargo || die "cargo is missing" \
    "install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml") or later: https://rustup.rs"
  local missing=()
  have cc || missing+=(gcc libc6-dev)
  have zstd || missing+=(zstd)
  [ ${#missing[@]} = 0 ] || apt_install "${missing[@]}"
}
