#!/usr/bin/env bash
# Builds the runner's image for one environment, as reproducibly as the tools allow, and prints its digest.
#
#   BASE=docker.io/library/python@sha256:... infra/runner/build.sh gcp|azure-aci|kubernetes [FOLDER]
#   AUTHORITY=FILE ...    where the portal's certificate is of a private authority: its certificates, PEM
#
# FOLDER (default var/runner-image) gets the packages, the image as an OCI archive, and digest.txt. Nothing is pushed.
set -euo pipefail

say() { printf '%s\n' "$*" >&2; }
refuse() { say "$@"; exit 2; }

TARGET=${1:-}
case "$TARGET" in
    gcp | azure-aci | kubernetes) ;;
    *) refuse "Name the environment: gcp, azure-aci or kubernetes. An Azure VM has a disk image: docs/how-to/runner-image.md." ;;
esac
[[ ${BASE:-} =~ ^[a-z0-9./:_-]+@sha256:[0-9a-f]{64}$ ]] ||
    refuse "BASE must name python:3.11-slim by digest (name@sha256:...), not by a tag, which can be moved."
[[ ! $BASE =~ :[^/@]+@ ]] || refuse "BASE names a tag beside the digest: leave the tag out, so that nobody reads it as the promise."

[[ -z ${AUTHORITY:-} ]] || grep -q 'BEGIN CERTIFICATE' "$AUTHORITY" || refuse "AUTHORITY must name a PEM file with certificates."

ROOT=$(cd "$(dirname "$0")/../.." && pwd)
OUT=$(realpath -m "${2:-$ROOT/var/runner-image}")
cd "$ROOT"
[[ -z $(git status --porcelain -- workers sdk requirements infra/runner) ]] ||
    refuse "There are changes that are not committed. An image must be one that somebody else can build again: commit first."
BUILDER=$(command -v podman || command -v buildah || true)
[[ -n $BUILDER ]] || refuse "Neither podman nor buildah is here. One of them builds the image, without a daemon or root."

# The same time for every file, so that the same commit gives the same layers.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
mkdir -p "$OUT"
CONTEXT=$(mktemp -d)
trap 'rm -rf "$CONTEXT"' EXIT
git archive HEAD workers/__init__.py workers/runner workers/programs sdk/src/strongroom requirements/programs.txt infra/runner |
    tar -x -C "$CONTEXT"

mkdir "$CONTEXT/authorities"
[[ -z ${AUTHORITY:-} ]] || cp "$AUTHORITY" "$CONTEXT/authorities/portal.pem"

# Packages are fetched before the build, with their hashes; the build itself has no network.
WHEELS=$CONTEXT/wheels
mkdir -p "$WHEELS"
PIP=${PIP:-"$ROOT/.venv-programs/bin/python -m pip"}
# autograd-gamma is published as sources only: built in the image with the lock's setuptools, its sources pinned by hash.
$PIP download --quiet --only-binary :all: --no-binary autograd-gamma --dest "$WHEELS" --no-deps --require-hashes \
    -r requirements/programs.txt
$PIP download --quiet --only-binary :all: --dest "$WHEELS" -r requirements/torch.txt \
    ${STRONGROOM_TORCH_INDEX:+--index-url "$STRONGROOM_TORCH_INDEX"}
# torch's two builds have one version, so its lock has no hash; here the wheels that were fetched are pinned by theirs.
# Whoever builds again compares wheels.sha256.
(cd "$WHEELS" && sha256sum -- *.whl *.tar.gz | sort -k2) > "$OUT/wheels.sha256"
python3 - "$WHEELS" requirements/programs.txt > "$WHEELS/torch.txt" <<'PY'
import hashlib, pathlib, re, sys
folder, lock = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]).read_text()
name_of = lambda text: re.sub(r"[-_.]+", "-", text).lower()
# setuptools goes first, because it builds what comes as sources
known = {name_of(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", lock, re.M)} - {"setuptools"}
for wheel in sorted(folder.glob("*.whl")):
    name, version = wheel.name.split("-")[:2]
    if name_of(name) not in known:
        print(f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}")
PY
find "$CONTEXT" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

# BASE is named by its digest: an image of that digest that is here already is the same.
"$BUILDER" build --file infra/runner/Containerfile --target "$TARGET" --build-arg "BASE=$BASE" \
    --timestamp "$SOURCE_DATE_EPOCH" --network none --pull=missing --no-cache --format oci \
    --iidfile "$OUT/id.txt" --tag "strongroom-runner:$TARGET" "$CONTEXT" >&2
"$BUILDER" push --digestfile "$OUT/digest.txt" "strongroom-runner:$TARGET" "oci-archive:$OUT/$TARGET.tar" >&2

say "The image is in $OUT/$TARGET.tar. Push it without recompressing, and compare what the registry says:"
printf '%s\n' "$(cat "$OUT/digest.txt")"
