#!/usr/bin/env bash
# Puts Apptainer under DIR on Debian 12, which does not package it: the package of a later release with that release's C
# library beside it, so that the system's own stays as it is. Usage: get_apptainer.sh DIR, then PATH=DIR/usr/bin:$PATH.
# Needs root and apt.
set -euo pipefail
mkdir -p "$1" && dir=$(cd "$1" && pwd)
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
apt-get install -y -q --no-install-recommends \
  patchelf squashfs-tools squashfuse fuse3 libseccomp2 libsqlite3-0 >/dev/null

mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m 1 '/debian/$')

# unpack SUITE PACKAGE FOLDER: with package lists of its own, from the mirror that apt uses here already
unpack() {
  local folder="$work/$1" options
  mkdir -p "$folder/lists/partial"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $1 main" > "$folder/sources.list"
  options=(-q -o APT::Sandbox::User=root -o "Dir::State::Lists=$folder/lists"
    -o "Dir::Etc::SourceList=$folder/sources.list" -o Dir::Etc::SourceParts=/dev/null)
  apt-get "${options[@]}" update >/dev/null
  (cd "$folder" && apt-get "${options[@]}" download "$2" >/dev/null && dpkg -x "$2"_*.deb "$3")
}
unpack sid apptainer "$dir"
unpack trixie libc6 "$work/libc6"

libraries="$dir/libraries"
mkdir -p "$libraries"
cp -a "$work"/libc6/usr/lib/*-linux-gnu/. "$libraries/"
cp -aL /usr/lib/*-linux-gnu/lib{seccomp.so.2,sqlite3.so.0} "$libraries/"
for program in "$dir/usr/bin/apptainer" "$(find "$dir/usr" -path '*bin/starter')"; do
  patchelf --set-interpreter "$(ls "$libraries"/ld-linux*.so.*)" --set-rpath "$libraries" "$program"
done

# The package looks for its configuration and its mount point below the prefix it finds itself in.
mv "$dir/etc" "$dir/usr/etc"
ln -s ../etc "$dir/usr/lib/etc"
mkdir -p "$dir/usr/lib/var/lib/apptainer/mnt/session"
# Root inside a container has no more rights than anyone else.
sed -i -E 's/^#? *root default capabilities.*/root default capabilities = no/' "$dir/usr/etc/apptainer/apptainer.conf"
"$dir/usr/bin/apptainer" --version
