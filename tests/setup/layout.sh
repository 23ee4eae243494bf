# Sourced: the pieces of OCI image layouts. Needs jq.
# shellcheck shell=bash

# blob LAYOUT FILE TYPE: moves a file into the layout under its digest and prints its descriptor.
blob() {
  local layout=$1 file=$2 type=$3 digest size
  digest=$(sha256sum "$file" | cut -d' ' -f1)
  size=$(stat -c %s "$file")
  mkdir -p "$layout/blobs/sha256"
  mv "$file" "$layout/blobs/sha256/$digest"
  jq -nc --arg type "$type" --arg digest "sha256:$digest" --argjson size "$size" \
    '{mediaType: $type, digest: $digest, size: $size}'
}
