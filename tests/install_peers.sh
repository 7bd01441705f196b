#!/bin/sh
# The real peers of the tests, from Debian's packages: installed when run as root, named otherwise.
set -eu
missing=""
need() { command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }
need dcmsend dcmtk
need Orthanc orthanc
need dciodvfy dicom3tools
[ -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ] || missing="$missing orthanc-dicomweb"
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ]; then
    echo "Installing the tests' peers:$missing"
    apt-get update -q
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
else
    echo "The tests talk to real peers. As root: apt-get install$missing" >&2
    [ "${CI:-}" != true ] || exit 1
fi
