#!/usr/bin/env bash
# Prepares a Debian or Ubuntu machine, on which Incus runs already, as a host for CiJobs: a user, its key, a restricted
# project, the directories that guests may mount from. Prints the IncusHost to apply; everything else goes to standard error.
# Run it as root on the machine itself; again at any time, it changes only what differs. The tests run it on Debian 12 only.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: prepare-incus-host.sh --name NAME --public-key KEY|FILE [options]

  --name NAME             name of the IncusHost
  --public-key KEY|FILE   public half of the controller's SSH key: "ssh-ed25519 AAAA…", or a file with it
  --address ADDRESS       how the controller reaches this machine (default: its full host name)
  --port PORT             port of sshd (default: 22)
  --user USER             user to make and log in as (default: cijob)
  --project PROJECT       Incus project to make (default: cijob)
  --pool POOL             storage pool of the root disks (default: default)
  --network NETWORK       bridge of Incus's for these guests alone, made when it is missing: by it they reach the internet,
                          and neither each other, nor this machine, nor private networks; isolate-network.sh must be
                          beside this script (default: none, guests have no network)
  --allow-egress ADDRESSES  private addresses that guests may reach all the same, such as 10.1.2.0/24; may be given again
  --source DIRECTORY      directory that guests may mount from; may be given again (default: /var/lib/cijob)
  --instances N           slots (default: number of CPUs)
  --limit KEY=VALUE       limit of the whole project, such as memory=64GiB, cpu=32, instances=16 or disk=1TiB; may be
                          given again (default: none)
  --via Socket|Sudo       Socket: the user may open Incus's socket (group incus-admin).
                          Sudo: it may not, but may run one command as root (default: Socket)
  --socket PATH           Incus's socket (default: $INCUS_DIR, /var/lib/incus, plus /unix.socket)
  --host-key FILE         sshd's public host key (default: /etc/ssh/ssh_host_ed25519_key.pub)
TEXT
}

say() { printf 'prepare-incus-host: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

name='' public_key='' address='' port=22 user=cijob project=cijob pool=default network='' instances='' via=Socket
socket="${INCUS_DIR:-/var/lib/incus}/unix.socket" host_key=/etc/ssh/ssh_host_ed25519_key.pub
sources=() limits=() allowed=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --*) [ $# -ge 2 ] || die "$1 needs a value" ;;&
    --name) name=$2 ;;
    --public-key) public_key=$2 ;;
    --address) address=$2 ;;
    --port) port=$2 ;;
    --user) user=$2 ;;
    --project) project=$2 ;;
    --pool) pool=$2 ;;
    --network) network=$2 ;;
    --allow-egress) allowed+=(--allow-egress "$2") ;;
    --source) sources+=("$2") ;;
    --instances) instances=$2 ;;
    --limit) limits+=("$2") ;;
    --via) via=$2 ;;
    --socket) socket=$2 ;;
    --host-key) host_key=$2 ;;
    *) usage >&2; die "unknown option $1" ;;
  esac
  shift 2
done

