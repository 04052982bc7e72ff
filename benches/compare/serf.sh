#!/usr/bin/env bash
# A real cluster of serf agents on loopback, next to the rules of memberlist in the simulator: benches/compare/serf.sh
# [AGENTS]. It prints how long the agents take to know each other, what a member sends when nothing happens, and how long
# after a kill -9 the first of the others holds the member failed, the median over KILLS of them (5), and the last, the
# longest of all.
#
# The agents have their LAN profile and a network of their own, whose loopback counts what they send: UDP and TCP, with
# headers of IP. The time of a failure is written by each agent's event handler, which takes a process of its own; so the
# last comes some tens of milliseconds late. Needs root, for the network.
set -euo pipefail
cd "$(dirname "$0")/../.."

command -v serf >/dev/null || { echo 'skipped: serf not installed'; exit 0; }
AGENTS=${1:-64} KILLS=${KILLS:-5} IDLE=${IDLE:-60}
[[ $AGENTS =~ ^[1-9][0-9]*$ && $AGENTS -ge 4 && $AGENTS -le 500 ]] || { echo "$AGENTS agents: from 4 to 500" >&2; exit 2; }
[[ $KILLS =~ ^[1-9][0-9]*$ && $KILLS -lt $((AGENTS / 2)) ]] || { echo "KILLS=$KILLS: below half of the agents" >&2; exit 2; }
[[ $IDLE =~ ^[1-9][0-9]*$ ]] || { echo "IDLE=$IDLE is no number of seconds" >&2; exit 2; }
if [ "${IN_NAMESPACE:-}" != 1 ]; then
  # Built before, where there is a network.
  cargo build --release --quiet -p brickwork-bench --bin simulate
  export IN_NAMESPACE=1 AGENTS KILLS IDLE
  exec unshare --net --pid --fork --kill-child "$0" "$AGENTS"
fi

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
ip link set lo up
cat >"$dir/failed" <<'HANDLER'
#!/bin/sh
date +%s%N >>"$FAILED_AT.$SERF_SELF_NAME"
HANDLER
chmod +x "$dir/failed"
export FAILED_AT=$dir/at
declare -A pids
for ((n = 0; n < AGENTS; n++)); do
  serf agent -node="n$n" -bind="127.0.0.1:$((20000 + n))" -rpc-addr="127.0.0.1:$((22000 + n))" -profile=lan \
    -log-level=err -event-handler="member-failed=$dir/failed" >"$dir/log.$n" 2>&1 &
  pids[$n]=$!
  disown
done

members() { # members N: how many are alive for agent N
  serf members -rpc-addr="127.0.0.1:$((22000 + $1))" -format=json 2>/dev/null |
    jq '[.members[] | select(.status == "alive")] | length' 2>/dev/null || echo 0
}
for ((n = 0; n < AGENTS; n++)); do
  until [ "$(members "$n")" = 1 ]; do :; done
done
now() { date +%s%N; }
ms() { printf '%d' $((($2 - $1) / 1000000)); }
median() { sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }

start=$(now)
for ((n = 1; n < AGENTS; n++)); do
  serf join -rpc-addr="127.0.0.1:$((22000 + n))" 127.0.0.1:20000 >/dev/null &
done
for ((n = 0; n < AGENTS; n++)); do # An upper bound: whoever knew all before it was asked is found later.
  until [ "$(members "$n")" = "$AGENTS" ]; do :; done
done
joined=$(ms "$start" "$(now)")

counted() { awk -v field="$1" '$1 == "lo:" { print $field }' /proc/net/dev; }
# What the joins have to tell is told.
sleep 30
bytes=$(counted 10) packets=$(counted 11)
sleep "$IDLE"
packets=$(($(counted 11) - packets))
# The loopback counts 14 bytes of Ethernet with each.
bytes=$(($(counted 10) - bytes - 14 * packets))

firsts='' lasts=''
for ((kill = 1; kill <= KILLS; kill++)); do
  rm -f "$dir"/at.*
  at=$(now)
  kill -9 "${pids[$kill]}"
  until [ "$(find "$dir" -name 'at.*' | wc -l)" = $((AGENTS - kill)) ]; do sleep 0.2; done
  times=$(cat "$dir"/at.* | sort -n)
  firsts+="$(ms "$at" "$(head -n 1 <<<"$times")") " lasts+="$(ms "$at" "$(tail -n 1 <<<"$times")") "
  sleep 10
done

simulated() { # simulated SCENARIO FILTER
  target/release/simulate "benches/scenarios/$1.toml" --nodes "$AGENTS" --memberlist --json | jq ".scenarios[0].runs[0].figures | $2"
}
printf '%d members                                  serf agents   memberlist'\''s rules, simulated\n' "$AGENTS"
printf 'all know all (ms)                       %11d   %d\n' "$joined" "$(simulated boot '.joined * 1000 | round')"
printf 'idle, bytes per member and second       %11d   %d\n' $((bytes / AGENTS / IDLE)) \
  "$(simulated steady '.bytes_per_second_with_headers | round')"
printf 'idle, packets per member and second     %11.1f   %.1f\n' "$(jq -n "$packets / $AGENTS / $IDLE")" \
  "$(simulated steady .datagrams_per_second)"
printf 'kill -9, the first holds it failed (ms) %11d   %d\n' "$(tr ' ' '\n' <<<"$firsts" | grep . | median)" \
  "$(simulated crash '.detection_first_p50 * 1000 | round')"
printf 'kill -9, the last of all does (ms)      %11d   %d\n' "$(tr ' ' '\n' <<<"$lasts" | sort -n | tail -n 1)" \
  "$(simulated crash '.detection_all_max * 1000 | round')"
