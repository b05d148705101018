#!/bin/bash
# Installs what the interop tests need on Debian 12: Postfix, Dovecot (AUTH, LMTP, submission), Exim, two proxies, openssl,
# and two verifiers of DKIM: OpenDKIM and dkimpy.
#
# Run as root; quick when all is there. Debian lets only one mail server be installed, so Exim is
# unpacked into a folder of its own and only the libraries that it links are installed. No system
# service is started, no file in /etc/postfix, /etc/exim4 or /etc/dovecot is used or changed.
set -euo pipefail

# Exim's child processes run as Debian-exim: the folder must be one that this user can enter.
cache=${ENVOI_INTEROP_CACHE:-/var/cache/envoi-interop}
export DEBIAN_FRONTEND=noninteractive

installed() { dpkg-query -W -f '${db:Status-Status}\n' "$@" 2>/dev/null | grep -qx installed; }

apt_install() {
    # A package's postinst asks policy-rc.d whether it may start its service: no, it may not.
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod 755 /usr/sbin/policy-rc.d
    fi
    # --no-remove: where another mail server is installed, fail rather than replace it.
    apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 install -y --no-install-recommends --no-remove \
        "$@" >"$cache/apt.log" 2>&1 || { cat "$cache/apt.log" >&2; exit 1; }
}

update_once() {
    [ -z "${updated:-}" ] || return 0
    apt-get -qq -o DPkg::Lock::Timeout=300 update
    updated=yes
}

install_packages() {
    local package missing=()
    for package in postfix dovecot-core dovecot-lmtpd dovecot-submissiond microsocks tinyproxy-bin openssl procps \
        opendkim opendkim-tools python3-dkim python3-nacl; do
        installed $package || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    update_once
    apt_install "${missing[@]}"
}

install_exim() {
    # exim4-daemon-heavy because the light one has no AUTH. Two runs at a time must not meet here.
    local exim=$cache/exim
    if [ ! -x "$exim/usr/sbin/exim4" ]; then
        update_once
        local work
        work=$(mktemp -d "$cache/unpack.XXXXXX")
        chmod 755 "$work"
        (cd "$work" && apt-get -qq download exim4-daemon-heavy exim4-base exim4-config 2>/dev/null)
        local libraries
        libraries=$(dpkg-deb -f "$work"/exim4-daemon-heavy_*.deb Depends | tr , '\n' |
            sed 's/^ *//; s/[ |(].*//' | grep '^lib')
        # shellcheck disable=SC2086  # a list of names
        apt_install $libraries
        local deb
        for deb in "$work"/*.deb; do dpkg -x "$deb" "$work/exim"; done
        rm "$work"/*.deb
        rm -rf "$exim"
        mv "$work/exim" "$exim"
        rmdir "$work"
    fi
    # The user that Debian's Exim was built to run as; the package's postinst would make it.
    getent passwd Debian-exim >/dev/null ||
        useradd --system --user-group --home-dir /nonexistent --shell /usr/sbin/nologin Debian-exim
}

[ "$(id -u)" = 0 ] || { echo "install.sh: must run as root" >&2; exit 1; }
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
install_packages
install_exim
# Says at once if a library is missing.
"$cache/exim/usr/sbin/exim4" -C /dev/null -bV >/dev/null 2>&1 || { ldd "$cache/exim/usr/sbin/exim4" >&2; exit 1; }
