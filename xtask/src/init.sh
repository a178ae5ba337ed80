#!/bin/busybox sh
# The first process of the booted kernel: runs the tests, says how they ended, switches off.
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin HOME=/tmp RUST_BACKTRACE=1

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
exec </dev/null >/dev/console 2>&1
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
ip link set lo up

status=0
for module in /modules/*; do
    [ -e "$module" ] || continue
    insmod "$module" || { echo "cannot insert $module"; status=1; }
done

echo "booted: $(uname -r), $(nproc) CPUs, after $(cut -d ' ' -f 1 /proc/uptime) s"
[ ! -e /usr/bin/detector ] || export DETECTOR_BIN=/usr/bin/detector
for test in /tests/*; do
    echo "     Running ${test##*/}"
    "$test" --test-threads=1 --show-output || status=1
done

echo "guest-exit: $status"
poweroff -f
