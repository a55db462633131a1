# Boot a host: what it sees of the kernel, as in a container, then its first process.
# $1: folder of the host  $2: its root  $3: name  $4: sshd or systemd
set -e
lab=$1 root=$2 name=$3 init=$4
hostname "$name"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=755 run "$root/run"
mkdir "$root/run/sshd"
mount -t tmpfs -o mode=755 dev "$root/dev"
for node in null zero full random urandom tty; do
    touch "$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 pts "$root/dev/pts"
mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
[ "$init" != systemd ] || mount -t cgroup2 groups "$root/sys/fs/cgroup"
cd "$root"
pivot_root . mnt
umount -l /mnt
[ "$init" != systemd ] || exec env -i container=lab PATH="$PATH" /lib/systemd/systemd --show-status=0 --unit=multi-user.target
exec /usr/sbin/sshd -D -e -f "$lab/sshd_config" 2>>"$lab/sshd.log"
