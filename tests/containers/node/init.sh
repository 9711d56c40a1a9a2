# Pid 1 of a node, in namespaces of its own: init.sh NAME FOLDER BASE BINARIES...
#
# FOLDER is what the node keeps over a restart, BASE the read-only root below it, and the folders of
# BINARIES are mounted below /opt. Ends as the node's supervisor.
set -eu
name=$1 folder=$2 base=$3
shift 3
supervise=$(cat "$(dirname "$0")/supervise.sh")
root=$folder/root

hostname "$name"
mount -t overlay overlay -o "lowerdir=$base,upperdir=$folder/upper,workdir=$folder/work" "$root"
# containerd stacks overlays of its own below /var, which must not be one.
mount --bind "$folder/var" "$root/var"
for binaries in "$@"; do
    mkdir -p "$root/opt/${binaries##*/}"
    mount --bind "$binaries" "$root/opt/${binaries##*/}"
done
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --bind /dev "$root/dev"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t tmpfs run "$root/run"
mount -t tmpfs cgroup "$root/sys/fs/cgroup"
# Mounted anew, a hierarchy shows what the cgroup namespace is of it.
while IFS=: read -r _ controllers _; do
    case $controllers in
        '') continue ;;
        name=*) options=none,$controllers ;;
        *) options=$controllers ;;
    esac
    mkdir "$root/sys/fs/cgroup/${controllers#name=}"
    mount -t cgroup -o "$options" cgroup "$root/sys/fs/cgroup/${controllers#name=}"
done < /proc/self/cgroup

cd "$root"
pivot_root . .
umount -l .
mount --make-rshared /
exec chroot . sh -c "$supervise"
