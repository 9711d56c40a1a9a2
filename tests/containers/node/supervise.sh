# What systemd is on other nodes: keeps containerd and the kubelet running, the latter from when
# kubeadm has configured it, and unless /run/kubelet.stopped exists.
export PATH=/opt/kubernetes:/opt/node:$PATH
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables
mkdir -p /run/lock /run/netns

while true; do
    if ! kill -0 "$containerd" 2> /dev/null; then
        containerd >> /var/log/containerd.log 2>&1 &
        containerd=$!
    fi
    if [ -e /run/kubelet.stopped ]; then
        kill "$kubelet" 2> /dev/null
    elif [ -e /var/lib/kubelet/config.yaml ] && ! kill -0 "$kubelet" 2> /dev/null; then
        . /var/lib/kubelet/kubeadm-flags.env
        # As the unit that kubeadm's package has.
        # shellcheck disable=SC2086
        kubelet --bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf \
            --kubeconfig=/etc/kubernetes/kubelet.conf --config=/var/lib/kubelet/config.yaml \
            $KUBELET_KUBEADM_ARGS >> /var/log/kubelet.log 2>&1 &
        kubelet=$!
        echo "$kubelet" > /run/kubelet.pid
    fi
    sleep 1
done
