# Takes away everything that one private containerd can leave behind, however the test process ended.
# Standard input stays open as long as the test process lives; DIR and SCOPE arrive in the environment so that
# this script's own command line never matches what it looks for.
read -r _

kill_matching() {
	for process in /proc/[0-9]*; do
		if tr '\0' ' ' <"$process/cmdline" | grep -qF "$DIR/"; then
			kill -KILL "${process#/proc/}"
		fi
	done
}

cgroups() {
	find /sys/fs/cgroup -mindepth 1 -depth -type d \( -name "$SCOPE" -o -path "*/$SCOPE/*" \)
}

{
	kill -TERM "$(cat "$DIR/containerd.pid")"
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		kill -0 "$(cat "$DIR/containerd.pid")" || break
		sleep 0.1
	done
	kill_matching
	for _ in 1 2 3; do
		for cgroup in $(cgroups); do
			for member in $(cat "$cgroup/cgroup.procs"); do kill -KILL "$member"; done
		done
		sleep 0.1
		for cgroup in $(cgroups); do
			if [ -e "$cgroup/freezer.state" ]; then echo THAWED >"$cgroup/freezer.state"; fi
			rmdir "$cgroup"
		done
	done
	for address in $(cat "$DIR"/state/io.containerd.runtime.v2.task/*/*/address); do
		rm -f "${address#unix://}"
	done
	awk -v dir="$DIR/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | sort -r | while read -r mount; do
		umount -l "$mount"
	done
	rm -rf "/run/containerd/runc/$SCOPE" "$DIR"
} 2>/dev/null >&2
