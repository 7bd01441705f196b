#!/bin/sh
# The real peers of the tests. From Debian's packages: installed when run as root, named otherwise. OHIF comes from the
# npm registry that npm is set up for, as any user, into a cache folder.
set -eu

ohif_version=3.13.2
ohif_sha512=5997719a9986eeba85816f5924b71b82bdd70ad2e2d4a0cd3e831a798e4f3deea3e06e1f8c48e393271933a0ba664d85f3b04ac457e9abe8dde715d907d13c10
ohif_folder="${XDG_CACHE_HOME:-$HOME/.cache}/discnode/ohif-$ohif_version"

missing=""
need() { command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }
need dcmsend dcmtk
need Orthanc orthanc
need dciodvfy dicom3tools
need chromium chromium
[ -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ] || missing="$missing orthanc-dicomweb"
[ -e "$ohif_folder/index.html" ] || need npm npm
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ]; then
        echo "Installing the tests' peers:$missing"
        apt-get update -q
        # shellcheck disable=SC2086
        DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
    else
        echo "The tests talk to real peers. As root: apt-get install$missing" >&2
        [ "${CI:-}" != true ] || exit 1
    fi
fi

# OHIF $ohif_version as its makers built it: what is kept is the folder with its pages.
fetch_ohif() (
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    cd "$work"
    npm pack --silent "@ohif/app@$ohif_version" >/dev/null || {
        echo "The npm registry cannot be reached, or does not have @ohif/app $ohif_version" >&2
        exit 1
    }
    echo "$ohif_sha512  ohif-app-$ohif_version.tgz" | sha512sum --check --quiet || exit 1
    tar xzf "ohif-app-$ohif_version.tgz"
    mkdir -p "$(dirname "$ohif_folder")"
    rm -rf "$ohif_folder.new" "$ohif_folder"
    mv package/dist "$ohif_folder.new"
    mv "$ohif_folder.new" "$ohif_folder"
)
if [ ! -e "$ohif_folder/index.html" ] && command -v npm >/dev/null 2>&1; then
    echo "Fetching the viewer OHIF $ohif_version (50 MB)"
    if ! fetch_ohif; then
        echo "OHIF $ohif_version was not fetched: the tests that open results in it will not run" >&2
        [ "${CI:-}" != true ] || exit 1
    fi
fi
