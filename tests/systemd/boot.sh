# Becomes systemd in namespaces of its own, on what this machine has installed, with Assay's unit and programs. Nothing that
# it writes stays. ROOT is an empty folder, REPOSITORY is Assay's, ASSAY and SHIM are its programs.
set -eu
mount -t tmpfs none "$ROOT"
mkdir "$ROOT/upper" "$ROOT/work" "$ROOT/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$ROOT/upper,workdir=$ROOT/work" "$ROOT/root"
cd "$ROOT/root"
for folder in run tmp dev var/lib/containerd; do
	mkdir -p "$folder"
	mount -t tmpfs none "$folder"
done
mount -t proc proc proc
mount --rbind /sys sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for device in null zero full random urandom tty; do
	touch "dev/$device"
	mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts devpts dev/pts -o newinstance,ptmxmode=0666
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd

# Nothing of this machine's own is started.
rm -rf etc/systemd/system/*.wants var/lib/assay etc/assay
mkdir -p etc/assay/policy.d etc/assay/trust.d run/systemd
chmod -R go-w etc/assay
cp "$REPOSITORY/packaging/assay-agent.service" usr/lib/systemd/system/
cp "$ASSAY" "$SHIM" usr/bin/
cp "$REPOSITORY/target/images/signed/release.pub" etc/assay/trust.d/
echo '[[key]]
id = "release"
file = "release.pub"
use = ["image"]' >etc/assay/trust.d/keys.toml
echo '[[rule]]
name = "release images"
match = { image = ["assay.test/**"] }
[[rule.signature]]
any = [{ key = "release" }]
[rule.filesystem]
mode = "enforce"
[rule.seccomp]
mode = "enforce"' >etc/assay/policy.d/50-release.toml
mkdir -p mnt/target
mount --rbind "$REPOSITORY/target" mnt/target
mkdir old
pivot_root . old
umount -l /old
exec env -i container=assay-tests PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system \
	--unit=basic.target --show-status=no --log-target=journal </dev/null >/dev/null 2>&1