[ -n "$name" ] || die '--name is missing'
[ -n "$public_key" ] || die '--public-key is missing'
[ -n "$address" ] || address=$(hostname --fqdn 2>/dev/null || hostname)
[ -n "$instances" ] || instances=$(nproc)
[ ${#sources[@]} -gt 0 ] || sources=(/var/lib/cijob)
[ ! -f "$public_key" ] || public_key=$(cat -- "$public_key")
[[ $name =~ ^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$ ]] || die "--name $name is no name for an IncusHost"
[[ $user =~ ^[a-z_][a-z0-9._-]{0,31}$ ]] || die "--user $user is no user name"
[[ $project =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] || die "--project $project is no name for a project"
[[ $pool =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] || die "--pool $pool is no name for a storage pool"
isolate=$(dirname -- "${BASH_SOURCE[0]}")/isolate-network.sh
[ -z "$network" ] || [ -x "$isolate" ] || die "--network needs $isolate: copy it there"
[ -n "$network" ] || [ ${#allowed[@]} = 0 ] || die '--allow-egress is for a --network'
[[ $address =~ ^[A-Za-z0-9:.-]+$ ]] || die "--address $address is no address"
[[ $port =~ ^[0-9]+$ && $instances =~ ^[0-9]+$ ]] || die '--port and --instances are numbers'
[[ $socket =~ ^/[A-Za-z0-9._/-]+$ ]] || die "--socket $socket is no path"
[[ $via == Socket || $via == Sudo ]] || die '--via is Socket or Sudo'
[[ $public_key =~ ^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521))\ [A-Za-z0-9+/=]+(\ [^$'\n']*)?$ ]] ||
  die '--public-key is no single public key of OpenSSH'
for source in "${sources[@]}"; do
  [[ $source =~ ^/[A-Za-z0-9._/-]+$ && $source != *..* && $source != */ ]] || die "--source $source is no plain absolute path"
done

for limit in "${limits[@]}"; do
  [[ $limit =~ ^(instances|containers|virtual-machines|cpu|memory|disk)=[0-9]+[A-Za-z]*$ ]] || die "--limit $limit is no limit"
done

[ "$(id -u)" = 0 ] || die 'run this as root'
[ -r "$host_key" ] || die "no host key $host_key; --host-key names another"
command -v incus >/dev/null || die 'Incus is not installed: apt-get install incus'
[ -S "$socket" ] || die "no Incus behind $socket: has it been started?"
export INCUS_DIR
INCUS_DIR=$(dirname -- "$socket")
incus storage show "$pool" >/dev/null 2>&1 || die "there is no storage pool $pool: run incus admin init"
[ "$via" = Socket ] || command -v socat >/dev/null || die 'via Sudo needs socat and sudo: apt-get install socat sudo'

# The user: no password, and no rights but those below. Another's account is not taken over: its own keys would be
# mixed with ours, and it would be handed Incus.
mark=cijob-controller
if account=$(getent passwd "$user"); then
  IFS=: read -r _ _ uid _ comment _ <<<"$account"
  [[ $comment == "$mark" && $uid -ge 100 ]] ||
    die "the user $user exists already and is not of this script: name another, or, to hand it over, usermod --comment $mark $user"
else
  say "making the user $user"
  # `*` is a password that nobody has; an account without one is locked, and sshd lets no key in.
  useradd --password '*' --shell /bin/sh --create-home --comment "$mark" "$user"
fi
# sudo reads no file with a dot in its name.
sudoers=/etc/sudoers.d/cijob-host-${user//./_}
gate=/usr/local/lib/cijob/ssh-gate-$user
group=$(stat --format=%G "$socket")
if [ "$via" = Socket ]; then
  [ "$group" != root ] || die "$socket belongs to the group root: start incusd with --group incus-admin"
  usermod --append --groups "$group" "$user"
  rm -f "$sudoers" "$gate"
  # restrict takes everything away. port-forwarding gives forwarding back, and the permits take all of it away again but
  # for this one socket: in permitopen, OpenSSH takes a path for a host where it stands in brackets. There is no word for
  # no listening at all; port 1 is one that this user may not listen on. (Sockets it may: docs/security.md.) A session is SFTP that only reads.
  options="restrict,port-forwarding,permitopen=\"[$socket]:*\",permitlisten=\"127.0.0.1:1\",command=\"internal-sftp -R\""
else
  if id -nG "$user" | tr ' ' '\n' | grep -qxF -- "$group"; then
    say "taking the user $user out of the group $group; what it runs already keeps the group until it ends"
    gpasswd --delete "$user" "$group" >&2
  fi
  # Where SFTP comes from is sshd's to say; the built-in one cannot be started from a script.
  sftp_server=$("$(command -v sshd || echo /usr/sbin/sshd)" -T 2>/dev/null | awk '$1 == "subsystem" && $2 == "sftp" { print $3 }') || true
  for path in "$sftp_server" /usr/lib/openssh/sftp-server /usr/libexec/openssh/sftp-server /usr/lib/ssh/sftp-server; do
    sftp_server=$path
    [[ ! $path =~ ^/[A-Za-z0-9._/-]+$ || ! -x $path ]] || break
  done
  [ -x "$sftp_server" ] || die 'there is no sftp-server: apt-get install openssh-sftp-server'
  draft=$(mktemp)
  # In sudoers a colon separates words.
  printf '%s ALL=(root) NOPASSWD: /usr/bin/socat STDIO UNIX-CONNECT\\:%s\n' "$user" "$socket" >"$draft"
  visudo --check --quiet --file "$draft" || die 'the sudo rule is not valid'
  # Whole or not at all: half a file would lock everybody out of sudo.
  install --mode 0440 "$draft" "$sudoers.new"
  mv "$sudoers.new" "$sudoers"
  rm -f "$draft"
  # A session is the bridge, or SFTP that only reads, whatever is asked for.
  install --directory --mode 0755 /usr/local/lib/cijob
  cat >"$gate.new" <<GATE
#!/bin/sh
case \$SSH_ORIGINAL_COMMAND in
  'sudo -n socat STDIO UNIX-CONNECT:$socket') exec sudo -n socat STDIO 'UNIX-CONNECT:$socket' ;;
  internal-sftp* | */sftp-server*) exec $sftp_server -R ;;
esac
echo 'this key is for the cijob-controller only' >&2
exit 1
GATE
  chmod 0755 "$gate.new"
  mv "$gate.new" "$gate"
  options="restrict,command=\"$gate\""
fi

say "letting the key in as $user, for what the controller does and no more"
# The user's home and all of this is root's, from the outside in, so that nothing can be put in root's way: the user may
# read it, as sshd does in its name, and change nothing. A link is not what this script made.
own() {
  [ ! -L "$1" ] || die "$1 is a link: remove it"
  [ ! -e "$1" ] || { chown --no-dereference root:root "$1"; chmod "$2" "$1"; }
}
home=$(getent passwd "$user" | cut -d: -f6)
keys=$home/.ssh/authorized_keys
own "$home" 0755
own "$home/.ssh" 0755
install --directory --mode 0755 "$home/.ssh"
own "$keys" 0644
[ -e "$keys" ] || install --mode 0644 /dev/null "$keys"
[ -f "$keys" ] || die "$keys is no file"
blob=$(cut -d' ' -f2 <<<"$public_key")
draft=$(mktemp "$home/.ssh/draft.XXXXXX")
{ grep -vF -- "$blob" "$keys" || true; printf '%s %s\n' "$options" "$public_key"; } >"$draft"
chmod 0644 "$draft"
mv --no-target-directory "$draft" "$keys"

for source in "${sources[@]}"; do
  [ -d "$source" ] || { say "making $source"; install --directory --mode 0755 "$source"; }
done

# The project: Incus itself refuses whatever it does not allow, also to the controller.
list=$(IFS=,; echo "${sources[*]}")
settings=(
  features.images=false
  features.profiles=true
  restricted=true
  restricted.devices.disk=allow
  "restricted.devices.disk.paths=$list"
)
for limit in "${limits[@]}"; do settings+=("limits.$limit"); done
if incus project show "$project" >/dev/null 2>&1; then
  for setting in "${settings[@]}"; do
    [ "$(incus project get "$project" "${setting%%=*}")" = "${setting#*=}" ] ||
      { say "project $project: $setting"; incus project set "$project" "$setting"; }
  done
else
  say "making the Incus project $project"
  flags=()
  for setting in "${settings[@]}"; do flags+=(--config "$setting"); done
  incus project create "$project" "${flags[@]}" >&2
fi
devices=$(incus profile device list default --project "$project")
grep -qx root <<<"$devices" ||
  incus profile device add default root disk path=/ "pool=$pool" --project "$project" >&2
if [ -n "$network" ]; then
  "$isolate" --network "$network" --project "$project" "${allowed[@]}"
elif grep -qx eth0 <<<"$devices"; then
  say 'guests keep the network card eth0 of the profile default; the condition Isolated of the IncusHost says what they reach by it'
fi

say "done. Compare the host key below with what this machine's console shows, then apply it:"
say "  kubectl -n cijob-system create secret generic $name-ssh --from-file=id_ed25519=PRIVATE-KEY-FILE"
cat <<MANIFEST
apiVersion: ci.pikaci.dev/v1alpha1
kind: IncusHost
metadata:
  name: $name
spec:
  connection:
    ssh:
      address: $address
      port: $port
      user: $user
      privateKeySecretRef:
        name: $name-ssh
        key: id_ed25519
      hostKeys:
        - $(cut -d' ' -f1,2 "$host_key")
      via: $via
      socketPath: $socket
  project: $project
  storagePool: $pool
  capacity:
    instances: $instances
  allowedSources:
$(printf '    - %s\n' "${sources[@]}")
  # Change this to matchLabels to admit some namespaces only.
  allowedNamespaces:
    all: true
MANIFEST
