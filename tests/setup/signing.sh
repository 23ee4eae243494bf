# Sourced: a registry of one's own, keys, and signatures as an air-gapped node gets them. Needs nothing outside
# this machine. The caller sets TOOLS, and WORK: a temporary folder for what the registry and cosign write.
# shellcheck shell=bash

export PATH=$TOOLS/cosign/bin:$TOOLS/oras/bin:$TOOLS/registry/bin:$PATH
# cosign keeps its state in the home directory; these keys have no password.
export HOME=$WORK COSIGN_PASSWORD=

# Sets `registry_pid` and `REGISTRY` (host:port).
start_registry() {
  local tries
  printf '%s\n' 'version: 0.1' 'log: {level: info}' "storage: {filesystem: {rootdirectory: $WORK/registry}}" \
    'http: {addr: "127.0.0.1:0", secret: tests}' >"$WORK/registry.yml"
  docker-registry serve "$WORK/registry.yml" >"$WORK/registry.log" 2>&1 &
  registry_pid=$!
  for tries in $(seq 100); do
    REGISTRY=$(sed -n 's/.*listening on \(127\.0\.0\.1:[0-9]*\).*/\1/p' "$WORK/registry.log")
    [[ -z $REGISTRY ]] || return 0
    sleep 0.1
  done
  fail "the registry does not start after $tries tries: $(cat "$WORK/registry.log")"
}

# Writes PREFIX.key and PREFIX.pub.
make_key() {
  cosign generate-key-pair --output-key-prefix "$1" >/dev/null 2>&1 || fail "cosign cannot make the key $1"
}

# push LAYOUT:TAG NAME:TAG
push() {
  skopeo copy --quiet --all --preserve-digests --dest-tls-verify=false "oci:$1" "docker://$REGISTRY/$2" \
    || fail "cannot push $1 to the registry"
}

# sign KEY NAME:TAG DIGEST LAYOUT: signs what DIGEST names and copies image and signatures into an OCI layout.
sign() {
  local key=$1 image=$2 digest=$3 layout=$4
  # No transparency log, no timestamp authority, no root to fetch: the key is all that there is.
  cosign signing-config create --out "$WORK/signing.json"
  cosign trusted-root create --out "$WORK/root.json"
  cosign sign --yes --key "$key" --signing-config "$WORK/signing.json" --trusted-root "$WORK/root.json" \
    --allow-http-registry "$REGISTRY/${image%:*}@$digest" >"$WORK/sign.log" 2>&1 \
    || fail "cosign cannot sign $image: $(cat "$WORK/sign.log")"
  oras copy --recursive --from-plain-http --to-oci-layout "$REGISTRY/$image" "$layout:${image#*:}" \
    >"$WORK/copy.log" 2>&1 || fail "oras cannot copy $image: $(cat "$WORK/copy.log")"
}
