# Sourced: installs what is missing, Debian packages and Python ones.
#
#     setup "PACKAGE ..." PIP_ARGUMENT ...
#
# leaves a virtual environment in .venv of the checkout, where gdb finds it too.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

setup() {
	local wanted=$1 packages
	shift
	cd "$root"
	install_packages "$wanted" &
	packages=$!
	# Where Python can make environments already, both are brought at the same time.
	if [ ! -x .venv/bin/pip ] && ! python3 -m venv .venv >/dev/null 2>&1; then
		wait "$packages"
		python3 -m venv .venv
	fi
	# What is imported is compiled then; to compile all of it takes as long as to bring it.
	.venv/bin/pip install --quiet --no-compile --disable-pip-version-check "$@"
	wait "$packages"
}

install_packages() {
	local missing=() sudo=()
	for package in $1; do
		dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed \
			|| missing+=("$package")
	done
	[ "${#missing[@]}" -gt 0 ] || return 0
	[ "$(id -u)" -eq 0 ] || sudo=(sudo)
	echo "installing ${missing[*]}" >&2
	"${sudo[@]}" apt-get update -qq
	# A machine that is thrown away need not survive a power cut.
	"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
		apt-get install -y -qq --no-install-recommends ${CI:+-o Dpkg::Options::=--force-unsafe-io} \
		"${missing[@]}" >/dev/null
}
