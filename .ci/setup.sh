# Sourced: installs what is missing, Debian packages and Python ones.
#
#     setup "PACKAGE ..." PIP_ARGUMENT ...
#
# leaves a virtual environment in .venv of the checkout, where gdb finds it too.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

setup() {
	local wanted=$1 missing=() sudo=()
	shift
	for package in $wanted; do
		dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed \
			|| missing+=("$package")
	done
	if [ "${#missing[@]}" -gt 0 ]; then
		[ "$(id -u)" -eq 0 ] || sudo=(sudo)
		echo "installing ${missing[*]}" >&2
		"${sudo[@]}" apt-get update -qq
		"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
			apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
	fi
	cd "$root"
	[ -x .venv/bin/pip ] || python3 -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check "$@"
}
