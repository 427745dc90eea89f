#!/usr/bin/env bash
# Gives the guests of an Incus project a network card on a bridge by which they reach the internet, and neither each other,
# nor this host, nor private networks. prepare-incus-host.sh --network runs it, and so does the NixOS module. Run it as root
# on the host, again at any time: it changes only what differs. The tests run it on Debian 12 only.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: isolate-network.sh --network NETWORK [options]

  --network NETWORK         bridge of Incus's for these guests alone; it is made when it is missing, with IPv4 only
  --project PROJECT         Incus project whose profile default gets the card (default: cijob)
  --allow-egress ADDRESSES  what guests may reach all the same, such as 10.1.2.3 or 10.1.2.0/24; may be given again
                            (default: nothing). This host's own addresses stay out of reach.
  --undo                    take the card, the rules, and a network that was made here away again

The rules name the addresses that this host has now: run this again when they change.
TEXT
}

say() { printf 'isolate-network: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

network='' project=cijob undo='' allowed=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --undo) undo=yes; shift; continue ;;
    --*) [ $# -ge 2 ] || die "$1 needs a value" ;;&
    --network) network=$2 ;;
    --project) project=$2 ;;
    --allow-egress) allowed+=("$2") ;;
    *) usage >&2; die "unknown option $1" ;;
  esac
  shift 2
done
[ -n "$network" ] || die '--network is missing'
[[ $network =~ ^[A-Za-z][A-Za-z0-9._-]{1,14}$ ]] || die "--network $network is no name for a bridge"
[[ $project =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] || die "--project $project is no name for a project"
for addresses in "${allowed[@]}"; do
  [[ $addresses =~ ^[0-9A-Fa-f.:]+([/-][0-9A-Fa-f.:]+)?$ ]] || die "--allow-egress $addresses is no address, network or range"
done
incus project show "$project" >/dev/null || die "there is no Incus project $project"

rules=cijob-$network
mark=user.cijob.made
exists() { incus network show "$network" >/dev/null 2>&1; }
has_card() { incus profile device list default --project "$project" | grep -qx eth0; }
# Sets key=value pairs where they differ. What to change is the name of a function that takes a verb and words.
settle() {
  local of=$1 setting
  shift
  for setting; do
    [ "$("$of" get "${setting%%=*}")" = "${setting#*=}" ] || { say "${of#of_}: $setting"; "$of" set "$setting"; }
  done
}
of_network() { incus network "$1" "$network" "$2"; }
of_card() { incus profile device "$1" default eth0 "$2" --project "$project"; }
of_project() { incus project "$1" "$project" "$2"; }

if [ -n "$undo" ]; then
  if has_card && [ "$(of_card get network)" = "$network" ]; then
    incus profile device remove default eth0 --project "$project" >&2
  fi
  [ "$(of_project get restricted.networks.access)" != "$network" ] || of_project unset restricted.networks.access
  if exists; then
    for key in security.acls security.acls.default.egress.action security.acls.default.ingress.action; do
      [ -z "$(of_network get "$key")" ] || of_network unset "$key"
    done
    [ "$(of_network get "$mark")" != true ] || incus network delete "$network" >&2
  fi
  ! incus network acl show "$rules" >/dev/null 2>&1 || incus network acl delete "$rules" >&2
  exit 0
fi

# Incus has rules for a network as a whole: they would bind everything else on it, too.
if exists; then
  told=$(incus network show "$network")
  [[ $told == *$'\ntype: bridge\n'* && $told == *$'\nmanaged: true\n'* ]] || die "network $network is no bridge that Incus manages"
  others=$(awk '/^[^ -]/ { list = $1 == "used_by:" } list && $1 == "-" { print $2 }' <<<"$told" | grep -v "[?]project=$project\$" || true)
  [[ -z $others || $(of_network get security.acls) == "$rules" ]] ||
    die "network $network is used by others, whom the rules would bind too: $(tr '\n' ' ' <<<"$others"); name one for guests alone, it is made when it is missing"
else
  say "making the network $network"
  incus network create "$network" ipv6.address=none "$mark=true" >&2
fi

# What is not refused by name and not allowed by name is refused. The ranges are all of IPv4 but for private, shared,
# link-local (where clouds serve metadata), local, test and multicast addresses, and all of IPv6 that is routed in the
# internet but for what carries IPv4 inside. Incus looks at refusals first, wherever they stand, and lets DHCP and DNS of the
# bridge through before all rules.
internet=1.0.0.0-9.255.255.255,11.0.0.0-100.63.255.255,100.128.0.0-126.255.255.255,128.0.0.0-169.253.255.255
internet+=,169.255.0.0-172.15.255.255,172.32.0.0-191.255.255.255,192.0.1.0-192.167.255.255,192.169.0.0-198.17.255.255
internet+=,198.20.0.0-223.255.255.255,2000::/3
command -v ip >/dev/null || die 'ip is missing: apt-get install iproute2'
# Through the host, guests of a public subnet would reach each other.
subnet=$(ip -o address show scope global dev "$network" | awk '{ print $4 }' | sort -u | paste -sd,)
own=$(ip -o address show scope global | awk '{ sub("/.*", "", $4); print $4 }' | sort -u | paste -sd,)
draft=$(mktemp)
trap 'rm -f "$draft"' EXIT
rule() { printf -- '- action: %s\n  destination: %s\n  description: %s\n  state: enabled\n' "$1" "$2" "$3"; }
{
  printf 'name: %s\ndescription: guests of the project %s\negress:\n' "$rules" "$project"
  rule reject "${own:+$own,}2001::/32,2002::/16" 'this host, and tunnels'
  [ -z "$subnet" ] || rule reject "$subnet" 'the network of these guests'
  rule allow "$internet" 'the internet'
  for addresses in "${allowed[@]}"; do rule allow "$addresses" 'by --allow-egress'; done
  printf 'ingress: []\nconfig: {}\n'
} >"$draft"
known=$(incus network acl show "$rules" 2>/dev/null) || { incus network acl create "$rules" >&2; known=''; }
# used_by and project are not ours to say.
if [ "$(awk '/^[^ -]/ { list = $1 != "used_by:" && $1 != "project:" } list' <<<"$known")" != "$(cat "$draft")" ]; then
  say "setting the rules $rules"
  incus network acl edit "$rules" <"$draft" >&2
fi
settle of_network security.acls.default.egress.action=reject security.acls.default.ingress.action=reject "security.acls=$rules"
# Without this Incus does not know which addresses of IPv6 are a guest's, and cannot filter them.
[[ $(of_network get ipv6.address) =~ ^(none)?$ ]] || settle of_network ipv6.dhcp.stateful=true

[[ $(of_project get restricted.networks.access) =~ ^($network)?$ ]] || of_project unset restricted.networks.access
# A card of another kind, or on another network, is taken whole: options of the one are mistakes in the other.
! has_card || [ "$(of_card get network)" = "$network" ] || {
  say 'taking the network card eth0 of the profile default away'
  incus profile device remove default eth0 --project "$project" >&2
}
has_card || incus profile device add default eth0 nic "network=$network" --project "$project" \
  security.port_isolation=true security.mac_filtering=true security.ipv4_filtering=true security.ipv6_filtering=true >&2
settle of_card security.port_isolation=true \
  security.mac_filtering=true security.ipv4_filtering=true security.ipv6_filtering=true
settle of_project "restricted.networks.access=$network"
