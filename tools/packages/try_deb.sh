#!/bin/sh
# In a root of its own: installs the Debian packages, upgrades them beside a tunnel, removes and purges them.
#
#   try_deb.sh INSTALL    INSTALL is the command that installs files: "dpkg -i", or "apt-get install -y"
#
# /packages/old and /packages/new have both packages in two versions. Prints what held, a line for each thing.
set -eu
install=$1

holds() { printf 'holds: %s\n' "$1"; }
fails() { printf 'fails: %s\n' "$1"; exit 1; }
calls() { cat /run/calls 2>/dev/null || true; }

# systemd is not the first process here: what it is asked for is written down.
mkdir -p /run/systemd/system
rm -f /usr/bin/systemctl
cat >/usr/bin/systemctl <<'END'
#!/bin/sh
echo "$*" >>/run/calls
END
chmod +x /usr/bin/systemctl

eval "$install" /packages/old/*.deb >/tmp/log 2>&1 || { cat /tmp/log; fails "installs"; }
[ "$(stat -c %a /etc/wireguard)" = 700 ] || fails "only root reads /etc/wireguard"
[ "$(pywg --version | head -n 1)" = "$(pywgd --version | sed s/pywgd/pywg/)" ] || fails "one version"
[ "$(command -v pywg)" = /usr/bin/pywg ] || fails "pywg is that of the package"
[ -n "$(pywg genkey | pywg pubkey)" ] || fails "makes keys"
/usr/bin/python3 -c 'import pywg; pywg.PrivateKey.generate()' || fails "is a library"
calls | grep -q daemon-reload || fails "systemd reads the units"
if calls | grep -q -E 'reload (pywg|restart|start|enable)'; then fails "starts nothing"; fi
dpkg -L pywg pywgd | sort -u >/run/files
holds "installs"

# 192.0.2.1 near ---- 192.0.2.2 far; inside 10.9.0.1 ---- 10.9.0.2. pywg up here, pywgd there.
ip netns add near
ip netns add far
ip -n near link add veth type veth peer name veth netns far
ip -n near addr add 192.0.2.1/24 dev veth
ip -n far addr add 192.0.2.2/24 dev veth
ip -n near link set veth up
ip -n far link set veth up
near_key=$(pywg genkey)
far_key=$(pywg genkey)
umask 077
cat >/etc/wireguard/wg0.conf <<END
[Interface]
PrivateKey = $near_key
Address = 10.9.0.1/24
[Peer]
PublicKey = $(echo "$far_key" | pywg pubkey)
AllowedIPs = 10.9.0.2/32
Endpoint = 192.0.2.2:51820
END
cat >/run/far.conf <<END
[Interface]
PrivateKey = $far_key
ListenPort = 51820
[Peer]
PublicKey = $(echo "$near_key" | pywg pubkey)
AllowedIPs = 10.9.0.1/32
END
ip netns exec far pywgd wgfar
ip netns exec far pywg setconf wgfar /run/far.conf
ip -n far addr add 10.9.0.2/24 dev wgfar
ip -n far link set wgfar up
ip netns exec near pywg up wg0 >/tmp/log 2>&1 || { cat /tmp/log; fails "pywg up"; }
ip netns exec near ping -c 1 -W 10 10.9.0.2 >/dev/null || fails "a tunnel carries packets"
holds "a tunnel carries packets"

handshake() { ip netns exec near pywg show wg0 latest-handshakes; }
before=$(handshake)
: >/run/calls
ip netns exec near ping -i 0.02 10.9.0.2 >/tmp/pings 2>&1 &
pinging=$!
dpkg -i /packages/new/*.deb >/tmp/log 2>&1 || { cat /tmp/log; fails "upgrades"; }
kill -INT "$pinging"
wait "$pinging" || fails "the tunnel goes on during an upgrade"
grep -q ' 0% packet loss' /tmp/pings || { tail -n 3 /tmp/pings; fails "no packet is lost in an upgrade"; }
[ "$(handshake)" = "$before" ] || fails "sessions go on during an upgrade"
for unit in pywg pywgd; do
    calls | grep -q -x -F -e "--no-block reload $unit@*.service" || fails "$unit: running tunnels are asked to take the new version"
done
if calls | grep -q -w -E 'stop|restart|try-restart'; then fails "an upgrade stops nothing"; fi
[ "$(dpkg-query -W -f '${Version} ' pywg pywgd)" = "$(cat /packages/new/version) $(cat /packages/new/version) " ] ||
    fails "the new version is there"
ip netns exec near pywg down wg0 >/tmp/log 2>&1 || { cat /tmp/log; fails "the new version ends what the old began"; }
holds "upgrades beside a tunnel"

: >/run/calls
dpkg -r pywg pywgd >/tmp/log 2>&1 || { cat /tmp/log; fails "is removed"; }
for unit in pywg pywgd; do
    calls | grep -q -x -F "stop $unit@*.service" || fails "$unit: services are stopped before it is removed"
done
dpkg -P pywg pywgd >/tmp/log 2>&1 || { cat /tmp/log; fails "is purged"; }
[ -s /etc/wireguard/wg0.conf ] || fails "the configurations stay"
while read -r path; do
    # Folders are shared, but those that only we have.
    if [ -d "$path" ]; then case $path in */pywg | */pywgd | */pywg/*) ;; *) continue ;; esac fi
    [ ! -e "$path" ] || fails "$path is left"
done </run/files
[ ! -e /var/lib/pywg ] || fails "/var/lib/pywg is left"
holds "is purged"
