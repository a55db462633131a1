# A host's disk (this machine's files below what the host writes) and its power, both of which last through reboots.
# $1: folder of the host  $2: size of its home  $3: account  $4: name  $5: sshd or systemd  the rest: folders it must see
set -e
lab=$1 size=$2 user=$3 name=$4 init=$5
shift 5
root=$lab/disk/root home="home of $user"
mount --make-rprivate /
mkdir -p "$lab/disk" "$lab/$home"
mount -t tmpfs -o mode=755 disk "$lab/disk"
mkdir "$lab/disk/written" "$lab/disk/work" "$root"
mount -t overlay -o "lowerdir=/,upperdir=$lab/disk/written,workdir=$lab/disk/work" disk "$root"
echo "$user:x:4242:4242::$lab/$home:/bin/bash" >>"$root/etc/passwd"
rm -f "$root/root/.bashrc" # a bare account, too
echo "$user:x:4242:" >>"$root/etc/group"
echo "$user:*:19000:0:99999:7:::" >>"$root/etc/shadow"
for folder in "$lab" "$@"; do # other accounts may not enter /root, where a Python may lie
    while folder=$(dirname "$folder") && [ "$folder" != / ]; do chmod a+x "$root$folder"; done
done
for folder in "$lab" "$@"; do
    mkdir -p "$root$folder"
    mount --bind "$folder" "$root$folder"
done
mount -t tmpfs -o "size=$size,mode=700,uid=4242,gid=4242" home "$root$lab/$home"
if [ "$init" = systemd ]; then
    units=$root/etc/systemd/system # none of the services that are enabled here
    rm -rf "$units" "$root/var/lib/systemd/linger" "$root/var/log/journal"
    mkdir -p "$units/multi-user.target.wants" "$root/etc/tmpfiles.d" "$root/var/log/journal"
    ln -s /dev/null "$units/getty.target"
    ln -s /dev/null "$root/etc/tmpfiles.d/tmp.conf" # it empties /tmp
    tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
    echo "$name" >"$root/etc/hostname"
    echo "127.0.0.1 $name" >>"$root/etc/hosts"
    cat >"$units/ssh.service" <<UNIT
[Service]
ExecStart=/usr/sbin/sshd -D -e -f "$lab/sshd_config"
KillMode=process
Restart=always
UNIT
    ln -s ../ssh.service "$units/multi-user.target.wants/ssh.service"
    mkdir -p "$lab/groups"
    mount -t cgroup2 groups "$lab/groups"
    mkdir "$lab/groups/$name"
    echo 0 >"$lab/groups/$name/cgroup.procs"
fi
ip link set lo up
status=129 # the hang-up by which the kernel says that a host wants to boot again
while [ $status = 129 ]; do
    status=0
    unshare --mount --pid --fork --uts --ipc --cgroup sh "${0%disk.sh}boot.sh" "$lab" "$root" "$name" "$init" || status=$?
done
exit $status
