#!/bin/bash
# An operator's first hour with the service proxy and network policy, on a node of the lab; docs/first-hour.md keeps what it
# prints. Run it in a cluster without agents, on a kernel with IPVS or in the VM (make build first):
#
#   lab vm exec -- lab up --no-agents --nodes 1 -f examples/00-namespace.yaml -f examples/web.yaml -c scripts/first-hour.sh
#
# `node` runs a command on the node, `here` one with kubectl; both show it and what it prints. What stands around them is
# only there to wait.
set -u

title() { printf '\n## %s\n' "$*"; }
node() {
  printf '# %s\n' "$1"
  lab on node-1 sh -c "$1" 2>&1 || printf '(exit status %s)\n' "$?"
}
here() {
  printf '# %s\n' "$1"
  sh -c "$1" 2>&1 || printf '(exit status %s)\n' "$?"
}
# quietly_until COMMAND: until it succeeds, four minutes at most
quietly_until() {
  for _ in $(seq 480); do
    sh -c "$1" >/dev/null 2>&1 && return
    sleep 0.5
  done
  echo "not within 240 s: $1" >&2
  exit 1
}
flags="--master=http://172.31.0.1:8080 --hostname-override=node-1 --metrics-port=8080"
start() {
  printf '# systemctl start kube-router\n'
  lab on node-1 sh -c "exec kube-router $flags >>/run/agent.log 2>&1" &
  agent=$!
  for _ in $(seq 480); do
    lab on node-1 curl -sf -o /dev/null localhost:20244/readyz && return
    sleep 0.5
  done
  echo "not ready after 240 s" >&2
  exit 1
}
# stop SIGNAL
stop() {
  lab on node-1 sh -c "kill -$1 \$(ss -Hltnp sport = :20244 | sed 's/.*pid=\([0-9]*\).*/\1/')"
  wait "$agent" 2>/dev/null
}

kubectl -n shop wait --for=condition=Ready pod --all --timeout=120s >/dev/null || exit 1
vip=$(kubectl -n shop get service web -o jsonpath='{.spec.clusterIP}')
# Two pods of the web server: one asks the other.
read -r asker asked _ <<<"$(kubectl -n shop get pods -l app=web -o jsonpath='{.items[*].metadata.name}')"
asked_ip=$(kubectl -n shop get pod "$asked" -o jsonpath='{.status.podIP}')
# A kube-proxy that has ended, and what it left.
lab on node-1 sh -c "iptables -t nat -N KUBE-SERVICES
  iptables -t nat -A KUBE-SERVICES -d $vip/32 -p tcp --dport 80 -j DNAT --to-destination 192.0.2.200:80
  iptables -t nat -A PREROUTING -j KUBE-SERVICES; iptables -t nat -A OUTPUT -j KUBE-SERVICES"

title "Install"
here "kubectl apply -f daemonset/rbac.yaml"
node "kube-router --version 2>&1"
node "kube-router doctor -- $flags | grep -v ^ok"

title "Start"
start
node "grep WARN /run/agent.log | cut -d ' ' -f 3-"
node "curl -s -m 2 http://$vip/hostname"
remedy=$(lab on node-1 sh -c "sed -n 's/.*then run: //p' /run/agent.log | head -n 1")
node "$remedy"

title "Look"
node "curl -s localhost:20244/readyz"
node "kube-router status"
node "curl -s -m 60 http://$vip/hostname"
node "ipvsadm -ln -t $vip:80"

title "Break: an annotation that means nothing, and a policy that forbids too much"
here "kubectl -n shop annotate service web kube-router.io/service.scheduler=fastest"
here "kubectl apply -f examples/policy/network-policy.yaml"
quietly_until "lab on node-1 kube-router status problems | grep fastest"
quietly_until "! lab on shop.$asker curl -s -m 2 -o /dev/null http://$asked_ip:8080/hostname"
printf '# kubectl -n shop exec %s -- curl -s -m 3 http://%s:8080/hostname\n' "$asker" "$asked_ip"
lab on "shop.$asker" curl -s -m 3 "http://$asked_ip:8080/hostname" || printf '(exit status %s)\n' "$?"

title "Read why"
node "kube-router status problems"
node "kube-router explain --from shop/$asker --to shop/$asked --port 8080"
printf '# kube-router monitor --count 1\n'
lab on node-1 timeout 120 kube-router monitor --count 1 2>&1 &
watcher=$!
while kill -0 "$watcher" 2>/dev/null; do
  lab on "shop.$asker" curl -s -m 1 -o /dev/null "http://$asked_ip:8080/hostname"
  sleep 1
done
wait "$watcher"
quietly_until "lab on node-1 kube-router doctor | grep 'no problems, 1 warnings'"
node "kube-router doctor | grep -v ^ok"
here "kubectl -n shop annotate service web kube-router.io/service.scheduler-"
here "kubectl delete -f examples/policy/network-policy.yaml"
quietly_until "! lab on node-1 kube-router status problems | grep fastest"
node "kube-router status problems"

title "Break: somebody deletes what is ours"
node "ip link delete kube-dummy-if; sleep 1; ip -br -4 address show dev kube-dummy-if"

title "Break: the agent dies"
printf '# kill -9 PID\n'
stop KILL
node "kube-router status"
node "curl -s -m 60 http://$vip/hostname"
start
node "curl -s localhost:20244/readyz"

title "Clean up"
printf '# systemctl stop kube-router\n'
stop TERM
node "kube-router --cleanup-config 2>&1 | cut -d ' ' -f 3-"
node "ipvsadm -Sn; ip link show kube-dummy-if; iptables-save | grep KUBE-; ipset list -n"
